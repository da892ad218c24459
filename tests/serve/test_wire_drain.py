"""How a server begins and ends: warming, signals under load, and what is told to whom."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from flaxgen import weights
from flaxgen.serve import lane, models, run, settings
from tests import serving, wires

ROOT = pathlib.Path(__file__).parents[2]


class Process:
    """A server in a process of its own; `warm`: seconds until its model, which sleeps, is ready."""

    def __init__(self, *options: str, warm: float = 0, module: tuple[str, ...] = ("tests.sleeping",)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [str(warm)] if module == ("tests.sleeping",) else []
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", *module, *words, "--port", str(port), *options],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        )

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def post(self, seconds: float, **more) -> httpx.Response:
        return httpx.post(self.url + "/v1/completions", json={"prompt": "x", "temperature": seconds, **more}, timeout=60)

    def wait_for(self, path: str, status: int = 200, *, seconds: float = 120) -> httpx.Response:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if (answer := self.get(path)).status_code == status:
                    return answer
            time.sleep(0.05)
        raise TimeoutError(f"{path} never said {status}")

    def tell(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, *, seconds: float = 20) -> tuple[int, str]:
        """The exit code and what stood on standard error."""
        _, said = self._process.communicate(timeout=seconds)
        return self._process.returncode, said

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def processes():
    """Started together, since most of a start is waiting for the disk."""
    found = {"drains": Process("--drain", "20", warm=2), "late": Process("--drain", "1"), "twice": Process()}
    yield found
    for one in found.values():
        one.kill()


@contextlib.contextmanager
def posting(process: Process, *jobs: dict):
    """The answers to these requests, which are under way inside."""
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        asked = [pool.submit(process.post, **job) for job in jobs]
        while process.get("/v1/models").json()["data"][0]["asleep"] < len(jobs):
            time.sleep(0.05)
        yield asked


def test_a_server_tells_what_it_warms_and_drains_on_sigterm(processes):
    process = processes["drains"]
    assert process.wait_for("/ready", 503).json() == {"ready": False, "warming": "beds"}
    assert process.get("/health").status_code == 200
    early = process.post(0)
    assert early.status_code == 503 and early.json()["error"]["code"] == "warming" and early.headers["retry-after"]
    process.wait_for("/ready")
    with posting(process, *[{"seconds": 2}] * 6, *[{"seconds": 2, "stream": True}] * 2) as asked:
        process.tell(signal.SIGTERM)
        health = process.wait_for("/health", 503, seconds=1)
        assert health.json() == {"status": "draining"} and health.headers["connection"] == "close"
        assert process.get("/ready").status_code == 503
        refused = process.post(0)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining" and int(refused.headers["retry-after"]) > 0
        answers = [one.result() for one in asked]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert all(answer.text.endswith("data: [DONE]\n\n") and answer.text.count("slept") == 20 for answer in answers[6:])
    code, said = process.end()
    assert code == 0 and "Traceback" not in said
    assert re.search(rf"flaxgen: open {process.url}/ in a browser", said)


def test_what_is_not_done_in_time_is_told_so_and_sigint_exits_with_130(processes):
    process = processes["late"]
    process.wait_for("/ready")
    with posting(process, {"seconds": 50}, {"seconds": 50, "stream": True}) as asked:
        process.tell(signal.SIGINT)
        whole, stream = (one.result() for one in asked)
    assert whole.status_code == 503 and whole.json()["error"]["code"] == "draining" and whole.headers["retry-after"]
    *_, last, end = stream.text.split("\n\n")
    assert stream.status_code == 200 and json.loads(last.removeprefix("data: "))["error"]["code"] == "draining" and end == ""
    code, said = process.end(seconds=5)
    assert code == 130 and "Traceback" not in said


def test_a_second_signal_ends_at_once(processes):
    process = processes["twice"]
    process.wait_for("/ready")
    with posting(process, {"seconds": 50}) as asked:
        process.tell(signal.SIGTERM)
        process.wait_for("/health", 503, seconds=1)
        process.tell(signal.SIGTERM)
        assert process.end(seconds=2)[0] == 128 + signal.SIGTERM
        assert isinstance(asked[0].exception(), httpx.TransportError)


def drained(served, count: int, golden: dict[int, str]) -> None:
    def ask(number: int):
        job = {"prompt": "天地玄黄", "seed": number % len(golden), "max_tokens": 24}
        try:
            return number, client.post("/v1/completions", json=job)
        except httpx.TransportError:
            return number, None

    with wires.another(served, drain=20) as found, found.client() as client, concurrent.futures.ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(ask, number) for number in range(count)]
        while found.state.in_flight < count // 4 and not all(one.done() for one in asked):
            time.sleep(0.001)
        found.server.handle_exit(signal.SIGTERM, None)
        answers = [one.result() for one in asked]
    assert found.server.code == 0 and found.state.in_flight == 0 and served.models.completions.texts.live == 0
    complete = [(number, answer) for number, answer in answers if answer is not None and answer.status_code == 200]
    assert complete and {answer.status_code for _, answer in answers if answer is not None} <= {200, 429, 503}
    for number, answer in complete:
        assert answer.json()["choices"][0]["text"] == golden[number % len(golden)]


@pytest.fixture(scope="module")
def golden(served) -> dict[int, str]:
    writer = served.pipelines["completions"]
    return {seed: writer("天地玄黄", seed=seed, tokens=24)[0] for seed in range(4)}


def test_texts_under_way_are_the_right_ones_when_a_server_drains(served, golden):
    for _ in range(3):
        drained(served, 24, golden)


@pytest.mark.nightly
def test_fifty_drains_with_sixty_four_requests_under_way(served, golden):
    for _ in range(50):
        drained(served, 64, golden)


@pytest.mark.nightly
def test_the_command_itself_drains_under_load(tmp_path):
    made = serving.tiny()
    weights.save(tmp_path / "writer", made["completions"].model, made["completions"].params, made["completions"].text)
    weights.save(tmp_path / "couplets", made["couplets"].model, made["couplets"].params, made["couplets"].text)
    weights.save(tmp_path / "painter", made["images"].models[0], made["images"].params[0], sampling={"moves": 4, "step": 1.0})
    folders = [
        word
        for name, flag in (("writer", "model"), ("couplets", "couplets"), ("painter", "painter"))
        for word in (f"--{flag}", str(tmp_path / name))
    ]
    process = Process(*folders, module=("flaxgen.cli", "serve"))
    try:
        process.wait_for("/ready", seconds=300)
        jobs = [{"prompt": "天地", "max_tokens": 40, "min_tokens": 40}] * 32 + [{"prompt": "天地", "max_tokens": 40, "stream": True}] * 32
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            asked = [pool.submit(httpx.post, process.url + "/v1/completions", json=job, timeout=60) for job in jobs]
            time.sleep(0.3)
            process.tell(signal.SIGTERM)
            statuses = {one.result().status_code for one in asked if one.exception() is None}
        code, said = process.end(seconds=40)
    finally:
        process.kill()
    assert 200 in statuses and statuses <= {200, 429, 503}
    assert code == 0 and "Traceback" not in said


def test_a_port_that_is_taken_and_a_folder_that_is_none_are_told_in_a_line():
    taken = run.bound(settings.Settings(port=0))
    with taken, pytest.raises(ValueError, match=r"127\.0\.0\.1 port \d+ cannot be listened on \(.*\); stop what uses it"):
        run.bound(settings.Settings(port=taken.getsockname()[1]))
    with pytest.raises(ValueError, match="is no address of this machine"):
        run.bound(settings.Settings(host="nowhere.invalid", key="a-key-of-tests"))
    with pytest.raises((ValueError, OSError), match="nowhere"):
        run.serve(settings.Settings(port=0, model="nowhere"))


def test_whatever_ends_the_loading_ends_the_server(monkeypatch):
    def leave(*_):
        raise SystemExit(3)

    monkeypatch.setattr(models.Models, "load", leave)
    with pytest.raises(SystemExit):
        run.serve(settings.Settings(port=0))


def test_a_job_whose_client_has_left_is_not_waited_for_at_the_end(monkeypatch):
    before, enumerate_all = threading.enumerate(), threading.enumerate
    monkeypatch.setattr(run, "CLOSING", 0.05)
    monkeypatch.setattr(threading, "enumerate", lambda: [thread for thread in enumerate_all() if thread not in before])
    assert not run._working()
    found, go = lane.Lane("test", 1), threading.Event()
    found._pool.submit(go.wait)
    assert run._working()
    go.set()
    found.close()


def test_the_address_to_open_is_one_that_a_browser_reaches():
    for host, wanted in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", r"127\.0\.0\.1|\[::1\]")):
        with run.bound(settings.Settings(host=host, port=0, key="a-key-of-tests")) as listening:
            assert re.fullmatch(rf"http://({wanted}):\d+/", run.address(listening))
