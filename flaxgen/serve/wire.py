"""HTTP/1.1 on one connection: uvicorn's protocol, with limits of time and size, and errors in the shape of all others."""

import asyncio
import contextlib
import json
import sys

import h11
from uvicorn.protocols.http import h11_impl

from flaxgen.serve import exchange, guard
from flaxgen.serve.refusal import Refusal
from flaxgen.serve.settings import Settings

CHUNKS = 4096  # of a body; they cost 15 us each in the event loop, which all clients share
WORDS = {
    413: "the body comes in too many chunks; send larger ones",
    431: "the head of the request is too large",
    501: "wanted Transfer-Encoding: chunked, or a Content-Length",
}


class _Connection(h11.Connection):
    """Counts the chunks of a body, and the bytes behind a request."""

    chunks = 0

    @property
    def behind(self) -> int:
        return len(self._receive_buffer)  # of which trailing_data makes a copy

    def next_event(self):
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.chunks = 0
        elif isinstance(event, h11.Data) and event.chunk_end:
            self.chunks += 1
            if self.chunks > CHUNKS:
                raise h11.RemoteProtocolError("too many chunks", error_status_hint=413)
        return event


class Protocol(h11_impl.H11Protocol):
    """A head has to be there within header_seconds, and what we write has to be taken within write_seconds."""

    settings: Settings  # set by a subclass, since uvicorn makes the instances

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.conn = _Connection(h11.SERVER, self.settings.header_bytes)
        self._head: asyncio.TimerHandle | None = None
        self._write: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that pause_writing tells of every byte that is not taken
        if len(self.connections) > self.settings.connections:
            self._refuse(Refusal(503, "too many connections; ask again later", code="connections", retry_after=5))
            transport.close()
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)
            self._go_on()
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._write):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write = self.loop.call_later(self.settings.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write.cancel()

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()  # uvicorn calls this while it handles h11's error, which knows more than `msg`
        status = getattr(error, "error_status_hint", 400)
        self._refuse(Refusal(status, WORDS.get(status, "the request is not HTTP/1.1"), code="malformed"))

    def _go_on(self) -> None:
        """Reads on behind a request that is being answered, where uvicorn does not: else nobody would notice that its client leaves."""
        if self.conn.their_state in (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL):
            if self.conn.behind > self.settings.header_bytes + self.settings.body_bytes:
                self.transport.close()
            else:
                self.flow.resume_reading()

    def _await_head(self) -> None:
        """Starts the time of a head when it begins, and stops it when it is there."""
        waiting = self.conn.their_state is h11.IDLE and not self._refused
        if not waiting and self._head is not None:
            self._head.cancel()
            self._head = None
        elif waiting and self._head is None:
            self._head = self.loop.call_later(self.settings.header_seconds, self._late)

    def _late(self) -> None:
        if not self.conn.trailing_data[0]:  # a browser opens connections before it has a use for them
            self.transport.close()
            return
        said = f"the head of the request did not arrive within {self.settings.header_seconds:g} s"
        self._refuse(Refusal(408, said, code="slow_head"))

    def _refuse(self, error: Refusal) -> None:
        """Answers in the place of the application, and ends the connection; what the client still sends is thrown away meanwhile."""
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            id, body = exchange.new_id(), json.dumps(error.body).encode()
            midway = self.conn.our_state is h11.SEND_RESPONSE  # else the scope is that of the request before
            if midway:
                self.scope[exchange.REFUSED] = id, error  # it is told of where its body is read
            else:
                exchange.answered(id, "(none)", "(none)", error.status, 0.0, code=error.code)
            headers = [
                *self.server_state.default_headers,
                *guard.HEADERS,
                ("x-request-id", id),
                *error.headers.items(),
                ("cache-control", "no-store"),
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            if midway and self.scope["method"] == "HEAD":
                body = b""
            events = (h11.Response(status_code=error.status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) for event in events))
            with contextlib.suppress(OSError):  # the client has left
                self.transport.write_eof()
            self.loop.call_later(exchange.LINGER, self.transport.close)
        else:
            self.transport.close()
