"""One token after another from a causal language model, after a prompt that samples share or that each row reads by itself."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen import controls, progress, rules
from flaxgen.chains import drafting
from flaxgen.models import dispatched, transformer
from flaxgen.nn import attention
from flaxgen.protocols import Array, Params

MANY = 2**31 - 1


@struct.dataclass
class Prompt:
    """What a row starts from; `prompt` makes one from plain lists."""

    token_BT: Array  # to be read, padded on the right
    length_B: Array
    controls: controls.Controls
    before_BS: Array  # what penalties and drafts see before the answer: the tokens above, and those of `context` before them
    before_length_B: Array
    drafts_B: Array  # guesses a step at most, where the chain makes any
    context: attention.Cache | None  # what was read already: one row, or one for each prompt


@struct.dataclass
class Memory:
    caches: tuple[attention.Cache, ...]  # one row, or one row a prompt; all else one row a sample
    controls: controls.Controls
    bias_BV: Array
    past: progress.Past
    drafts_B: Array
    key_B: Array


@struct.dataclass
class State:
    cache: attention.Cache  # the answer's, and the prompt's too where the chain reads in chunks
    progress: progress.Progress
    moves_B: Array  # steps the row took part in


@dataclasses.dataclass(frozen=True)
class Sample:
    """Drawn tokens and the model's log-probability of each (softmax of its logits, before the rule); row b has count_B[b] of them."""

    token_BN: np.ndarray
    log_prob_BN: np.ndarray
    count_B: np.ndarray
    finish_B: np.ndarray  # places in progress.FINISH
    moves_B: np.ndarray  # steps the row took part in, fewer than its tokens where guesses were right
    top_id_BNE: np.ndarray | None
    top_log_prob_BNE: np.ndarray | None

    @property
    def done_B(self) -> np.ndarray:
        return self.finish_B != progress.RUNNING

    def rows(self) -> list[list[int]]:
        return [row[:count].tolist() for row, count in zip(self.token_BN, self.count_B, strict=True)]


def prompt(
    token_BT: np.ndarray,
    length_B: np.ndarray,
    *,
    rule: rules.Rule | Sequence[rules.Rule] | None = None,
    limit: int | Sequence[int] = MANY,
    end: Sequence[int] = (),
    ban: Sequence[int] = (),
    text=None,
    vocab: int | None = None,
) -> Prompt:
    """A Prompt of rows padded on the right.

    rule: one for all rows, or one for each. limit: tokens a row may draw at most. end: ids that end a row once drawn; ban: ids never drawn.
    text: the tokenizer, which rules with words in them need, with `vocab`, the rows of the model's embedding.
    """
    vocab = vocab or (MANY if text is None else len(text))
    wishes = rules.spread(rule or rules.Rule(), len(token_BT))
    made = controls.controls(wishes, vocab=vocab, limit=limit, end=end, ban=ban, text=text)
    return begin(np.asarray(token_BT, np.int32), np.asarray(length_B, np.int32), made)


def begin(token_BT: np.ndarray, length_B: np.ndarray, made: controls.Controls) -> Prompt:
    """A Prompt of whole prompts: nothing read yet, and as many guesses as the chain makes."""
    return Prompt(token_BT, length_B, made, token_BT, length_B, np.full(len(token_BT), MANY, np.int32), None)


