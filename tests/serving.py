"""A server of tiny models with random weights, on a socket, in a thread."""

import dataclasses
import threading
import time

import httpx
import jax
import numpy as np
import openai
import uvicorn

from flaxgen import couplets, pipelines, reader, weights
from flaxgen.models import config as sizes
from flaxgen.models import gated, gated_config, transformer
from flaxgen.serve import app, completions, metrics, models, run, settings
from flaxgen.text import passages, single, wordpiece
from tests import painters, programs, writers

LINE = "天地风雨花树山水云月春秋日夜江河红绿来去高低人鬼晚摇还挺敲香更好，。"
IDS = {
    "completions": "tiny-writer",
    "couplets": "tiny-couplets",
    "reading": "tiny-reader",
    "images": "tiny-painter",
    "embeddings": "tiny-writer",
}


@dataclasses.dataclass
class Served:
    """A running server. `pipelines` holds what it serves, to compare answers with."""

    settings: settings.Settings
    state: app.State
    server: uvicorn.Server
    pipelines: dict
    url: str
    warmed: int  # when: so many times had all programs been forgotten

    def warm(self) -> None:
        """Compiles again what was forgotten since."""
        if self.warmed != programs.forgotten:
            self.models.warm(lambda what: None)
            self.warmed = programs.forgotten

    @property
    def models(self) -> models.Models:
        return self.state.models

    def client(self, **more) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.settings.key}"} if self.settings.key else {}
        return httpx.Client(base_url=self.url, headers=headers, **({"timeout": 60} | more))

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.settings.key or "none", max_retries=0, timeout=60)

    def compilations(self) -> int:
        return metrics.compilations()


def couplet_writer() -> couplets.Couplets:
    text = single.Single(("[UNK]", *LINE))
    model = gated.Gated(gated_config.Config(vocab=len(text), width=6, layers=2))
    return couplets.Couplets(model, jax.tree.map(lambda leaf: leaf * 8, model.init(jax.random.key(3), np.zeros((1, 1), np.int32))), text)


def small_reader() -> reader.Reader:
    text = wordpiece.WordPiece((*writers.WORDS, ",", "？"), end=(3,))
    sized = {"vocab": len(text), "positions": 40, "width": 12, "layers": 2, "heads": 3, "hidden": 20, "segments": 2, "outputs": ("mlm",)}
    config = sizes.Config(**sized, wiring="post", activation="gelu")
    noise = np.random.default_rng(4)
    flat = {name: noise.normal(name.endswith("scale"), 0.5, shape).astype(np.float32) for name, shape in config.shapes().items()}
    return reader.Reader(transformer.Transformer(config), weights.nest(flat), text, lengths=passages.Lengths(18, 8, 5))


def tiny() -> dict:
    painter = painters.of_energy(classes=2, moves=12)
    painter.sampling = dataclasses.replace(painter.sampling, classes=("shoe", "bag"))
    return {
        "completions": writers.characters(),
        "couplets": couplet_writer(),
        "reading": small_reader(),
        "images": painter,
        "embeddings": None,
    }


def start(given: settings.Settings, found: dict, ids: dict[str, str] = IDS) -> Served:
    """Serves these pipelines on a free port, warm."""
    return listen(given, models.Models.of(given, *found.values(), ids=ids), found)


def writing(writer: pipelines.Writer, **wishes) -> Served:
    """A server that only writes."""
    given = settings.Settings(port=0, **wishes)
    return listen(given, models.Models([completions.Completions(given, writer, IDS["completions"])]), {"completions": writer})


def listen(given: settings.Settings, made: models.Models, found: dict) -> Served:
    state = app.State(given)
    made.warm(lambda what: None)
    state.models = made
    server = run.server(given, state)
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return Served(given, state, server, found, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", programs.forgotten)


def stop(served: Served) -> None:
    served.server.should_exit = True
    served.models.close()
