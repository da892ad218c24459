"""Many clients for a while, of all tasks, a tenth of them at fault: no wrong answer, no leak, no compilation.

FLAXGEN_SOAK_SECONDS and FLAXGEN_SOAK_CLIENTS change how long, and with how many; from five minutes on, memory is judged too.
"""

import collections
import concurrent.futures
import gc
import itertools
import json
import os
import pathlib
import random
import time

import httpx
import numpy as np
import pytest

from tests import leaks, wires

SECONDS = float(os.environ.get("FLAXGEN_SOAK_SECONDS", 3))
CLIENTS = int(os.environ.get("FLAXGEN_SOAK_CLIENTS", 64))
LONG = 300.0  # seconds from which memory is judged; in fewer, the allocator's noise is larger than the bound
ACCEPTED = {200, 429, 503}
PASSAGES = ["天地玄黄。", "日月盈昃，辰宿列张。", "sunny day"]


def good() -> list[tuple[str, dict | None]]:
    """What is asked for: a path and a body, None for GET."""
    texts = [
        {"prompt": "天地", "seed": 1, "max_tokens": 12},
        {"prompt": "日月盈昃" * 10, "seed": 2, "max_tokens": 16, "stop": ["月", "天地"]},
        {"prompt": ["天地", "sunny day"], "seed": 3, "max_tokens": 9, "n": 3},
        {"prompt": "宇宙", "seed": 4, "max_tokens": 10, "logprobs": 3, "echo": True},
        {"prompt": "宇宙", "seed": 5, "regex": "[天地日月]{3,9}。"},
        {"prompt": "盈", "seed": 6, "choices": ["日月", "天地玄黄", "sunny day"]},
        {"prompt": "玄黄", "seed": 7, "max_tokens": 24, "temperature": 0.7, "top_k": 5, "repetition_penalty": 1.3},
        {"prompt": [5, 6, 7], "seed": 8, "max_tokens": 24, "min_tokens": 24, "logit_bias": {"9": 2}, "ban": ["天"]},
    ]
    return [
        *(("/v1/completions", body | {"stream": stream}) for body in texts for stream in (False, True)),
        ("/v1/couplets", {"line": "天高云白", "best": 2, "alternatives": 3}),
        ("/v1/couplets", {"line": "风雨花树", "rules": {"tones": False}}),
        ("/v1/images", {"samples": 2, "seed": 3, "label": "bag"}),
        ("/v1/images", {"samples": 1, "seed": 4, "every": 3, "stream": True}),
        ("/v1/images", {"samples": 3, "seed": 5, "response_format": "png"}),
        ("/v1/embeddings", {"input": ["天地", "日月盈昃"]}),
        ("/v1/embeddings", {"input": "sunny day", "encoding_format": "base64"}),
        ("/v1/reading", {"question": "天地？", "passages": PASSAGES}),
        ("/v1/reading", {"question": "日月？", "passages": PASSAGES[:2], "mode": "generative"}),
        ("/v1/models", None),
    ]


def ask(client: httpx.Client, path: str, body: dict | None) -> tuple[int, object]:
    """The status, and what of the answer is the same every time."""
    answer = client.get(path) if body is None else client.post(path, json=body)
    if answer.status_code != 200:
        return answer.status_code, answer.json()["error"]["code"]
    kind = answer.headers["content-type"]
    if kind.startswith("text/event-stream"):
        *events, done, rest = answer.text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        events = [json.loads(event.removeprefix("data: ")) for event in events]
        return 200, joined(events) if path == "/v1/completions" else timeless(events)
    return 200, timeless([answer.json()]) if kind.startswith("application/json") else answer.content


def timeless(values: list[dict]) -> list[dict]:
    return [{name: value for name, value in one.items() if name not in ("id", "created")} for one in values]


def joined(events: list[dict]) -> dict[int, tuple]:
    """Of each choice its text, its log-probabilities and why it ended. How they are cut into events depends on how busy the server is."""
    found = {}
    for (choice,) in [event["choices"] for event in events]:
        text, logprobs, _ = found.get(choice["index"], ("", [], None))
        more = choice["logprobs"] and list(zip(*choice["logprobs"].values(), strict=True))
        found[choice["index"]] = text + choice["text"], logprobs + (more or []), choice["finish_reason"]
    return found


def wrong_key(client, served, noise) -> bool:
    return client.get("/v1/models", headers={"Authorization": "Bearer not-the-key"}).status_code == 401


def malformed(client, served, noise) -> bool:
    raw = json.dumps({"prompt": "天地"}).encode()
    content = raw[: noise.randrange(len(raw))]
    return client.post("/v1/completions", content=content, headers={"Content-Type": "application/json"}).status_code == 400


