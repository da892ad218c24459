"""One token after another from a causal language model, with the prompt's cache shared by the samples that grow from it."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen import rules
from flaxgen.models import transformer
from flaxgen.nn.attention import Cache, place
from flaxgen.protocols import Array, Params


@struct.dataclass
class Prompt:
    """What a row starts from; `prompt` makes one from plain lists."""

    token_BT: Array  # padded on the right
    length_B: Array
    rule: rules.Rule  # one entry a row
    limit_B: Array  # tokens to draw at most
    end_BE: Array  # ids that end the row once drawn, -1 where the list is shorter
    ban_BE: Array  # ids never drawn, likewise


@struct.dataclass
class Memory:
    prompt: Cache  # one row a prompt; all else one row a sample
    rule: rules.Rule
    limit_B: Array
    end_BE: Array
    ban_BE: Array
    key_B: Array


@struct.dataclass
class State:
    answer: Cache
    token_BN: Array  # drawn so far
    log_prob_BN: Array
    count_B: Array
    done_B: Array


@dataclasses.dataclass(frozen=True)
class Sample:
    """Drawn tokens and the model's log-probability of each (softmax of its logits, before the rule); row b has count_B[b] of them."""

    token_BN: np.ndarray
    log_prob_BN: np.ndarray
    count_B: np.ndarray
    done_B: np.ndarray

    def rows(self) -> list[list[int]]:
        return [row[:count].tolist() for row, count in zip(self.token_BN, self.count_B, strict=True)]


