"""The servers that are compared: each a process of its own with the same weights, which stands still while another one is measured."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import serve_clients

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAMS = pathlib.Path(sys.executable).parent
THREADS = 2
BLOCKS, BATCH = 32, 512  # of transformers' continuous batching: 256 tokens of all layers each; left alone, it takes most of the memory


class Side:
    """A running server. `fields`: what a request needs besides prompt and max_tokens; `streams`: whether it can."""

    def __init__(self, name: str, port: int, process: subprocess.Popen, log: pathlib.Path, fields: dict, streams: bool = True):
        self.name, self.port, self.fields, self.streams = name, port, fields, streams
        self._process, self._log = process, log

    def body(self, prompt: str, tokens: int, **more) -> dict:
        return {"prompt": prompt, "max_tokens": tokens} | self.fields | more

    def wait(self, body: dict, seconds: float = 600) -> None:
        """Asks until there is an answer."""
        end = time.monotonic() + seconds
        while True:
            try:
                serve_clients.ask(self.port, body)
                return
            except (ConnectionError, TimeoutError) as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{self.name} does not answer ({error}); it said:\n{self._log.read_text()[-2000:]}") from error
                time.sleep(0.5)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """All but this block it stands still, so that no idle loop of it costs the others anything."""
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def ours(name: str, folder: pathlib.Path, slots: int, **fields) -> Side:
    def command(port: int) -> list:
        return [PROGRAMS / "flaxgen", "serve", "--model", folder, "--port", port, "--slots", slots]

    return _start(name, folder, command, fields)


def transformers(name: str, folder: pathlib.Path, *words: str, streams: bool = True) -> Side:
    """transformers' own server."""

    def command(port: int) -> list:
        return [PROGRAMS / "transformers", "serve", folder, "--device", "cpu", "--dtype", "float32", "--port", port, *words]

    return _start(name, folder, command, {"model": str(folder), "temperature": 0}, streams)


def batching(name: str, folder: pathlib.Path) -> Side:
    """The same with its continuous batching, whose streams may never end (transformers 5.23)."""
    words = "--continuous-batching", "--cb-num-blocks", str(BLOCKS), "--cb-max-batch-tokens", str(BATCH)
    return transformers(name, folder, *words, streams=False)


def flask(name: str, folder: pathlib.Path, lock: str) -> Side:
    script = pathlib.Path(__file__).with_name("serve_flask.py")
    return _start(name, folder, lambda port: [sys.executable, script, folder, port, lock], {}, streams=False)


def _start(name: str, folder: pathlib.Path, command, fields: dict, streams: bool = True) -> Side:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.parent / f"{name.replace(' ', '-')}.log"
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        words: Sequence[str] = list(map(str, command(port)))
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    return Side(name, port, process, log, fields, streams)
