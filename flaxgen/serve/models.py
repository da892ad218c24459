"""What a server serves: the models, each with the thread that it runs in."""

import concurrent.futures
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from flaxgen import compilation, pipelines
from flaxgen import couplets as couplets_of
from flaxgen import encoder as encoder_of
from flaxgen import painter as painter_of
from flaxgen import reader as reader_of
from flaxgen.serve import completions, couplets, embeddings, pictures, reading
from flaxgen.serve.settings import Settings


class Part(Protocol):
    """One model, and how it answers."""

    task: str
    id: str  # by which clients name it

    def card(self) -> dict[str, Any]: ...  # what /v1/models tells of it besides

    def warm(self, tell: Callable[[str], None]) -> None: ...  # runs all that requests will run, so that nothing compiles afterwards

    async def answer(self, request: Request, wishes: dict[str, Any]) -> Response: ...  # to a body as limits.checked gives it

    def close(self) -> None: ...


class Models:
    """The parts by their tasks; one that is not there is None."""

    def __init__(self, parts: list[Part]):
        found = {part.task: part for part in parts}
        self.completions, self.couplets = found.get("completions"), found.get("couplets")
        self.reading, self.images, self.embeddings = found.get("reading"), found.get("images"), found.get("embeddings")

    @classmethod
    def load(cls, settings: Settings, tell: Callable[[str], None]) -> "Models":
        """Loads and compiles everything, which takes a while; `tell` hears what is being done."""
        compilation.keep()
        tell("loading")
        writer = pipelines.Writer.load(settings.model) if settings.model else pipelines.Writer()
        encoder = encoder_of.Encoder.load(settings.encoder) if settings.encoder else None
        writer_id = name(settings.model, pipelines.bundled())
        found = cls.of(
            settings,
            writer,
            couplets_of.Couplets.load(settings.couplets) if settings.couplets else couplets_of.Couplets(),
            reader_of.Reader.load(settings.reader) if settings.reader else None,
            painter_of.Painter.load(settings.painter) if settings.painter else painter_of.Painter(),
            encoder,
            ids={
                "completions": writer_id,
                "couplets": name(settings.couplets, couplets_of.bundled()),
                "reading": name(settings.reader, "reader"),
                "images": name(settings.painter, painter_of.bundled()),
                "embeddings": writer_id if encoder is None else name(settings.encoder, "encoder"),
            },
        )
        found.warm(tell)
        return found

    @classmethod
    def of(cls, settings: Settings, writer, couplet_writer, reader, painter, encoder, *, ids: dict[str, str]) -> "Models":
        """The parts of pipelines that are there already, not warm yet."""
        parts = [
            completions.Completions(settings, writer, ids["completions"]),
            couplets.Couplets(settings, couplet_writer, ids["couplets"]),
            reading.Reading(settings, reader, ids["reading"]) if reader is not None else None,
            pictures.Pictures(settings, painter, ids["images"]),
            embeddings.Embeddings(settings, encoder or writer, ids["embeddings"]),
        ]
        return cls([part for part in parts if part is not None])

    def __iter__(self) -> Iterator[Part]:
        parts = (self.completions, self.couplets, self.reading, self.images, self.embeddings)
        return iter([part for part in parts if part is not None])

    def warm(self, tell: Callable[[str], None]) -> None:
        # The compiler works on one program in one thread.
        with concurrent.futures.ThreadPoolExecutor(min(len(list(self)), os.cpu_count() or 1)) as pool:
            list(pool.map(lambda part: part.warm(tell), self))

    def close(self) -> None:
        for part in self:
            part.close()


def name(folder, otherwise) -> str:
    """A model's name: that of its folder."""
    return pathlib.Path(folder or otherwise).resolve().name
