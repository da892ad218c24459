"""POST /v1/embeddings: vectors of texts, as OpenAI has it (platform.openai.com/docs/api-reference/embeddings)."""

import base64
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flaxgen import encoder, pipelines
from flaxgen.protocols import Array, Params
from flaxgen.serve import events, lane, metrics
from flaxgen.serve.refusal import Refusal
from flaxgen.serve.settings import Settings

ROWS, WIDTHS = 8, (32, 128, 512)  # of the programs: texts that are read together, and their tokens


class Embeddings:
    """The mean of the last layer over a text's tokens, of length 1: as flaxgen.Encoder gives it, or of a writer, for want of an encoder."""

    task = "embeddings"

    def __init__(self, settings: Settings, given: encoder.Encoder | pipelines.Writer, id: str):
        self.id, self._text, self._encodes = id, given.text, isinstance(given, encoder.Encoder)
        self._model, self._params = (given.model, given.params) if self._encodes else (given.setup.model, given.setup.params)
        positions = self._model.config.positions
        self._widths = sorted({min(width, positions) for width in WIDTHS})
        self.lane = lane.Lane(self.task, settings.queue)

    def card(self) -> dict[str, Any]:
        return {"context": self._widths[-1], "dimensions": self._model.config.width}

    def warm(self, tell: Callable[[str], None]) -> None:
        for width in self._widths:
            tell(f"embeddings of {width} tokens")
            for _ in self._vectors([[0] * width]):
                pass

    def close(self) -> None:
        self.lane.close()

    async def answer(self, request: Request, wishes: dict[str, Any]) -> Response:
        width = self._model.config.width
        if wishes["dimensions"] not in (None, width):
            what = f"dimensions: got {wishes['dimensions']}, wanted {width}, which are all that this model's vectors have"
            raise Refusal(400, what, param="dimensions", code="out_of_range")
        return await events.unless_left(request, self._answer(wishes, request.state.deadline))

    async def _answer(self, wishes: dict[str, Any], deadline: float) -> Response:
        rows, vectors = [], {}

        def begin() -> Iterator[dict[int, np.ndarray]]:
            rows.extend(self._rows(wishes["input"]))
            return self._vectors(rows)

        async for some in self.lane.stream(deadline, metrics.waited(self.task, begin)):
            vectors |= some
        tokens = sum(map(len, rows))
        metrics.READ.inc(tokens)
        told = _encoded if wishes["encoding_format"] == "base64" else np.ndarray.tolist
        data = [{"object": "embedding", "index": number, "embedding": told(vectors[number])} for number in range(len(rows))]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": self.id, "usage": usage})

    def _rows(self, given: Any) -> list[list[int]]:
        """The token ids of every text."""
        several = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        rows, vocab, most = [], self._model.config.vocab, self._widths[-1]
        for number, one in enumerate(several):
            ids = self._text.encode(one) if isinstance(one, str) else one
            if max(ids, default=0) >= vocab:
                raise _wrong(f"text {number} has the id {max(ids)}, wanted 0 to {vocab - 1}")
            if self._encodes:
                ids = [self._text.control["[CLS]"], *ids, self._text.control["[SEP]"]]
            if not 1 <= len(ids) <= most:
                raise _wrong(f"text {number} makes {len(ids)} tokens, wanted 1 to {most}")
            rows.append(ids)
        return rows

    def _vectors(self, rows: Sequence[Sequence[int]]) -> Iterator[dict[int, np.ndarray]]:
        """The vectors by the places of the texts, texts of like length together."""
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        for start in range(0, len(order), ROWS):
            numbers = order[start : start + ROWS]
            width = next(width for width in self._widths if width >= len(rows[numbers[-1]]))
            token_BT, length_B = np.zeros((ROWS, width), np.int32), np.ones(ROWS, np.int32)
            for row, number in enumerate(numbers):
                length_B[row] = len(rows[number])
                token_BT[row, : length_B[row]] = rows[number]
            vector_BD = np.asarray(_means(self._model, self._params, token_BT, length_B))
            if not np.isfinite(vector_BD).all():
                raise FloatingPointError("the model's vectors are not finite; its weights are damaged or overflow")
            yield dict(zip(numbers, vector_BD, strict=False))


@partial(jax.jit, static_argnums=0)
def _means(model: Any, params: Params, token_BT: Array, length_B: Array) -> Array:
    """The mean over each row's tokens, of length 1."""
    valid_BT = jnp.arange(token_BT.shape[1])[None] < length_B[:, None]
    hidden_BTD, _ = model.apply(params, token_BT, valid_BT=valid_BT, head="hidden")
    sum_BD = jnp.where(valid_BT[:, :, None], hidden_BTD.astype(jnp.float32), 0).sum(axis=1)
    mean_BD = sum_BD / length_B[:, None]
    return mean_BD / jnp.maximum(jnp.linalg.norm(mean_BD, axis=1, keepdims=True), 1e-12)


def _encoded(vector_D: np.ndarray) -> str:
    return base64.b64encode(vector_D.astype("<f4").tobytes()).decode()


def _wrong(message: str) -> Refusal:
    return Refusal(400, f"input: {message}", param="input", code="out_of_range")