def out_of_range(client, served, noise) -> bool:
    body = noise.choice([{"max_tokens": -1}, {"n": 10**9}, {"max_tokens": 500}, {"prompt": [10**6]}, {"nonsense": 1}, {"regex": "("}])
    return client.post("/v1/completions", json={"prompt": "天地"} | body).status_code in (400, 429)


def too_large(client, served, noise) -> bool:
    raw = wires.head(served, "POST", "/v1/completions", "Content-Type: application/json", "Content-Length: 5000000")
    return [answer.status for answer in wires.ask(served, raw + b"{")] == [413]


def nowhere(client, served, noise) -> bool:
    return client.get("/v1/nowhere").status_code == 404 and client.get("/v1/completions").status_code == 405


def leaves(client, served, noise) -> bool:
    body = {"prompt": "天地", "max_tokens": 40, "min_tokens": 40, "stream": noise.random() < 0.5}
    with wires.connect(served) as line:
        line.sendall(wires.post(served, json.dumps(body).encode()))
        time.sleep(noise.uniform(0, 0.05))
    return True


FAULTS = (wrong_key, malformed, out_of_range, too_large, nowhere, leaves, leaves)


class Crowd:
    """Clients that ask at random until the time is over; `statuses` and `wrong` hold what came of it."""

    def __init__(self, served, client, golden: list):
        self.served, self.client, self.golden = served, client, golden
        self.statuses, self.faults, self.wrong = collections.Counter(), collections.Counter(), []
        self.asked = itertools.count()
        self.memory: list[tuple[int, float]] = []  # requests so far, and megabytes

    def run(self, clients: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        with concurrent.futures.ThreadPoolExecutor(clients + 1) as pool:
            looking = pool.submit(self._look, end, max(0.5, seconds / 100))
            list(pool.map(lambda number: self._client(random.Random(number), end), range(clients)))
            looking.result()

    def _client(self, noise: random.Random, end: float) -> None:
        while time.monotonic() < end:
            next(self.asked)
            if noise.random() < 0.1:
                fault = noise.choice(FAULTS)
                self.faults[fault.__name__] += 1
                if not fault(self.client, self.served, noise):
                    self.wrong.append(fault.__name__)
                continue
            (path, body), golden = noise.choice(self.golden)
            status, found = ask(self.client, path, body)
            self.statuses[status] += 1
            if status not in ACCEPTED or (status == 200 and found != golden):
                self.wrong.append((path, body, status, found))
            if status == 429:
                time.sleep(noise.uniform(0.05, 0.2))

    def _look(self, end: float, every: float) -> None:
        pages = pathlib.Path("/proc/self/statm")
        while time.monotonic() < end:
            gc.collect()  # the clients live in this process too, and their library leaves cycles
            done = sum([*self.statuses.values(), *self.faults.values()])
            self.memory.append((done, int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6))
            time.sleep(every)

    @property
    def slope(self) -> float:
        """Megabytes more per 1,000 requests, after the first third, in which everything is met for the first time."""
        requests, megabytes = np.array(self.memory[len(self.memory) // 3 :]).T
        return float(np.polyfit(requests / 1000, megabytes, 1)[0])


@pytest.mark.parametrize(
    ("seconds", "least"), [(SECONDS, 1), pytest.param(max(SECONDS, 600), 20_000, marks=pytest.mark.nightly, id="nightly")]
)
def test_a_crowd_of_clients_gets_right_answers_and_leaves_nothing_behind(served, seconds, least):
    served.models.warm(lambda what: None)  # another test may have let jax forget what it had compiled
    compiled = served.compilations()
    with served.client() as client:
        answers = [(asked, ask(client, *asked)) for asked in good()]
    assert [asked for asked, (status, _) in answers if status != 200] == []
    leaks.check_nothing_left(served)
    before = leaks.resources(served)
    with served.client(limits=httpx.Limits()) as client:
        crowd = Crowd(served, client, [(asked, found) for asked, (_, found) in answers])
        crowd.run(CLIENTS, seconds)
    leaks.check_nothing_left(served, before)
    asked = next(crowd.asked)
    print(f"{asked} requests, {dict(crowd.statuses)}, faults {dict(crowd.faults)}, {crowd.memory[0]} to {crowd.memory[-1]}")
    assert crowd.wrong == []
    assert asked >= least and crowd.statuses[200] > 0.2 * asked
    assert served.compilations() == compiled
    if seconds >= LONG:
        print(f"{crowd.slope:.3f} MB per 1,000 requests")
        assert crowd.slope <= 1
