"""Answers read out of several passages at once: after each token all passages vote (bojone, kexue.fm/archives/7115).

    row of passage p   [CLS] passage [SEP] question [SEP] answer [SEP]
    segments           0 0 0 ...                          1 1 ...

A question's passages are one row of the batch. What stands before the answer is read once; beams put the short caches of the answers in
another order. P is a passage, R a beam, Q a state of an automaton, N a token of the answer.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen import automata, sampling
from flaxgen.models import transformer
from flaxgen.models.config import Config
from flaxgen.nn.attention import Cache
from flaxgen.protocols import Array, Params
from flaxgen.text import tables

Mode = Literal["extractive", "generative"]
Keep = Literal["caches", "nothing"]
TINY = 1e-12


@struct.dataclass
class Prompt:
    """What questions start from.

    token_BPT: [CLS] passage [SEP] question [SEP], padded on the right. length_BP: 0 where a question has no such passage.
    runs, holds_BQP: for "extractive" the automaton of the passages' runs, and which passage holds those of a state (text.factors).
    limit_B: tokens of an answer at most, its end among them. beams_B: of each question, by default all that the chain has.
    """

    token_BPT: Array
    length_BP: Array
    limit_B: Array
    runs: automata.Tables | None
    holds_BQP: Array | None
    beams_B: Array | None = None


@struct.dataclass
class Memory:
    given: Prompt
    prefix: tuple[Cache, ...]  # one row a passage, for all its beams; () where nothing is kept
    runs: automata.Tables | None  # of the passages that were not dismissed


@struct.dataclass
class State:
    answer: Cache | None  # one row a beam of a passage, the beams side by side
    token_BRN: Array
    score_BR: Array  # best first; -inf where there is no beam
    state_BR: Array  # of the automaton
    log_prob_BRP: Array
    count_B: Array
    width_B: Array  # beams that are left
    over_B: Array
    best_B: Array  # where the search is over, the beam that holds the answer
    finite_B: Array
    remain_BP: Array
    silence_BP: Array


@dataclasses.dataclass(frozen=True)
class Found:
    """The best answer of each question.

    score_B: sum over tokens of log(vote + 1e-12). log_prob_BP: of the answer with its end token by each passage alone. remain_BP: the
    passages that were not dismissed. silence_BP: how probable a passage finds it that it has no answer. done_B: False where the search was
    stopped before its end.
    """

    token_BN: np.ndarray
    count_B: np.ndarray
    score_B: np.ndarray
    log_prob_BP: np.ndarray
    remain_BP: np.ndarray
    silence_BP: np.ndarray
    done_B: np.ndarray

    def rows(self) -> list[list[int]]:
        return [row[:count].tolist() for row, count in zip(self.token_BN, self.count_B, strict=True)]


def vote(p_BRPV: Array, remain_BP: Array) -> Array:
    """The sum of p^2 / (the sum of p, plus 1) over the passages that remain: few sure ones outvote many that are not."""
    p_BRPV = jnp.where(remain_BP[:, None, :, None], p_BRPV, 0)
    return jnp.square(p_BRPV).sum(axis=2) / (p_BRPV.sum(axis=2) + 1)


@dataclasses.dataclass(frozen=True)
class Reading:
    """The chain of a reader: a UniLM, whose passages vote on every token, and bert4keras's beam search over log(vote + 1e-12).

    A passage whose likeliest first token is `end` has no answer, and is dismissed; where all are, the answer is empty.
    mode: "extractive" lets through, beside `end`, only what continues a run of tokens that stands in one of the remaining passages, so that
    the whole answer stands in one. "generative" lets everything through.
    keep: "nothing" reads all passages again for every token, as the original does, to compare with.
    """

    model: transformer.Transformer
    end: int
    mode: Mode = "extractive"
    beams: int = 1
    room: int = 32
    keep: Keep = "caches"
    compiled = True

    def check(self, params: Params, key_B: Array, given: Prompt, steps: int) -> None:
        config = self.model.config
        if config.application != "unilm":
            raise ValueError(
                f'the model\'s application is {config.application!r}; a reader wants flaxgen.load(folder, application="unilm")'
            )
        check_prompt(given, config, self.room)
        if not 1 <= self.beams < config.vocab:
            raise ValueError(f"beams={self.beams}: wanted 1 to {config.vocab - 1}, fewer than the vocabulary has tokens")
        if given.beams_B is not None and not ((given.beams_B >= 1) & (given.beams_B <= self.beams)).all():
            raise ValueError(f"beams_B={given.beams_B}: wanted 1 to {self.beams} for each question, as many as the chain has")
        if (given.runs is None) == (self.mode == "extractive"):
            raise ValueError(f"mode={self.mode!r} {'without' if given.runs is None else 'with'} runs; make the prompt for this mode")
        if not 0 <= self.end < config.vocab:
            raise ValueError(f"end={self.end}: wanted the id of [SEP], 0 to {config.vocab - 1}")
        if (longest := int(np.max(given.limit_B))) > steps:
            raise ValueError(f"answers of up to {longest} tokens in steps={steps}: answers are compared whole; use steps={longest}")

    def start(self, params: Params, key_B: Array, given: Prompt) -> tuple[Memory, State]:
        rows, passages, width = given.token_BPT.shape
        token_BT, length_B = given.token_BPT.reshape(-1, width), given.length_BP.reshape(-1)
        prefix = (self.model.cache(rows * passages, width),) if self.keep == "caches" else ()
        logit_BV, prefix = self._read(params, token_BT, length_B, jnp.zeros_like(token_BT), prefix)
        p_BPV = jax.nn.softmax(logit_BV, axis=-1).reshape(rows, passages, -1)
        real_BP = given.length_BP > 0
        remain_BP = real_BP & (jnp.argmax(p_BPV, axis=-1) != self.end)
        memory = Memory(given, prefix, remaining(given, remain_BP))
        zero_B, zero_BR = jnp.zeros((rows,), jnp.int32), jnp.zeros((rows, self.beams), jnp.int32)
        state = State(
            answer=self.model.cache(rows * passages * self.beams, self.room) if prefix else None,
            token_BRN=jnp.zeros((rows, self.beams, self.room), jnp.int32),
            score_BR=jnp.full((rows, self.beams), -jnp.inf).at[:, 0].set(0),
            state_BR=zero_BR,
            log_prob_BRP=jnp.zeros((rows, self.beams, passages)),
            count_B=zero_B,
            width_B=zero_B + (self.beams if given.beams_B is None else given.beams_B),
            over_B=zero_B > 0,
            best_B=zero_B,
            finite_B=zero_B == 0,
            remain_BP=remain_BP,
            silence_BP=jnp.where(real_BP, p_BPV[:, :, self.end], 1),
        )
        return memory, self._choose(jnp.repeat(p_BPV[:, None], self.beams, axis=1), memory, state)

    def step(self, params: Params, memory: Memory, state: State) -> State:
        rows, beams, _ = state.token_BRN.shape
        passages = state.remain_BP.shape[1]

        def spread(x_BR):
            return jnp.repeat(x_BR[:, None], passages, axis=1).reshape(rows * passages * beams, -1)

        if self.keep == "caches":
            last_BR = jnp.take_along_axis(state.token_BRN, state.count_B[:, None, None] - 1, axis=2)[:, :, 0]
            token_BT = spread(last_BR)
            length_B = spread(jnp.repeat(~state.over_B[:, None], beams, axis=1))[:, 0].astype(jnp.int32)
            caches = (*memory.prefix, state.answer)
            logit_BV, (*_, answer) = self._read(params, token_BT, length_B, jnp.ones_like(token_BT), caches)
            state = state.replace(answer=answer)
        else:
            token_BT, length_B, segment_BT = self._whole(memory.given, spread(state.token_BRN), state.count_B)
            logit_BV, _ = self._read(params, token_BT, length_B, segment_BT, ())
        p_BPRV = jax.nn.softmax(logit_BV, axis=-1).reshape(rows, passages, beams, -1)
        return self._choose(p_BPRV.swapaxes(1, 2), memory, state)

    def _whole(self, given: Prompt, answer_BN: Array, count_B: Array) -> tuple[Array, Array, Array]:
        """(token_BT, length_B, segment_BT): what stands before the answers, and behind it the first count_B of each answer's tokens."""
        width = given.token_BPT.shape[2]
        each = len(answer_BN) // given.length_BP.size
        token_BT = jnp.pad(jnp.repeat(given.token_BPT.reshape(-1, width), each, axis=0), ((0, 0), (0, self.room)))
        before_B = jnp.repeat(given.length_BP.reshape(-1), each)
        length_B = before_B + jnp.repeat(count_B, len(before_B) // len(count_B))
        after_BT = jnp.arange(token_BT.shape[1])[None] - before_B[:, None]
        own_BT = jnp.take_along_axis(answer_BN, jnp.clip(after_BT, 0, self.room - 1), axis=1)
        return jnp.where(after_BT >= 0, own_BT, token_BT), length_B, (after_BT >= 0).astype(jnp.int32)

    def _read(self, params: Params, token_BT: Array, length_B: Array, segment_BT: Array, caches: tuple) -> tuple[Array, tuple]:
        """logit_BV after each row's last token, and the caches with the last one grown."""
        valid_BT = jnp.arange(token_BT.shape[1])[None] < length_B[:, None]
        named = {"valid_BT": valid_BT, "segment_BT": segment_BT, "caches": caches}
        hidden_BTD, caches = self.model.apply(params, token_BT, **named, head="hidden")
        last_BTD = jnp.take_along_axis(hidden_BTD, jnp.maximum(length_B - 1, 0)[:, None, None], axis=1)
        return self.model.apply(params, last_BTD, method="unembed")[:, 0], caches

    def _choose(self, p_BRPV: Array, memory: Memory, state: State) -> State:
        """The state after the passages have voted and the best beams were followed."""
        rows, beams, passages, vocab = p_BRPV.shape
        score_BR, at_BR = sampling.likeliest((state.score_BR[:, :, None] + self._rate(p_BRPV, memory, state)).reshape(rows, -1), beams)
        parent_BR, token_BR = at_BR // vocab, at_BR % vocab
        score_BR = jnp.where(jnp.arange(beams)[None] < state.width_B[:, None], score_BR, -jnp.inf)

        def heirs(x_BR):
            return jax.vmap(lambda x_R, at_R: x_R[at_R])(x_BR, parent_BR)

        p_BRP = jax.vmap(jax.vmap(lambda p_RPV, r, v: p_RPV[r, :, v], (None, 0, 0)))(p_BRPV, parent_BR, token_BR)
        state_BR = heirs(state.state_BR)
        if memory.runs is not None:
            state_BR = jax.vmap(automata.walk, (None, 1, 1), 1)(memory.runs, state_BR, token_BR)
        token_BRN = jax.vmap(lambda x_RN, n, token_R: x_RN.at[:, n].set(token_R, mode="drop"))(
            heirs(state.token_BRN), state.count_B, token_BR
        )
        new = state.replace(
            token_BRN=token_BRN,
            score_BR=score_BR,
            state_BR=state_BR,
            log_prob_BRP=heirs(state.log_prob_BRP) + jnp.log(p_BRP),
            count_B=state.count_B + 1,
            finite_B=state.finite_B & (jnp.isfinite(p_BRPV).all(axis=(1, 3)) | (memory.given.length_BP == 0)).all(axis=1),
        )
        new = _settled(new, (token_BR == self.end) & (score_BR > -jnp.inf), memory.given.limit_B)
        kept = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "answer"}
        kept = {name: _where(state.over_B, old, getattr(new, name)) for name, old in kept.items()}
        answer = state.answer
        if answer is not None:
            row_BPR = jnp.arange(rows * passages).reshape(rows, passages, 1) * beams + parent_BR[:, None]
            answer = jax.tree.map(lambda leaf: leaf.at[row_BPR.reshape(-1)].get(mode="promise_in_bounds"), answer)
        return State(answer=answer, **kept)

    def _rate(self, p_BRPV: Array, memory: Memory, state: State) -> Array:
        """What each token adds to a beam's score; -inf where it may not come next."""
        rated_BRV = jnp.log(vote(p_BRPV, state.remain_BP) + TINY)
        is_end_V = jnp.arange(p_BRPV.shape[3]) == self.end
        if memory.runs is not None:
            allowed = jax.vmap(lambda state_B: automata.allowed(memory.runs, state_B, jnp.zeros_like(state_B))[0], 1, 1)
            rated_BRV = jnp.where(allowed(state.state_BR) | is_end_V[None, None], rated_BRV, -jnp.inf)
        nothing_V = jnp.where(is_end_V, 0.0, -jnp.inf)
        return jnp.where(state.remain_BP.any(axis=1)[:, None, None], rated_BRV, nothing_V[None, None])

    def done(self, state: State) -> Array:
        return state.over_B

    def read(self, state: State) -> Found:
        """The best answers; a FloatingPointError where the model's probabilities are not finite."""
        state = jax.device_get(state.replace(answer=None))
        if not state.finite_B.all():
            row = int(np.argmin(state.finite_B))
            raise FloatingPointError(f"question {row}: the model's logits are not finite; its weights are damaged or overflow")
        every_B = np.arange(len(state.count_B))
        token_BN, log_prob_BP, score_B = (leaf[every_B, state.best_B] for leaf in (state.token_BRN, state.log_prob_BRP, state.score_BR))
        return Found(token_BN, state.count_B, score_B, log_prob_BP, state.remain_BP, state.silence_BP, state.over_B)