@dataclasses.dataclass(frozen=True)
class Autoregressive:
    """The chain of a Transformer: prefill the prompt, then draw, append and draw again.

    room: slots of the answer's cache, the most tokens a row can draw. layers: "unrolled" compiles the whole step as one loop; "dispatched"
    compiles one layer and calls it from the host, for models too deep to compile unrolled (48 layers unrolled take minutes to compile).
    alternatives: how many of the likeliest tokens to report at every place. processors: what a user adds to the rule.
    chunk: 0 reads a prompt in one piece into a cache that its samples share. Otherwise every row owns one cache of `room` slots, which its
        prompt, read in pieces of so many tokens, and its answer fill: rows then join and leave a batch, and no shape depends on a prompt.
    drafts: so many tokens are guessed by prompt lookup and checked in each step; what is drawn is the same (flaxgen.chains.drafting).
    slide: 0 refuses what exceeds the model's positions. Otherwise (with a chunk) a row whose cache is full reads its latest `slide` tokens
        again, as a new prompt, and goes on: `room` then counts the answer alone.
    cache: how keys and values are kept, see Transformer.cache.
    """

    model: transformer.Transformer
    room: int = 128
    layers: Literal["unrolled", "dispatched"] = "unrolled"
    alternatives: int = 0
    processors: tuple[progress.Processor, ...] = ()
    chunk: int = 0
    drafts: int = 0
    slide: int = 0
    cache: attention.Kind = "float"

    def empty(self, rows: int, slots: int) -> attention.Cache:
        return self.model.cache(rows, slots, self.cache)

    @property
    def slots(self) -> int:
        """Tokens that the cache of a row holds."""
        return self.model.config.positions if self.slide else self.room

    def check(self, params: Params, key_B: Array, given: Prompt, steps: int) -> None:
        config = self.model.config
        check_application(config, given, self.chunk)
        token_BT, length_B = np.asarray(given.token_BT), np.asarray(given.length_B)
        if token_BT.ndim != 2 or length_B.shape != token_BT.shape[:1]:
            raise ValueError(f"token_BT has shape {token_BT.shape} and length_B {length_B.shape}; wanted (B, T) and (B,)")
        if length_B.min() < 1 or length_B.max() > token_BT.shape[1]:
            raise ValueError(
                f"prompt lengths run from {length_B.min()} to {length_B.max()}; wanted 1 to {token_BT.shape[1]}, the padded width"
            )
        limit_B = np.asarray(given.controls.limit_B)
        if limit_B.min() < 1:
            raise ValueError(f"limit={limit_B.min()}: wanted at least 1 token for every row")
        valid_BT = np.arange(token_BT.shape[1]) < length_B[:, None]
        for name, ids in (("prompt", token_BT[valid_BT]), ("end", given.controls.end_BE), ("ban", given.controls.bias_id_BE)):
            low = 0 if name == "prompt" else -1
            if ids.min() < low or ids.max() >= config.vocab:
                raise ValueError(
                    f"{name} token ids run from {ids.min()} to {ids.max()}; the model's vocabulary has ids 0 to {config.vocab - 1}"
                )
        tables = given.controls.constraint
        if tables is not None and tables.class_BV.shape[1] != config.vocab:
            raise ValueError(
                f"tables over {tables.class_BV.shape[1]} tokens, the model's vocabulary has {config.vocab}; give prompt() its vocab="
            )
        if steps > self.room:
            raise ValueError(f"steps={steps} is more than this chain's room for {self.room} tokens; make the chain with room={steps}")
        if self.drafts and limit_B.max() > self.room:
            # A step may draw several tokens, and only the limit ends the row then.
            raise ValueError(f"limit={limit_B.max()} with drafts={self.drafts}: wanted at most room={self.room} tokens for every row")
        read_B = length_B + (0 if given.context is None else np.asarray(given.context.length_B))
        longest = int((read_B + (limit_B.astype(np.int64) if self.drafts else np.minimum(limit_B, steps))).max())
        if self.slide:
            if not self.chunk or self.slide + self.drafts >= config.positions or read_B.max() > config.positions:
                raise ValueError(
                    f"slide={self.slide} with chunk={self.chunk}, drafts={self.drafts} and a prompt of {read_B.max()} tokens: wanted a "
                    f"chunk, and slide + drafts below and prompts within the model's {config.positions} positions"
                )
            return
        # The last token drawn is never fed back, so it needs no position.
        if longest > config.positions + 1 or read_B.max() > config.positions:
            raise ValueError(
                f"a prompt of {read_B.max()} tokens and {steps} more make {longest}; the model has {config.positions} positions. "
                "Shorten the prompt or ask for fewer tokens"
            )
        if self.chunk and longest > self.slots + 1:
            raise ValueError(f"a prompt and its answer of {longest} tokens; this chain has room for {self.slots}: give it more")

    @property
    def compiled(self) -> bool:
        return self.layers == "unrolled"

    def start(self, params: Params, key_B: Array, given: Prompt) -> tuple[Memory, State]:
        rows = len(key_B)
        if self.chunk:
            read = _each((given.token_BT, given.length_B, given.context), rows)
            caches, (last_BTD, cache) = (), self.prefill(params, *read)
        else:
            valid_BT = jnp.arange(given.token_BT.shape[1])[None] < given.length_B[:, None]
            read = () if given.context is None else (given.context,)
            caches = (*read, self.empty(*given.token_BT.shape))
            hidden_BTD, caches = self._forward(params, given.token_BT, valid_BT, caches)
            last_BTD = _each(jnp.take_along_axis(hidden_BTD, given.length_B[:, None, None] - 1, axis=1), rows)
            cache = self.empty(rows, self.room)
        return _first(self, params, key_B, given.replace(context=None), caches, cache, last_BTD)

    def prefill(self, params: Params, token_BT: Array, length_B: Array, context: attention.Cache | None) -> tuple[Array, attention.Cache]:
        """What the head reads after each row's last token, and a cache of `slots` with all of them, read in chunks after the context."""
        cache = self.empty(len(token_BT), self.slots) if context is None else attention.widen(context, self.slots)
        token_BT = jnp.pad(token_BT, ((0, 0), (0, -token_BT.shape[1] % self.chunk)))
        carry = jnp.zeros((len(token_BT), 1, self.model.config.width), self.model.dtype), cache
        if self.compiled:
            return _read_chunks(self, params, token_BT, length_B, carry)
        for number in range(int(-(-np.max(length_B) // self.chunk))):
            carry = self._read_chunk(params, token_BT, length_B, number, carry)
        return carry

    def _read_chunk(self, params, token_BT, length_B, number, carry):
        last_BTD, cache = carry
        first = number * self.chunk
        piece_BT = jax.lax.dynamic_slice_in_dim(token_BT, first, self.chunk, axis=1)
        valid_BT = first + jnp.arange(self.chunk)[None] < length_B[:, None]
        hidden_BTD, (cache,) = self._forward(params, piece_BT, valid_BT, (cache,))
        at_B = length_B - 1 - first
        own_BTD = jnp.take_along_axis(hidden_BTD, jnp.clip(at_B, 0, self.chunk - 1)[:, None, None], axis=1)
        return jnp.where(((at_B >= 0) & (at_B < self.chunk))[:, None, None], own_BTD, last_BTD), cache

    def step(self, params: Params, memory: Memory, state: State) -> State:
        if self.slide:
            state = self._slid(params, memory, state)
        token_BT, valid_BT = _feed(self, memory, state)
        hidden_BTD, (*_, cache) = self._forward(params, token_BT, valid_BT, (*memory.caches, state.cache))
        return _draw(self, params, hidden_BTD, token_BT, valid_BT, memory, state.replace(cache=cache))

    def _slid(self, params: Params, memory: Memory, state: State) -> State:
        """The state with the latest tokens read again in the rows that have no slots left for a step."""
        full_B = ~self.done(state) & (state.cache.length_B + 1 + self.drafts > self.slots)

        def again(cache):
            token_BS, length_B = progress.so_far(memory.past, state.progress)
            # The last token drawn was not read yet; the step after this one does.
            at_BT = (length_B - 1 - self.slide)[:, None] + jnp.arange(self.slide)[None]
            token_BT = jnp.take_along_axis(token_BS, jnp.maximum(at_BT, 0), axis=1)
            _, fresh = self.prefill(params, token_BT, jnp.full(full_B.shape, self.slide), None)
            return jax.tree.map(lambda old, new: jnp.where(full_B.reshape(-1, *[1] * (old.ndim - 1)), new, old), cache, fresh)

        if self.compiled:
            return state.replace(cache=jax.lax.cond(jnp.any(full_B), again, lambda cache: cache, state.cache))
        return state.replace(cache=again(state.cache)) if np.any(full_B) else state

    def _forward(self, params: Params, token_BT: Array, valid_BT: Array, caches: tuple) -> tuple[Array, tuple[attention.Cache, ...]]:
        if self.layers == "dispatched":
            return dispatched.apply(self.model, params, token_BT, valid_BT=valid_BT, caches=caches)
        return self.model.apply(params, token_BT, valid_BT=valid_BT, caches=caches, head="hidden")

    def done(self, state: State) -> Array:
        return state.progress.finish_B != progress.RUNNING

    def read(self, state: State) -> Sample:
        """The tokens drawn; an ArithmeticError where the model's logits were not finite or the rule left nothing to choose."""
        sample = look(state)
        for row, finish in enumerate(sample.finish_B):
            if problem := trouble(finish, sample.count_B[row]):
                raise type(problem)(f"row {row}: {problem}")
        return sample


def check_application(config, given: Prompt, chunk: int = 0) -> None:
    """ValueError where who sees whom forbids that tokens follow one another, or that a prompt is read in pieces."""
    if config.application == "encoder":
        raise ValueError('the model is loaded as an encoder, which continues nothing; load it with application="lm" or "unilm"')
    if config.application == "unilm" and (chunk or given.context is not None):
        raise ValueError("a UniLM sees its whole prompt at once; wanted no context, and chunk=0, which exact and engines do not have")


def look(state: State) -> Sample:
    """A copy on the host of what has been drawn so far, whatever became of it."""
    p = state.progress
    return Sample(*jax.device_get((p.token_BN, p.log_prob_BN, p.count_B, p.finish_B, state.moves_B, p.top_id_BNE, p.top_log_prob_BNE)))


def trouble(finish: int, count: int) -> ArithmeticError | None:
    """The error in which a row ended, if it did."""
    if finish == progress.BROKEN:
        return FloatingPointError(f"the model's logits are not finite at token {count}; its weights are damaged or overflow")
    if finish == progress.STUCK:
        return ArithmeticError(f"the rule left no token to choose at token {count}; loosen its bans, or give the row an end token")
    return None


def _each(tree, rows: int):
    """`tree` with one entry a sample in place of one a prompt."""
    return jax.tree.map(lambda leaf: leaf if len(leaf) == rows else jnp.repeat(leaf, rows // len(leaf), axis=0), tree)


@partial(jax.jit, static_argnums=0)
def _read_chunks(chain: Autoregressive, params: Params, token_BT: Array, length_B: Array, carry: tuple) -> tuple:
    """A program of its own, so that a prompt read now and one read ahead (flaxgen.context) have the same bits."""

    def piece(number, carry):
        return chain._read_chunk(params, token_BT, length_B, number, carry)

    return jax.lax.fori_loop(0, -(-jnp.max(length_B) // chain.chunk), piece, carry)


@partial(jax.jit, static_argnums=0, donate_argnums=5)
def _first(
    chain: Autoregressive, params: Params, key_B: Array, given: Prompt, caches: tuple, cache: attention.Cache, last_BTD: Array
) -> tuple[Memory, State]:
    """Memory, and the state with the first token drawn."""
    rows, vocab = len(key_B), chain.model.config.vocab
    wishes, *before, drafts_B = _each((given.controls, given.before_BS, given.before_length_B, given.drafts_B), rows)
    past = progress.past(*before, wishes, vocab)
    memory = Memory(caches, wishes, controls.bias(wishes, vocab), past, drafts_B, key_B)
    blank = progress.begin(wishes, rows=rows, room=chain.room, vocab=vocab, alternatives=chain.alternatives)
    fed_BT = jnp.zeros((rows, 1), jnp.int32)
    return memory, _draw(chain, params, last_BTD, fed_BT, fed_BT == 0, memory, State(cache, blank, fed_BT[:, 0] - 1))


@partial(jax.jit, static_argnums=0)
def _feed(chain: Autoregressive, memory: Memory, state: State) -> tuple[Array, Array]:
    """The last token of each row and the guesses that follow it, and which of these are to be read."""
    now = state.progress
    running_B = now.finish_B == progress.RUNNING
    last_BT = jnp.take_along_axis(now.token_BN, now.count_B[:, None] - 1, axis=1)
    if not chain.drafts:
        return last_BT, running_B[:, None]
    token_BS, length_B = progress.so_far(memory.past, now)
    draft_BT, found_B = drafting.propose(token_BS, length_B, chain.drafts)
    # The last token of a row is never fed back, so no more than the rest of the row's limit is worth a guess.
    count_B = jnp.where(found_B, jnp.minimum(memory.drafts_B, memory.controls.limit_B - now.count_B - 1), 0)
    valid_BT = jnp.arange(chain.drafts + 1)[None] <= count_B[:, None]
    return jnp.concatenate([last_BT, draft_BT], axis=1), valid_BT & running_B[:, None]


@partial(jax.jit, static_argnums=0, donate_argnums=6)
def _draw(chain: Autoregressive, params: Params, hidden_BTD: Array, fed_BT: Array, valid_BT: Array, memory: Memory, state: State) -> State:
    """The state with one more token in every row that runs, and one more for every guess of fed_BT that proved right.

    hidden_BTD: what the model made of fed_BT. A guess is right when it is what the row draws anyway: the draw is a function of logits, key
    and place, so guessing changes no token (Leviathan et al. 2023 with a deterministic sampler).
    """
    logit_BTV = chain.model.apply(params, hidden_BTD, method="unembed")
    # Nothing of the rule is fused with the model: whatever a rule holds, the bits of the logits are the same.
    logit_BTV = jax.lax.optimization_barrier(logit_BTV)
    before, running_B = state.progress, state.progress.finish_B == progress.RUNNING

    def one(logit_BV, now, alive_B):
        return progress.draw(logit_BV, memory.key_B, memory.controls, memory.bias_BV, memory.past, now, alive_B, chain.processors)

    if fed_BT.shape[1] == 1:
        return State(state.cache, one(logit_BTV[:, 0], before, running_B), state.moves_B + running_B)

    def right(carry):
        return jnp.any(carry[2])

    def check(carry):
        place, now, alive_B = carry
        now = one(jax.lax.dynamic_index_in_dim(logit_BTV, place, axis=1, keepdims=False), now, alive_B)
        drawn_B = jnp.take_along_axis(now.token_BN, jnp.maximum(now.count_B[:, None] - 1, 0), axis=1)[:, 0]
        after = jnp.minimum(place + 1, fed_BT.shape[1] - 1)
        guess_B, guessed_B = (jax.lax.dynamic_index_in_dim(x_BT, after, axis=1, keepdims=False) for x_BT in (fed_BT, valid_BT))
        alive_B &= guessed_B & (guess_B == drawn_B) & (now.finish_B == progress.RUNNING) & (place + 1 < fed_BT.shape[1])
        return place + 1, now, alive_B

    _, after, _ = jax.lax.while_loop(right, check, (0, before, running_B))
    read_B = state.cache.length_B - valid_BT.sum(axis=1) + after.count_B - before.count_B
    return State(attention.rewind(state.cache, read_B), after, state.moves_B + running_B)
