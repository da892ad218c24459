"""Answers of an encoder-decoder: the source is encoded once, and any chain of a causal language model goes on from there."""

import dataclasses
import operator
import reprlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen.chains import autoregressive, beam, contrastive
from flaxgen.models import t5
from flaxgen.protocols import Array, Memory, Params, State

Inner = autoregressive.Autoregressive | beam.Beam | contrastive.Contrastive
SLOTS = 64  # sources are padded to a multiple of it, so that few lengths compile


@struct.dataclass
class Prompt:
    """What rows start from; `plan` makes one from plain lists."""

    source_BT: Array  # padded on the right
    length_B: Array
    answer: Any  # what the inner chain starts from; its prompt is what the decoder reads first


def plan(
    model: t5.T5,
    sources: Sequence[Sequence[int]] | np.ndarray,
    *,
    search: beam.Search | contrastive.Search | None = None,
    room: int = 128,
    **wishes,
) -> tuple["Seq2Seq", Prompt]:
    """The chain that answers sources, a row of token ids each, and what it starts from.

    search: how answers are searched for; None draws them. room: the most tokens an answer can have. wishes: rule, limit, end, ban and text
    as autoregressive.prompt takes them. Neither the sources nor their number of tokens compile anew, only the next multiple of 64.

        model, params, text = flaxgen.load("t5")
        chain, given = seq2seq.plan(model, [[104, 42, 7, 1], [41, 9, 1]], search=beam.Search(beams=4), end=[1], limit=32)
        answers = flaxgen.generate(chain, params, jax.random.key(0), given, steps=32).rows()

    T5 was trained on sources that end with its end token (1); nothing is added to the sources here.
    """
    if not isinstance(model, t5.T5):
        raise ValueError(f"seq2seq.plan is for an encoder-decoder, and the model is a {type(model).__name__}; use a chain of its own")
    if type(room) is not int or room < 1:
        raise ValueError(f"room={room!r}: wanted at least 1, the most tokens an answer can have")
    rows = _rows(sources)
    length_B = np.array([len(row) for row in rows], np.int32)
    source_BT = np.zeros((len(rows), -(-int(length_B.max()) // SLOTS) * SLOTS), np.int32)
    for number, row in enumerate(rows):
        source_BT[number, : len(row)] = row
    start_BT = np.full((len(rows), 1), model.config.start, np.int32)
    wishes.setdefault("vocab", model.config.vocab)
    given = autoregressive.prompt(start_BT, np.ones(len(rows), np.int32), **wishes)
    decoder = t5.Decoder(model.config, model.dtype)
    if search is None:
        return Seq2Seq(autoregressive.Autoregressive(decoder, room)), Prompt(source_BT, length_B, given)
    inner, answer = search.plan(decoder, given, room=room)
    return Seq2Seq(inner), Prompt(source_BT, length_B, answer)


def _rows(sources: Sequence[Sequence[int]] | np.ndarray) -> list[list[int]]:
    """Sources as lists; a ValueError for what is no list of lists of whole numbers, and for a source without a token."""
    try:
        rows = [[operator.index(token) for token in source] for source in sources]
    except TypeError:
        raise ValueError(
            f"sources {reprlib.repr(sources)}: wanted a list of sources, each a list of token ids; text is for the model's tokenizer"
        ) from None
    if not rows or not all(rows):
        raise ValueError(f"{len(rows)} sources, some without a token; wanted at least one source of at least one token")
    return rows


@dataclasses.dataclass(frozen=True)
class Seq2Seq:
    """The chain of a T5: `inner` over its Decoder, started with the source's cache before its own.

    Samples of a source, and beams, share what was made of it: it is encoded once, and its keys and values lie there once.
    """

    inner: Inner

    @property
    def compiled(self) -> bool:
        return self.inner.compiled

    def check(self, params: Params, key_B: Array, given: Prompt, steps: int) -> None:
        if not isinstance(self.inner.model, t5.Decoder):
            raise ValueError(f"the inner chain runs a {type(self.inner.model).__name__}; wanted a t5.Decoder, as seq2seq.plan makes it")
        if self.inner.layers != "unrolled" or getattr(self.inner, "chunk", 0):
            raise ValueError(f'{type(self.inner).__name__} with layers={self.inner.layers!r}: wanted "unrolled", and no chunk, for a T5')
        source_BT, length_B = np.asarray(given.source_BT), np.asarray(given.length_B)
        if source_BT.ndim != 2 or length_B.shape != source_BT.shape[:1]:
            raise ValueError(f"source_BT has shape {source_BT.shape} and length_B {length_B.shape}; wanted (B, T) and (B,)")
        if length_B.min() < 1 or length_B.max() > source_BT.shape[1]:
            raise ValueError(
                f"source lengths run from {length_B.min()} to {length_B.max()}; wanted 1 to {source_BT.shape[1]}, the padded width"
            )
        ids, vocab = source_BT[np.arange(source_BT.shape[1]) < length_B[:, None]], self.inner.model.config.vocab
        if ids.min() < 0 or ids.max() >= vocab:
            raise ValueError(f"source token ids run from {ids.min()} to {ids.max()}; the model's vocabulary has ids 0 to {vocab - 1}")
        self.inner.check(params, key_B, given.answer, steps)

    def start(self, params: Params, key_B: Array, given: Prompt) -> tuple[Memory, State]:
        valid_BT = jnp.arange(given.source_BT.shape[1])[None] < given.length_B[:, None]
        source = self.inner.model.apply(params, given.source_BT, valid_BT, method="encode")
        begun = given.answer if isinstance(given.answer, autoregressive.Prompt) else given.answer.start
        begun = begun.replace(context=source)
        answer = begun if isinstance(given.answer, autoregressive.Prompt) else given.answer.replace(start=begun)
        return self.inner.start(params, key_B, answer)

    def step(self, params: Params, memory: Memory, state: State) -> State:
        return self.inner.step(params, memory, state)

    def done(self, state: State) -> Array:
        return self.inner.done(state)

    def read(self, state: State) -> Any:
        return self.inner.read(state)