def _settled(state: State, ended_BR: Array, limit_B: Array) -> State:
    """The state without the beams that ended, or over.

    The search is over when the best beam ends. Others that end leave, and it narrows; at the limit the best of what is left is the answer.
    """
    answered_B = ended_BR[:, 0]
    score_BR = jnp.where(ended_BR & ~answered_B[:, None], -jnp.inf, state.score_BR)
    stuck_B = (score_BR == -jnp.inf).all(axis=1)
    return state.replace(
        score_BR=score_BR,
        best_B=jnp.argmax(score_BR, axis=1),
        width_B=state.width_B - ended_BR.sum(axis=1),
        over_B=answered_B | (state.count_B >= limit_B) | stuck_B | ~state.finite_B,
    )


def _where(over_B: Array, old: Array, new: Array) -> Array:
    return jnp.where(over_B.reshape(-1, *[1] * (old.ndim - 1)), old, new)


def remaining(given: Prompt, remain_BP: Array) -> automata.Tables | None:
    """The automata of the runs that stand in the passages that remain: a state that none of them holds is out of reach."""
    if given.runs is None:
        return None
    held_BQ = (given.holds_BQP & remain_BP[:, None]).any(axis=2)
    return given.runs.replace(left_BQ=jnp.where(held_BQ, given.runs.left_BQ, tables.NEVER))