def prompt(
    token_BT: np.ndarray,
    length_B: np.ndarray,
    *,
    rule: rules.Rule | None = None,
    limit: int | Sequence[int] = 2**31 - 1,
    end: Sequence[int] = (),
    ban: Sequence[int] = (),
) -> Prompt:
    """A Prompt of rows padded on the right; `end` and `ban` hold for every row and end in buckets of 4."""
    rows = len(token_BT)

    def listed(ids):
        padded = np.full((rows, -(-max(len(ids), 1) // 4) * 4), -1, np.int32)
        padded[:, : len(ids)] = np.asarray(ids, np.int32)
        return padded

    limit_B = np.broadcast_to(np.asarray(limit, np.int32), (rows,))
    return Prompt(
        np.asarray(token_BT, np.int32), np.asarray(length_B, np.int32), (rule or rules.Rule()).rows(rows), limit_B, listed(end), listed(ban)
    )


@dataclasses.dataclass(frozen=True)
class Autoregressive:
    """The chain of a Transformer: prefill the prompt, then draw, append and draw again.

    room: slots of the answer's cache, the most tokens a row can draw. layers: "unrolled" compiles the whole step as one loop; "dispatched"
    compiles one layer and calls it from the host, for models too deep to compile unrolled (48 layers unrolled take minutes to compile).
    """

    model: transformer.Transformer
    room: int = 128
    layers: Literal["unrolled", "dispatched"] = "unrolled"

    def check(self, params: Params, key_B: Array, given: Prompt, steps: int) -> None:
        config = self.model.config
        token_BT, length_B = np.asarray(given.token_BT), np.asarray(given.length_B)
        if token_BT.ndim != 2 or length_B.shape != token_BT.shape[:1]:
            raise ValueError(f"token_BT has shape {token_BT.shape} and length_B {length_B.shape}; wanted (B, T) and (B,)")
        if length_B.min() < 1 or length_B.max() > token_BT.shape[1]:
            raise ValueError(
                f"prompt lengths run from {length_B.min()} to {length_B.max()}; wanted 1 to {token_BT.shape[1]}, the padded width"
            )
        if np.min(given.limit_B) < 1:
            raise ValueError(f"limit={np.min(given.limit_B)}: wanted at least 1 token for every row")
        if steps > self.room:
            raise ValueError(
                f"steps={steps} is more than this chain's room for {self.room} tokens; use Autoregressive(model, room={steps})"
            )
        valid_BT = np.arange(token_BT.shape[1]) < length_B[:, None]
        for name, ids in (("prompt", token_BT[valid_BT]), ("end", given.end_BE), ("ban", given.ban_BE)):
            low = 0 if name == "prompt" else -1
            if ids.min() < low or ids.max() >= config.vocab:
                raise ValueError(
                    f"{name} token ids run from {ids.min()} to {ids.max()}; the model's vocabulary has ids 0 to {config.vocab - 1}"
                )
        longest = int((length_B + np.minimum(given.limit_B, steps)).max())
        # The last token drawn is never fed back, so it needs no position.
        if longest > config.positions + 1 or length_B.max() > config.positions:
            raise ValueError(
                f"a prompt of {length_B.max()} tokens and {steps} more make {longest}; the model has {config.positions} positions. "
                "Shorten the prompt or ask for fewer tokens"
            )

    @property
    def compiled(self) -> bool:
        return self.layers == "unrolled"

    def start(self, params: Params, key_B: Array, given: Prompt) -> tuple[Memory, State]:
        (prompts, width), rows = given.token_BT.shape, len(key_B)
        valid_BT = jnp.arange(width)[None] < given.length_B[:, None]
        hidden_BTD, (cache,) = self._forward(params, given.token_BT, valid_BT, (self.model.cache(prompts, width),))
        last_BTD = jnp.take_along_axis(hidden_BTD, given.length_B[:, None, None] - 1, axis=1)

        def each(leaf):
            return jnp.repeat(leaf, rows // prompts, axis=0)

        wishes = jax.tree.map(each, (given.rule, given.limit_B, given.end_BE, given.ban_BE))
        memory = Memory(cache, *wishes, key_B)
        zero_B = jnp.zeros((rows,), jnp.int32)
        blank_BN = jnp.zeros((rows, self.room), jnp.int32)
        state = State(self.model.cache(rows, self.room), blank_BN, blank_BN.astype(jnp.float32), zero_B, zero_B.astype(bool))
        return memory, _draw(self.model, params, each(last_BTD), memory, state)

    def step(self, params: Params, memory: Memory, state: State) -> State:
        token_BT = jnp.take_along_axis(state.token_BN, state.count_B[:, None] - 1, axis=1)
        hidden_BTD, (_, answer) = self._forward(params, token_BT, ~state.done_B[:, None], (memory.prompt, state.answer))
        return _draw(self.model, params, hidden_BTD, memory, state.replace(answer=answer))

    def _forward(self, params: Params, token_BT: Array, valid_BT: Array, caches: tuple[Cache, ...]) -> tuple[Array, tuple[Cache, ...]]:
        if self.layers == "dispatched":
            return transformer.apply_dispatched(self.model, params, token_BT, valid_BT=valid_BT, caches=caches)
        return self.model.apply(params, token_BT, valid_BT=valid_BT, caches=caches, head="hidden")

    def done(self, state: State) -> Array:
        return state.done_B

    def read(self, state: State) -> Sample:
        """The tokens drawn; FloatingPointError where the model's logits were not finite."""
        token_BN, log_prob_BN, count_B, done_B = jax.device_get((state.token_BN, state.log_prob_BN, state.count_B, state.done_B))
        if np.isnan(log_prob_BN).any():
            row, place = np.argwhere(np.isnan(log_prob_BN))[0]
            raise FloatingPointError(
                f"the model's logits are not finite at token {place + 1} of row {row}; its weights are damaged or overflow"
            )
        return Sample(token_BN, log_prob_BN, count_B, done_B)


@partial(jax.jit, static_argnums=0, donate_argnums=4)
def _draw(model: transformer.Transformer, params: Params, hidden_BTD: Array, memory: Memory, state: State) -> State:
    """The state with one more token in every row that is not done, drawn from what the model made of the last one."""
    logit_BV = model.apply(params, hidden_BTD, method=transformer.Transformer.unembed)[:, 0]
    allowed_BV = rules.ban(logit_BV, memory.ban_BE, state.count_B >= 0)
    allowed_BV = rules.ban(allowed_BV, memory.end_BE, state.count_B < memory.rule.min_tokens)
    key_B = jax.vmap(jax.random.fold_in)(memory.key_B, state.count_B)
    token_B = rules.choose(allowed_BV, key_B, memory.rule)
    log_prob_B = rules.log_probability(logit_BV, token_B)
    slot_BT = jnp.where(state.done_B, state.token_BN.shape[1], state.count_B)[:, None]
    count_B = state.count_B + ~state.done_B
    ended_B = (token_B[:, None] == memory.end_BE).any(axis=1) | (count_B >= memory.limit_B) | jnp.isnan(log_prob_B)
    return State(
        state.answer,
        place(state.token_BN, token_B[:, None], slot_BT),
        place(state.log_prob_BN, log_prob_B[:, None], slot_BT),
        count_B,
        state.done_B | ended_B,
    )


def score(model: transformer.Transformer, params: Params, token_BT: np.ndarray, length_B: np.ndarray, *, layers="unrolled") -> np.ndarray:
    """log_prob_BT of float32, T - 1 wide: entry t is the log-probability of token t + 1 after all before it; padding means nothing."""
    valid_BT = np.arange(token_BT.shape[1]) < length_B[:, None]
    if layers == "dispatched":
        caches = (model.cache(*token_BT.shape),)
        hidden_BTD, _ = transformer.apply_dispatched(model, params, token_BT, valid_BT=valid_BT, caches=caches)
    else:
        hidden_BTD = _read_through(model, params, token_BT, valid_BT)
    log_prob_BT = np.asarray(_log_probabilities(model, params, hidden_BTD, token_BT))
    if not np.isfinite(log_prob_BT[valid_BT[:, 1:]]).all():
        raise FloatingPointError("the model's logits are not finite; its weights are damaged or overflow")
    return log_prob_BT


@partial(jax.jit, static_argnums=0)
def _read_through(model, params, token_BT, valid_BT):
    return model.apply(params, token_BT, valid_BT=valid_BT, head="hidden")[0]


@partial(jax.jit, static_argnums=0)
def _log_probabilities(model, params, hidden_BTD, token_BT):
    """Row by row, so that one row's logits are in memory at a time."""

    def row(pair):
        hidden_TD, token_T = pair
        logit_TV = model.apply(params, hidden_TD[None, :-1], method=transformer.Transformer.unembed)[0]
        return rules.log_probability(logit_TV, token_T[1:])

    return jax.lax.map(row, (hidden_BTD, token_BT))
