"""A server that says what a test wants it to say: the routes of flaxgen serve, without a model behind them."""

import asyncio
import base64
import dataclasses
import io
import json
import pathlib
import struct
import threading
import time
import zlib

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import flaxgen

PAGE = pathlib.Path(flaxgen.__file__).parent / "serve" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MODELS = [
    {"id": "poetry", "object": "model", "created": 0, "owned_by": "flaxgen", "task": "completions", "context": 192},
    {"id": "couplet", "object": "model", "created": 0, "owned_by": "flaxgen", "task": "couplets"},
    {"id": "reader", "object": "model", "created": 0, "owned_by": "flaxgen", "task": "reading"},
    {"id": "energy", "object": "model", "created": 0, "owned_by": "flaxgen", "task": "images", "classes": ["T-shirt", "bag"], "moves": 300},
]
LOWER = "晨露沾花花更红"


def png(shade: int, edge: int = 28) -> str:
    """A small grey PNG, in base64."""
    rows = b"".join(b"\0" + bytes((shade + 5 * (x ^ y)) % 256 for x in range(edge)) for y in range(edge))
    out = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    out.seek(0, io.SEEK_END)
    for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        out.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return base64.b64encode(out.getvalue()).decode()


def refusal(status: int, message: str = "the message of the server", code: str | None = None, **headers: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "error", "param": None, "code": code}}, status, headers)


def couplet(upper: str, text: str) -> dict:
    others = [{"text": text[0], "probability": 0.4}, {"text": "夜", "probability": 0.25}, {"text": "朝", "probability": 0.0004}]
    return {"upper": upper, "text": text, "score": -12.345, "alternatives": [others] * len(text), "unknown": ""}


@dataclasses.dataclass
class Script:
    """What the server says. `failures` are responses that the work routes and /v1/models give first, one each."""

    models: list = dataclasses.field(default_factory=lambda: [dict(model) for model in MODELS])
    key: str | None = None
    warming: int = 0  # times that /ready says no
    failures: list = dataclasses.field(default_factory=list)
    pieces: list = dataclasses.field(default_factory=lambda: ["，疑是", "地上", "霜。", "举头望明月，", "低头思故乡。"])
    pause: float = 0.0  # between pieces, in seconds
    tail: str = "data: [DONE]\n\n"
    couplets: list | None = None
    answer: dict = dataclasses.field(default_factory=dict)
    labels: list = dataclasses.field(default_factory=lambda: ["T-shirt", "bag", "T-shirt", "bag"])
    asked: list = dataclasses.field(default_factory=list)  # (path, body) of every work request
    left: int = 0  # streams that clients did not hear to their end


class Server:
    """The scripted server on a free port, in a thread."""

    def __init__(self):
        self.script = Script()
        routes = [Route("/", self.file), Route("/page/{name}", self.file), Route("/v1/models", self.models), Route("/ready", self.ready)]
        for path, answer in (("completions", self.write), ("couplets", self.couplets), ("reading", self.read), ("images", self.paint)):
            routes.append(Route(f"/v1/{path}", self.work(answer), methods=["POST"]))
        config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", ws="none", timeout_graceful_shutdown=1)
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run, daemon=True)
        self.thread.start()
        while not self.uvicorn.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.uvicorn.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join()

    async def file(self, request) -> Response:
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return FileResponse(PAGE / request.path_params.get("name", "index.html"), headers=headers)

    def refused(self, request) -> Response | None:
        if self.script.key is not None and request.headers.get("authorization") != f"Bearer {self.script.key}":
            return refusal(401, "wrong key", **{"WWW-Authenticate": "Bearer"})
        return None

    async def models(self, request) -> Response:
        return self.refused(request) or JSONResponse({"object": "list", "data": self.script.models})

    async def ready(self, request) -> Response:
        if found := self.refused(request):
            return found
        self.script.warming -= 1
        warm = self.script.warming < 0
        return JSONResponse({"ready": warm, "warming": "" if warm else "8 pictures at once"}, 200 if warm else 503)

    def work(self, answer):
        async def route(request):
            if found := self.refused(request):
                return found
            body = await request.json()
            self.script.asked.append((request.url.path, body))
            return self.script.failures.pop(0) if self.script.failures else answer(body)

        return route

    def events(self, chunks) -> Response:
        script = self.script

        async def stream():
            heard = False
            try:
                for chunk in chunks:
                    yield f"data: {json.dumps(chunk)}\n\n"
                    await asyncio.sleep(script.pause)
                yield script.tail
                heard = True
            finally:
                script.left += not heard

        return StreamingResponse(stream(), media_type="text/event-stream")

    def write(self, body) -> Response:
        """Every sample has the same pieces, with its number where they hold {index}."""
        chunks = []
        for piece in [*self.script.pieces, None]:
            for index in range(body["n"]):
                text = "" if piece is None else piece.replace("{index}", str(index))
                choice = {"index": index, "text": text, "logprobs": None, "finish_reason": "stop" if piece is None else None}
                chunks.append({"id": "cmpl-1", "object": "text_completion", "created": 0, "model": "poetry", "choices": [choice]})
        return self.events(chunks)

    def couplets(self, body) -> Response:
        found = (
            [couplet(body["line"], LOWER), couplet(body["line"], "朝阳照水水犹清")]
            if self.script.couplets is None
            else self.script.couplets
        )
        return JSONResponse({"object": "couplets", "model": "couplet", "couplets": found[: body["best"]]})

    def read(self, body) -> Response:
        count = len(body["passages"])
        nothing = {"text": "", "quote": "", "passage": None, "span": None, "confidence": 0.71, "score": -1.0, "chances": [0.1] * count}
        more = {"dismissed": [], "cut": [], "question_cut": False}
        return JSONResponse({"object": "answer", "model": "reader"} | nothing | more | self.script.answer)

    def paint(self, body) -> Response:
        labels = [self.script.labels[number % len(self.script.labels)] for number in range(body["samples"])]
        most = body.get("moves", 1)
        moves = [*range(0, most, body.get("every", 1)), most]

        def frame(move):
            data = [{"b64_json": png(move + 40 * number), "label": label} for number, label in enumerate(labels)]
            return {"object": "images.chunk", "move": move, "moves": most, "data": data}

        return self.events([frame(move) for move in moves])
