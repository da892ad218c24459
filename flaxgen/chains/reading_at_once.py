"""Answers read out of passages in one pass: an encoder fills all places of the answer at once (bert4keras's example …_by_mlm.py).

    row of passage p   [CLS] [MASK] [MASK] ... [MASK] [SEP] question [SEP] passage [SEP]

Every passage gives an answer of its own; the passages that give the same one vote for it together.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen import automata
from flaxgen.chains import reading
from flaxgen.models import transformer
from flaxgen.protocols import Array, Params


@struct.dataclass
class State:
    token_BPN: Array
    count_BP: Array
    score_BP: Array
    finite_B: Array


@dataclasses.dataclass(frozen=True)
class Found:
    """An answer a passage, its end token among its first count_BP. score_BP: the mean probability of its tokens."""

    token_BPN: np.ndarray
    count_BP: np.ndarray
    score_BP: np.ndarray

    def rows(self) -> list[list[list[int]]]:
        """The tokens of every passage's answer, for every question."""
        return [
            [row_N[:count].tolist() for row_N, count in zip(row_PN, count_P, strict=True)]
            for row_PN, count_P in zip(self.token_BPN, self.count_BP, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class AtOnce:
    """The chain of a reader that is an encoder: the likeliest token at every place, up to the first `end`.

    mode: in an "extractive" answer each token continues the run of those before it in the passage itself, or is `end`.
    """

    model: transformer.Transformer
    end: int
    mode: reading.Mode = "extractive"
    room: int = 32
    compiled = True

    def check(self, params: Params, key_B: Array, given: reading.Prompt, steps: int) -> None:
        config = self.model.config
        if config.application != "encoder":
            raise ValueError(
                f'the model\'s application is {config.application!r}; answers at once want flaxgen.load(folder, application="encoder")'
            )
        # All places of an answer are read, and none is added.
        reading.check_prompt(given.replace(limit_B=np.ones(len(given.token_BPT), int)), config, self.room)
        if not 0 <= self.end < config.vocab:
            raise ValueError(f"end={self.end}: wanted the id of [SEP], 0 to {config.vocab - 1}")
        if given.token_BPT.shape[2] <= self.room:
            raise ValueError(f"rows of {given.token_BPT.shape[2]} tokens for answers of {self.room}; the masks are among them")
        if (given.runs is None) == (self.mode == "extractive"):
            raise ValueError(f"mode={self.mode!r} {'without' if given.runs is None else 'with'} runs; make the prompt for this mode")

    def start(self, params: Params, key_B: Array, given: reading.Prompt) -> tuple[reading.Prompt, State]:
        rows, passages, width = given.token_BPT.shape
        valid_BT = jnp.arange(width)[None] < given.length_BP.reshape(-1, 1)
        hidden_BTD, _ = self.model.apply(params, given.token_BPT.reshape(-1, width), valid_BT=valid_BT, head="hidden")
        p_BTV = jax.nn.softmax(self.model.apply(params, hidden_BTD[:, 1 : self.room + 1], method="unembed"), axis=-1)
        p_BPNV = p_BTV.reshape(rows, passages, self.room, -1)
        finite_B = (jnp.isfinite(p_BPNV).all(axis=(2, 3)) | (given.length_BP == 0)).all(axis=1)
        return given, State(*jax.vmap(self._fill, (1, 0, None), 1)(p_BPNV, jnp.arange(passages), given), finite_B)

    def _fill(self, p_BNV: Array, passage: Array, given: reading.Prompt) -> tuple[Array, Array, Array]:
        """(token_BN, count_B, score_B) of one passage of each question."""
        runs = reading.remaining(given, jnp.arange(given.length_BP.shape[1])[None] == passage)
        zero_B = jnp.zeros((len(p_BNV),), jnp.int32)

        def place(carry, p_BV):
            state_B, over_B, count_B, total_B = carry
            if runs is not None:
                allowed_BV, _ = automata.allowed(runs, state_B, zero_B)
                p_BV = jnp.where(allowed_BV.at[:, self.end].set(True), p_BV, 0)
            token_B = jnp.argmax(p_BV, axis=-1).astype(jnp.int32)
            total_B += jnp.where(over_B, 0, p_BV.max(axis=-1))
            count_B += ~over_B
            state_B = state_B if runs is None else automata.walk(runs, state_B, token_B)
            return (state_B, over_B | (token_B == self.end), count_B, total_B), token_B

        carry = zero_B, given.length_BP[:, 0] < 0, zero_B, jnp.zeros_like(p_BNV[:, 0, 0])
        (_, _, count_B, total_B), token_NB = jax.lax.scan(place, carry, p_BNV.swapaxes(0, 1))
        return token_NB.T, count_B, total_B / count_B

    def step(self, params: Params, memory: reading.Prompt, state: State) -> State:
        return state

    def done(self, state: State) -> Array:
        return state.finite_B | True

    def read(self, state: State) -> Found:
        """Every passage's answer; a FloatingPointError where the model's probabilities are not finite."""
        state = jax.device_get(state)
        if not state.finite_B.all():
            row = int(np.argmin(state.finite_B))
            raise FloatingPointError(f"question {row}: the model's logits are not finite; its weights are damaged or overflow")
        return Found(state.token_BPN, state.count_BP, state.score_BP)


def elect(texts: list[str], scores: list[float]) -> tuple[str, float]:
    """The answer that the passages elect and its votes: of those that are not empty, the largest sum of s^2 / (sum of s, plus 1)."""
    ballots: dict[str, list[float]] = collections.defaultdict(list)
    for text, score in zip(texts, scores, strict=True):
        if text:
            ballots[text].append(float(score))
    votes = {text: sum(s * s for s in each) / (sum(each) + 1) for text, each in ballots.items()}
    return max(votes.items(), key=lambda item: item[1], default=("", 0.0))