def check_prompt(given: Prompt, config: Config, room: int) -> None:
    """ValueError where questions and model do not fit."""
    token_BPT, length_BP, limit_B = np.asarray(given.token_BPT), np.asarray(given.length_BP), np.asarray(given.limit_B)
    if token_BPT.ndim != 3 or length_BP.shape != token_BPT.shape[:2] or limit_B.shape != token_BPT.shape[:1]:
        shapes = f"token_BPT {token_BPT.shape}, length_BP {length_BP.shape}, limit_B {limit_B.shape}"
        raise ValueError(f"{shapes}: wanted (B, P, T), (B, P) and (B,)")
    if length_BP.min() < 0 or length_BP.max() > token_BPT.shape[2]:
        raise ValueError(f"lengths run from {length_BP.min()} to {length_BP.max()}; wanted 0 to {token_BPT.shape[2]}, the padded width")
    if token_BPT.min() < 0 or token_BPT.max() >= config.vocab:
        raise ValueError(f"token ids run from {token_BPT.min()} to {token_BPT.max()}; the model has ids 0 to {config.vocab - 1}")
    if limit_B.min() < 1 or limit_B.max() > room:
        raise ValueError(f"limits run from {limit_B.min()} to {limit_B.max()} tokens; wanted 1 to room={room}")
    if given.runs is not None and given.runs.class_BV.shape[1] != config.vocab:
        raise ValueError(f"runs over {given.runs.class_BV.shape[1]} tokens, the model's vocabulary has {config.vocab}; make them for it")
    # The last token of an answer is never fed back, so it needs no position.
    longest = int((length_BP.max(axis=1) + limit_B - 1).max())
    if config.position == "learned" and longest > config.positions:
        raise ValueError(f"passages, questions and answers of up to {longest} tokens; the model has {config.positions} positions: cut them")
