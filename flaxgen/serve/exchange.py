"""One request and its answer as they pass, and what is told of them: a count and a line in the log."""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Mapping

from starlette.types import Message, Receive, Scope, Send

from flaxgen.serve import metrics
from flaxgen.serve.refusal import Refusal

LEFT = 499  # the status of an answer that nobody was there to read; it stands in the log alone
LINGER = 1.0  # seconds in which what a refused client still sends is thrown away, so that it reads why before the connection ends
REFUSED = "flaxgen.refused"  # in a scope: (id, Refusal) where the connection has answered, since the body went wrong
WATCHED = frozenset(("/health", "/ready", "/metrics"))
log = logging.getLogger("flaxgen.serve")


def new_id() -> str:
    """What the header X-Request-Id and the log call a request."""
    return secrets.token_hex(8)


def answered(id: str, method: str, place: str, status: int, seconds: float, *, code: str | None = None, left: bool = False) -> None:
    """Counts a request, and writes its line of the log."""
    metrics.answered(place, status, seconds, code=code, left=left)
    # Whoever watches asks every second; what they hear is no news.
    level = logging.DEBUG if place in WATCHED else logging.INFO
    log.log(level, "%s %s %s %s %.0f ms%s", id, method, place, status, 1000 * seconds, " left" if left else "")


def values(scope: Scope, name: bytes) -> list[bytes]:
    """The values of all headers of this name."""
    return [value for key, value in scope["headers"] if key == name]


class Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]):
        self.id, self.status, self.code, self._start = new_id(), None, None, time.monotonic()
        self._scope, self._receive, self._send = scope, receive, send
        self._headers = [*headers, (b"x-request-id", self.id.encode())]
        lengths = values(scope, b"content-length")
        self._unread = bool(values(scope, b"transfer-encoding")) or lengths not in ([], [b"0"])
        self._events = self._ended = False

    def close(self, method: str, place: str) -> None:
        """Tells what became of it; place: the route as it stands in the program."""
        id, status, code = self.id, self.status or LEFT, self.code
        left = status == LEFT or (not self._ended and code is None)
        if refused := self._scope.get(REFUSED):
            (id, error), left = refused, False
            status, code = error.status, error.code
        answered(id, method, place, status, time.monotonic() - self._start, code=code, left=left)

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread &= message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        elif not message.get("more_body", False):
            self._ended = True
            if self._unread:
                await self._send({**message, "more_body": True})
                await self._linger()
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def refuse(self, error: Refusal, headers: Mapping[str, str] | None = None) -> None:
        """Answers with the error, also where events have begun; where another answer has begun, the connection ends in the middle of it."""
        self.code = error.code
        if self.status is None:
            answer = error.response()
            answer.headers.update(headers or {})
            await answer(self._scope, self.receive, self.send)
        elif self._events and not self._ended:
            await self.send({"type": "http.response.body", "body": b"data: " + json.dumps(error.body).encode() + b"\n\n"})

    def _begin(self, message: Message) -> None:
        self.status, own = message["status"], dict(message["headers"])
        self._events = own.get(b"content-type", b"").startswith(b"text/event-stream")
        added = [(name, value) for name, value in self._headers if name not in own]
        if b"cache-control" not in own:
            page = self._scope["path"] == "/" or self._scope["path"].startswith("/page/")
            added.append((b"cache-control", b"no-cache" if page else b"no-store"))
        if self._unread and (b"connection", b"close") not in added:
            added.append((b"connection", b"close"))
        message["headers"] = [*message["headers"], *added]

    async def _linger(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while self._unread:
                    await self.receive()
