"""POST /v1/images: pictures as PNG, at once or while they come into being."""

import asyncio
import base64
import io
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import numpy as np
import PIL.Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flaxgen import canvas, flow_painter, gallery, painter
from flaxgen.serve import events, lane, limits, metrics
from flaxgen.serve.refusal import Refusal
from flaxgen.serve.settings import Settings

SAMPLES = limits.IMAGES.fields["samples"].kind.most
FRAMES = 58  # of a stream, beside the first and the last; as often the lane looks whether its client has left


class Pictures:
    """Images by flaxgen.Painter, or by a flaxgen.FlowPainter, which paints at once."""

    task = "images"

    def __init__(self, settings: Settings, given: painter.Painter | flow_painter.FlowPainter, id: str):
        self.id, self._painter = id, given
        self._flow = isinstance(given, flow_painter.FlowPainter)
        self._classes = [] if self._flow else list(given.sampling.classes) or [str(number) for number in range(given.classes)]
        self.lane = lane.Lane(self.task, settings.queue)

    def card(self) -> dict[str, Any]:
        size, _, channels = self._painter.shape
        return {"classes": self._classes, "size": size, "channels": channels, "moves": 1 if self._flow else self._painter.sampling.moves}

    def warm(self, tell: Callable[[str], None]) -> None:
        sizes = {len(row_B): samples for samples in range(SAMPLES, 0, -1) for row_B in canvas.blocks(samples)}
        for size, samples in sizes.items():
            tell(f"{size} pictures at once")
            for _ in self._frames({"samples": samples, "label": None, "seed": 0}, moves=2, every=1):
                pass

    def close(self) -> None:
        self.lane.close()

    async def answer(self, request: Request, wishes: dict[str, Any]) -> Response:
        if wishes["stream"] and wishes["response_format"] == "png":
            raise Refusal(400, "response_format: a stream has b64_json alone", param="response_format", code="out_of_range")
        labels = self._labels(wishes)
        moves = 1 if self._flow else wishes["moves"] or self._painter.sampling.moves
        # A request that is not streamed is cut into as many pieces, between which the lane looks whether its client has left.
        every = max(wishes["every"] if wishes["stream"] else 1, math.ceil(moves / FRAMES))

        # Files are packed where pictures are painted, in the lane's thread.
        def begin() -> Iterator:
            frames = self._frames(wishes, moves, every)
            if wishes["stream"]:
                return (_chunk(frame, labels, moves) for frame in frames)
            return _last(frames, lambda image_BYXC: self._answer(image_BYXC, labels, moves, wishes["response_format"]))

        pieces = self.lane.stream(request.state.deadline, metrics.waited(self.task, begin))
        return await events.unless_left(request, _streamed(pieces) if wishes["stream"] else _whole(pieces))

    def _answer(self, image_BYXC: np.ndarray, labels: list, moves: int, form: str) -> Response:
        if form == "png":
            return Response(_png(gallery.grid(image_BYXC)), media_type="image/png")
        return JSONResponse({"object": "images", "created": int(time.time()), "model": self.id, "moves": moves} | _data(image_BYXC, labels))

    def _frames(self, wishes: dict[str, Any], moves: int, every: int) -> Iterator[tuple[int, np.ndarray]]:
        """(moves so far, the images)."""
        if self._flow:
            return iter([(1, self._painter(wishes["samples"], seed=wishes["seed"]))])
        frames = self._painter.stream(wishes["samples"], label=wishes["label"], seed=wishes["seed"], moves=moves, every=every)
        return zip([0, *range(1, moves, every), moves], frames, strict=True)

    def _labels(self, wishes: dict[str, Any]) -> list[str | None]:
        """The name of each image's class; a Refusal where there is none, or what the painter does not do."""
        for name in ("label", "moves"):
            if wishes[name] is not None and (self._flow or (name == "label" and not self._classes)):
                what = f"{name}: got {limits.told(wishes[name])}; this painter, {self.id!r}, has none, so leave it out"
                raise Refusal(400, what, param=name, code="out_of_range")
        if not self._classes:
            return [None] * wishes["samples"]
        try:
            return [self._classes[number] for number in canvas.labels(wishes["label"], self._classes, wishes["samples"])]
        except ValueError:
            what = f"label: got {limits.told(wishes['label'])}, wanted one of {', '.join(self._classes)}"
            raise Refusal(400, f"{what}, or a number from 0 to {len(self._classes) - 1}", param="label", code="out_of_range") from None


async def _whole(pieces: AsyncGenerator) -> Response:
    async for piece in pieces:  # noqa: B007
        pass
    return piece


async def _streamed(chunks: AsyncGenerator) -> Response:
    first = await anext(chunks)  # a request that is not served has a status of its own

    async def all_of_them() -> AsyncGenerator[dict, None]:
        yield first
        async for chunk in chunks:
            yield chunk

    return events.Events(all_of_them(), lambda: asyncio.ensure_future(chunks.aclose()))


def _last(frames: Iterator[tuple[int, np.ndarray]], pack: Callable[[np.ndarray], Response]) -> Iterator[Response | None]:
    """Nothing at every frame, since the lane looks between pieces whether its client has left, and then the last one, packed."""
    for _, image_BYXC in frames:  # noqa: B007
        yield None
    yield pack(image_BYXC)


def _chunk(frame: tuple[int, np.ndarray], labels: list, moves: int) -> dict[str, Any]:
    move, image_BYXC = frame
    return {"object": "images.chunk", "move": move, "moves": moves} | _data(image_BYXC, labels)


def _data(image_BYXC: np.ndarray, labels: list) -> dict[str, Any]:
    each = zip(image_BYXC, labels, strict=True)
    return {"data": [{"b64_json": base64.b64encode(_png(image_YXC)).decode(), "label": label} for image_YXC, label in each]}


def _png(picture_YXC: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(picture_YXC[:, :, 0] if picture_YXC.shape[2] == 1 else picture_YXC).save(file, format="PNG")
    return file.getvalue()
