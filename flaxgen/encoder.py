"""Texts in, vectors out, and guesses for what a mask hides: an encoder folder as something to call."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import numpy as np

from flaxgen import weights
from flaxgen.errors import Mismatch
from flaxgen.models import transformer
from flaxgen.protocols import Array, Params

Pooling = Literal["cls", "mean", "pooler"]
Text = str | tuple[str, str]
TOGETHER = 32  # rows of one call of the model
STEP = 16  # rows are padded to a multiple of it
MASK = "[MASK]"


@dataclasses.dataclass(frozen=True)
class Guess:
    """A token that may stand where the mask does, and the model's probability of it."""

    token: str
    probability: float


class Encoder:
    """Vectors of texts.

    >>> encoder = flaxgen.Encoder.load("weights/minilm")
    >>> vector_ND = encoder(["天气真好", "今天下雨"], pooling="mean", unit=True)      # float32, one row a text
    >>> similarity_NN = vector_ND @ vector_ND.T

    A pair of texts is read as [CLS] one [SEP] other [SEP] with the segments 0 and 1.
    """

    def __init__(self, model: transformer.Transformer, params: Params, text: Any):
        if not isinstance(model, transformer.Transformer) or model.config.wiring != "post":
            kind = getattr(model.config, "wiring", type(model).__name__)
            raise Mismatch(
                f"this model ({kind}) is no BERT, whose vectors stand for texts; wanted BERT, ALBERT, NEZHA, RoFormer or ELECTRA. "
                "To continue texts there is flaxgen.Writer"
            )
        if text is None:
            raise Mismatch("this model has no vocabulary, so it reads token ids only; convert it with --vocab FILE, or call model.apply")
        missing = [name for name in ("[CLS]", "[SEP]") if name not in text.control]
        if missing:
            raise Mismatch(
                f"the vocabulary has no {' and no '.join(missing)}; wanted that of a BERT. A GPT-2 continues text: flaxgen.Writer"
            )
        self.model = type(model)(dataclasses.replace(model.config, application="encoder"), model.dtype)
        self.params, self.text = params, text

    @classmethod
    def load(cls, folder, *, dtype: weights.Dtype | None = None) -> "Encoder":
        """The encoder of a flaxgen folder, as flaxgen.save and `python -m convert` write them; dtype as in flaxgen.load."""
        return cls(*weights.load(folder, dtype=dtype))

    def __call__(
        self, texts: Text | list[Text], *, pooling: Pooling = "cls", unit: bool = False, overflow: Literal["refuse", "cut"] = "refuse"
    ) -> np.ndarray:
        """vector_ND of the texts in float32, or vector_D of a single one.

        pooling: "cls" takes the last layer at [CLS]; "mean" its mean over all tokens, [CLS] and [SEP] too, as sentence encoders do;
        "pooler" the dense layer and tanh that some models have behind [CLS]. unit: vectors are divided by their length. overflow: what is
        longer than the model's positions is refused, or loses its last tokens.
        A text's vector is the same, to rounding, whatever stands beside it.
        """
        if pooling not in get_args(Pooling) or overflow not in ("refuse", "cut"):
            pools = ", ".join(get_args(Pooling))
            raise ValueError(f'pooling={pooling!r}, overflow={overflow!r}: wanted one of {pools}, and "refuse" or "cut"')
        if pooling == "pooler" and "pool" not in self.model.config.outputs:
            raise ValueError('pooling="pooler": the model has no pooler; wanted "cls" or "mean"')
        alone = isinstance(texts, str | tuple)
        if not alone and not isinstance(texts, list):
            raise TypeError(f"texts: got {type(texts).__name__}, wanted a str, a tuple of two (a pair), or a list of these")
        rows = self._rows([texts] if alone else texts, overflow)
        vector_ND = np.zeros((len(rows), self.model.config.width), np.float32)
        for numbers, batch in self._batches(rows):
            vector_ND[numbers] = _pooled(self.model, pooling, self.params, *batch)[: len(numbers)]
        if unit:
            vector_ND /= np.maximum(np.linalg.norm(vector_ND, axis=1, keepdims=True), 1e-12)
        return vector_ND[0] if alone else vector_ND

    def fill(self, text: Text, *, top: int = 5) -> list[list[Guess]]:
        """The likeliest tokens for each [MASK] of the text, in the order of the masks, each guessed without knowing the others."""
        if not self.model.config.speaks:
            raise ValueError("this model has no MLM head, so it guesses no tokens; convert it from a checkpoint that has one")
        if MASK not in self.text.control:
            raise Mismatch(f"the vocabulary has no {MASK}; wanted that of a BERT, not a simplified one")
        if type(top) is not int or not 1 <= top <= self.model.config.vocab:
            raise ValueError(f"top={top!r}: wanted a whole number from 1 to {self.model.config.vocab}")
        ((ids, segments),) = self._rows([text], "fill")
        places = [place for place, token in enumerate(ids) if token == self.text.control[MASK]]
        if not places:
            raise ValueError(f"{text!r} holds no {MASK}; write one where a token is to be guessed, as in 今天天[MASK]不错")
        ((_, batch),) = self._batches([(ids, segments)])
        probability_TV = np.asarray(_probabilities(self.model, self.params, *batch))[0]
        best_NE = np.argsort(-probability_TV[places], axis=1, kind="stable")[:, :top]
        return [
            [Guess(self._spelled(i), float(probability_TV[place, i])) for i in best_E]
            for place, best_E in zip(places, best_NE.tolist(), strict=True)
        ]

    def _spelled(self, token: int) -> str:
        return self.text.tokens[token] if token < len(self.text) else f"[{token}]"

    def _rows(self, texts: Sequence[Text], overflow: str) -> list[tuple[list[int], list[int]]]:
        """Token ids and segments of every text."""
        most, rows = self.model.config.positions, []
        for number, text in enumerate(texts):
            if not (isinstance(text, str) or (isinstance(text, tuple) and len(text) == 2 and all(isinstance(one, str) for one in text))):
                raise TypeError(f"text {number}: got {type(text).__name__}, wanted a str or a tuple of two")
            parts = [self._ids(part) for part in ([text] if isinstance(text, str) else text)]
            length = sum(map(len, parts)) + len(parts) + 1
            if length > most and overflow != "cut":
                advice = ', or say overflow="cut"' if overflow == "refuse" else ""
                raise ValueError(f"text {number} makes {length} tokens; the model has {most} positions. Shorten it{advice}")
            while sum(map(len, parts)) + len(parts) + 1 > most:
                max(reversed(parts), key=len).pop()
            ids, segments = [self.text.control["[CLS]"]], [0]
            for segment, part in enumerate(parts):
                ids += [*part, self.text.control["[SEP]"]]
                segments += [segment] * (len(part) + 1)
            rows.append((ids, segments))
        return rows

    def _ids(self, text: str) -> list[int]:
        first, *rest = text.split(MASK) if MASK in self.text.control else [text]
        ids = self.text.encode(first)
        for part in rest:
            ids += [self.text.control[MASK], *self.text.encode(part)]
        return ids

    def _batches(self, rows: list[tuple[list[int], list[int]]]) -> Iterator[tuple[list[int], tuple[np.ndarray, ...]]]:
        """(numbers of the rows, (token_BT, segment_BT, valid_BT)), rows of like length together, in few shapes."""
        order = sorted(range(len(rows)), key=lambda number: len(rows[number][0]))
        for start in range(0, len(order), TOGETHER):
            numbers = order[start : start + TOGETHER]
            width = min(-(-len(rows[numbers[-1]][0]) // STEP) * STEP, self.model.config.positions)
            count = 1 << (len(numbers) - 1).bit_length()
            token_BT, segment_BT = (np.zeros((count, width), np.int32) for _ in range(2))
            valid_BT = np.zeros((count, width), bool)
            for row, number in enumerate(numbers):
                ids, segments = rows[number]
                token_BT[row, : len(ids)], segment_BT[row, : len(ids)], valid_BT[row, : len(ids)] = ids, segments, True
            yield numbers, (token_BT, segment_BT if self.model.config.segments > 1 else np.zeros_like(segment_BT), valid_BT)


@partial(jax.jit, static_argnums=(0, 1))
def _pooled(model, pooling: Pooling, params: Params, token_BT: Array, segment_BT: Array, valid_BT: Array) -> Array:
    head = "pool" if pooling == "pooler" else "hidden"
    given, _ = model.apply(params, token_BT, segment_BT=segment_BT, valid_BT=valid_BT, head=head)
    if pooling == "pooler":
        return given.astype("float32")
    if pooling == "cls":
        return given[:, 0].astype("float32")
    weight_BT1 = valid_BT[:, :, None].astype("float32")
    return (given.astype("float32") * weight_BT1).sum(axis=1) / weight_BT1.sum(axis=1).clip(1)


@partial(jax.jit, static_argnums=0)
def _probabilities(model, params: Params, token_BT: Array, segment_BT: Array, valid_BT: Array) -> Array:
    logit_BTV, _ = model.apply(params, token_BT, segment_BT=segment_BT, valid_BT=valid_BT)
    return jax.nn.softmax(logit_BTV, axis=-1)
