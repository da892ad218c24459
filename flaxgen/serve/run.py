"""Runs a server: its socket, its models while they get ready, and its end."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import uvicorn
from rich import console

from flaxgen.serve import app, models, wire
from flaxgen.serve.settings import Settings

KEEP_ALIVE = 15  # seconds of a connection without a request
CLOSING = 2  # seconds for the last bytes of what was cut off
log = logging.getLogger("flaxgen.serve")


class Server(uvicorn.Server):
    """uvicorn's server, which when told to stop goes on listening until it has answered what it has accepted.

    code: what the process exits with. problem: why it could not serve. cut_off: whether requests were under way when it ended.
    """

    def __init__(self, application, settings: Settings, state: app.State):
        config = uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            http=type("Protocol", (wire.Protocol,), {"settings": settings}),
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # what it would log quotes requests
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=CLOSING,
        )
        super().__init__(config)
        self.settings, self.state = settings, state
        self.code, self.problem, self.cut_off = 0, None, False
        self._end = None  # when to stop whatever is under way; not before a signal

    def handle_exit(self, sig: int, frame) -> None:
        """The first signal ends the server as soon as its requests are answered, the second at once."""
        if self.state.draining:
            os._exit(128 + sig)
        self.code = 130 if sig == signal.SIGINT else 0
        self._end = time.monotonic() + self.settings.drain
        self.state.draining = True

    def fail(self, problem: BaseException) -> None:
        self.problem, self.should_exit = problem, True

    async def on_tick(self, counter: int) -> bool:
        if self._end is not None and (not self.server_state.tasks or time.monotonic() > self._end):
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self.server_state.tasks:
            task.cancel()  # the guard answers that the server stops
            self.cut_off = True
        await super().shutdown(sockets)


def server(settings: Settings, state: app.State) -> Server:
    """A server that is not running yet; its `run()` listens where the settings say, or on sockets that it is given."""
    return Server(app.application(settings, state), settings, state)


def serve(settings: Settings) -> int:
    """Serves until a signal comes; the exit code. ValueError where the address is taken or a model cannot be loaded."""
    listening = bound(settings)
    state = app.State(settings)
    serving = server(settings, state)
    spinner = console.Console(stderr=True).status("getting ready …")
    if sys.stderr.isatty():
        spinner.start()
    else:
        print("flaxgen: getting the models ready; /ready says when they are", file=sys.stderr, flush=True)
    loading = threading.Thread(target=_load, args=(serving, spinner, address(listening)), name="loading", daemon=True)
    loading.start()
    with _log_to_stderr():
        serving.run(sockets=[listening])
    spinner.stop()
    if serving.problem is not None:
        raise serving.problem
    if state.models is not None:
        state.models.close()
    if loading.is_alive() or serving.cut_off or _working():
        sys.stderr.flush()
        os._exit(serving.code)  # a compilation, or a model's long step, can be neither waited for nor broken off
    return serving.code


def _working() -> bool:
    """Whether a thread still works for a client that has left, and the interpreter would wait for it."""
    others = [thread for thread in threading.enumerate() if not (thread.daemon or thread is threading.main_thread())]
    end = time.monotonic() + CLOSING
    for thread in others:
        thread.join(max(end - time.monotonic(), 0))
    return any(thread.is_alive() for thread in others)


def bound(settings: Settings) -> socket.socket:
    """The socket to listen on."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind)
    except OSError as error:
        raise ValueError(f"--host {settings.host} is no address of this machine ({error.strerror}); leave it out, or name one") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen()  # now, since another process could take the port while the models are imported
    except OSError as error:
        found.close()
        what = f"{settings.host} port {settings.port} cannot be listened on ({error.strerror})"
        raise ValueError(f"{what}; stop what uses it, or take another with --port") from None
    return found


def address(listening: socket.socket) -> str:
    """Where the page is, for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _load(serving: Server, spinner, page: str) -> None:
    state = serving.state

    def tell(what: str) -> None:
        state.warming = what
        spinner.update(f"getting ready: {what} …")

    try:
        state.models = models.Models.load(serving.settings, tell)
    except BaseException as error:  # also one that ends a thread without a word, and would leave the server getting ready for ever
        serving.fail(error)
        return
    spinner.stop()
    key = "" if serving.settings.key is None else " It asks for the key."
    print(f"flaxgen: open {page} in a browser; Ctrl-C stops the server.{key}", file=sys.stderr, flush=True)


class _Stderr(logging.StreamHandler):
    """Writes to what standard error is at the time, which a spinner replaces while it turns."""

    @property
    def stream(self):
        return sys.stderr

    @stream.setter
    def stream(self, _):
        pass


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    handler, before = _Stderr(), (log.level, log.propagate)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
