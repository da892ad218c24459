"""HTTP by hand, byte by byte, for what no client library would send."""

import contextlib
import dataclasses
import http.client
import json
import re
import socket
import threading
import time

from flaxgen.serve import app, models, run
from tests import serving

SECRET = "祕密提示 secret-prompt"
LEAKS = re.compile(rb"/(?:home|tmp|usr|work|root|var|opt|etc|proc)/|\.py\b|0x[0-9a-f]{6,}|Traceback|object at ")
QUOTED = re.compile(rb"secret-prompt|\xe7\xa5\x95")  # of SECRET


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def error(self) -> dict:
        return json.loads(self.body)["error"]


def connect(served: serving.Served, *, seconds: float = 10, receive: int | None = None) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    found = socket.socket()
    if receive is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    found.settimeout(seconds)
    found.connect((host, int(port)))
    return found


def ask(served: serving.Served, raw: bytes, *, seconds: float = 10, answers: int = 1) -> list[Answer]:
    """The first answers to these bytes; fewer where the connection ends before."""
    with connect(served, seconds=seconds) as line:
        # A server that has answered already may not take the rest.
        with contextlib.suppress(ConnectionError):
            line.sendall(raw)
        return list(read(line, answers, method=raw[:4]))


def read(line: socket.socket, answers: int = 1, method: bytes = b"GET "):
    reader = line.makefile("rb")
    for _ in range(answers):
        reply = http.client.HTTPResponse(_Kept(reader), method="HEAD" if method == b"HEAD" else "GET")
        try:
            reply.begin()
            yield Answer(reply.status, reply.headers, reply.read())
        except (http.client.RemoteDisconnected, ConnectionError):
            return


class _Kept:
    """A socket whose file is shared by one answer after another."""

    def __init__(self, reader):
        self.reader = reader

    def makefile(self, _):
        return _NotClosed(self.reader)


class _NotClosed:
    def __init__(self, reader):
        self._reader = reader

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def close(self):
        pass

    def flush(self):
        pass


def head(served: serving.Served, method: str = "GET", target: str = "/v1/models", *more: str) -> bytes:
    """The head of a request that may pass, with more lines."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {served.settings.key}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def post(served: serving.Served, body: bytes, target: str = "/v1/completions", *more: str) -> bytes:
    return head(served, "POST", target, "Content-Type: application/json", f"Content-Length: {len(body)}", *more) + body


def works(served: serving.Served) -> bool:
    """Whether a good request is answered."""
    return ask(served, post(served, json.dumps({"prompt": "天地", "max_tokens": 1}).encode()))[0].status == 200


@contextlib.contextmanager
def another(served: serving.Served, made: models.Models | None = None, **changes):
    """The same models, or these, on another port, with other settings."""
    given = dataclasses.replace(served.settings, port=0, **changes)
    state = app.State(given)
    state.models = made or served.models
    found = run.server(given, state)
    thread = threading.Thread(target=found.run, daemon=True)
    thread.start()
    while not found.started:
        time.sleep(0.01)
    port = found.servers[0].sockets[0].getsockname()[1]
    yield dataclasses.replace(served, settings=given, state=state, server=found, url=f"http://127.0.0.1:{port}")
    found.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()
