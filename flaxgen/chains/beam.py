"""Beam search: the likeliest whole answers, in the conventions of transformers and of bert4keras, and diverse groups of beams.

The beams of a prompt read its one cache; only the short cache of the answers is put in another order. R is a beam of a prompt.
"""

import dataclasses
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen import controls, progress
from flaxgen.chains import autoregressive, ranking, search
from flaxgen.models import transformer
from flaxgen.nn.attention import Cache
from flaxgen.protocols import Array, Params

Convention = Literal["transformers", "bert4keras"]


@dataclasses.dataclass(frozen=True)
class Search:
    """What a user asks of beam search.

    convention: "transformers" rates an answer by the sum of its log-probabilities / tokens ** length_penalty and collects answers until no
        beam can better them, as `early_stopping` has it (ranking.transformers). "bert4keras" rates by the sum alone, and is over as soon as
        the best beam ends after `minlen` tokens or more; beams that end below the best leave, and the search narrows (ranking.bert4keras).
    returned: so many answers a prompt, best first. groups, diversity: the beams are divided into groups that choose one after another,
        and a token costs `diversity` for each beam of the groups before that has just chosen it (Vijayakumar et al. 2016, Hamming).

    The rule set applies, before beams are compared, to the model's log-probabilities. What steers draws is refused, but for bert4keras's
    temperature.
    """

    beams: int = 4
    convention: Convention = "transformers"
    length_penalty: float = 1.0
    early_stopping: ranking.Early = False
    groups: int = 1
    diversity: float = 0.0
    returned: int = 1
    minlen: int = 1

    def __post_init__(self):
        for name in ("beams", "groups", "returned", "minlen"):
            search.count(name, getattr(self, name))
        search.number("length_penalty", self.length_penalty, -10.0, 10.0)
        search.number("diversity", self.diversity, 0.0, 1e6)
        for name, choices in (("convention", get_args(Convention)), ("early_stopping", get_args(ranking.Early))):
            if not isinstance(getattr(self, name), bool | str) or getattr(self, name) not in choices:
                raise ValueError(f"Search({name}={getattr(self, name)!r}): wanted one of {', '.join(map(repr, choices))}")
        if self.beams % self.groups:
            raise ValueError(f"Search(beams={self.beams}, groups={self.groups}): beams do not divide into groups; choose a multiple")
        if self.diversity and self.groups == 1:
            raise ValueError(f"Search(diversity={self.diversity}): a single group has none to differ from; ask for groups=2 or more")
        if self.returned > self.beams:
            raise ValueError(f"Search(returned={self.returned}, beams={self.beams}): wanted no more answers than beams")
        neutral = {"bert4keras": ("length_penalty", "early_stopping", "groups", "returned"), "transformers": ("minlen",)}[self.convention]
        for name in neutral:
            if (value := getattr(self, name)) != getattr(Search, name):
                instead = "use Rule(min_tokens=…)" if name == "minlen" else f"leave it at {getattr(Search, name)}"
                raise ValueError(f"Search({name}={value!r}): the convention of {self.convention} has no such thing; {instead}")

    def plan(
        self,
        model: transformer.Transformer,
        given: autoregressive.Prompt,
        *,
        room: int,
        layers: search.Layers = "unrolled",
        processors: tuple[progress.Processor, ...] = (),
    ) -> tuple["Beam", "Prompt"]:
        """The chain that searches so, and what it starts from; only the chain's own fields compile anew."""
        named = {name: getattr(self, name) for name in ("beams", "convention", "early_stopping", "groups", "returned")}
        rows = len(given.token_BT)

        def column(value, kind):
            return np.full(rows, value, kind)

        numbers = column(self.length_penalty, np.float32), column(self.diversity, np.float32), column(self.minlen, np.int32)
        return Beam(model, room, layers=layers, processors=processors, **named), Prompt(given, *numbers)


@struct.dataclass
class Prompt:
    start: autoregressive.Prompt
    length_penalty_B: Array
    diversity_B: Array
    minlen_B: Array


@struct.dataclass
class Memory:
    """One row a prompt, for all its beams."""

    caches: tuple[Cache, ...]
    controls: controls.Controls
    bias_BV: Array
    is_end_BV: Array
    past: progress.Past
    given: tuple[Array, Array, Array]  # length_penalty_B, diversity_B, minlen_B


@struct.dataclass
class State:
    answer: Cache  # one row a beam, the beams of a prompt side by side
    pools: tuple[ranking.Pool, ...]  # one a group


@dataclasses.dataclass(frozen=True)
class Best(autoregressive.Sample):
    """The best answers, `returned` rows a prompt, best first; score_B is -inf and count_B 0 where so many were not found."""

    score_B: np.ndarray


@dataclasses.dataclass(frozen=True)
class Beam:
    """The chain of a beam search over a Transformer; `Search.plan` makes one, and says what the fields mean.

    room: slots of the answer's cache, the most tokens an answer can have. A prompt's rows are what has been found so far; they are final
    once the prompt is done.
    """

    model: transformer.Transformer
    room: int = 128
    beams: int = 4
    convention: Convention = "transformers"
    early_stopping: ranking.Early = False
    groups: int = 1
    returned: int = 1
    layers: search.Layers = "unrolled"
    processors: tuple[progress.Processor, ...] = ()

    @property
    def compiled(self) -> bool:
        return self.layers == "unrolled"

    def check(self, params: Params, key_B: Array, given: Prompt, steps: int) -> None:
        wishes, vocab = given.start.controls, self.model.config.vocab
        autoregressive.Autoregressive(self.model, self.room, self.layers).check(params, key_B, given.start, steps)
        search.refuse_samples(key_B, given.start, "ask for Search(returned=…) instead of samples")
        search.refuse_draws(wishes, ("temperature",) if self.convention == "bert4keras" else ())
        if np.min(wishes.temperature_B) <= 0:
            raise ValueError("Rule(temperature=0): beams are compared by sums of log-probabilities; wanted more than 0")
        if self.beams >= vocab:
            raise ValueError(f"beams={self.beams}: wanted fewer than the {vocab} tokens of the vocabulary")
        longest = int(np.minimum(wishes.limit_B, self.room).max())
        if longest > steps:
            raise ValueError(
                f"answers of up to {longest} tokens in steps={steps}: answers are compared whole; use steps={longest}, or a lower limit"
            )

    def start(self, params: Params, key_B: Array, given: Prompt) -> tuple[Memory, State]:
        hidden_BTD, caches = search.read(self.model, self.layers, params, given.start)
        memory, state, hidden_BTD = _begin(self, hidden_BTD, given)
        memory = memory.replace(caches=caches)
        return memory, _choose(self, params, hidden_BTD, memory, state)

    def step(self, params: Params, memory: Memory, state: State) -> State:
        token_BT, valid_BT = _feed(state)
        caches = (*memory.caches, state.answer)
        hidden_BTD, (*_, answer) = search.forward(self.model, self.layers, params, token_BT, valid_BT, caches)
        return _choose(self, params, hidden_BTD, memory, state.replace(answer=answer))

    def done(self, state: State) -> Array:
        return jnp.stack([pool.over_B for pool in state.pools]).all(axis=0)

    def read(self, state: State) -> Best:
        """The answers found; an ArithmeticError where the model's logits were not finite or the rule left no answer to a prompt."""
        moves = [pool.progress.count_B[:, 0] for pool in state.pools]
        founds, moves, done_B = jax.device_get(([pool.found for pool in state.pools], moves, self.done(state)))
        found = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *founds)
        order_BR = np.argsort(-found.score_BR, axis=1, kind="stable")[:, : self.returned]
        found = jax.tree.map(lambda leaf: leaf[np.arange(len(leaf))[:, None], order_BR], found)
        missing_BR = done_B[:, None] & (found.score_BR == -np.inf)
        finish_BR = np.where(missing_BR, progress.STUCK, found.finish_BR)
        for row, (finish, count) in enumerate(zip(finish_BR[:, 0], found.count_BR[:, 0], strict=True)):
            if problem := autoregressive.trouble(finish, count):
                raise type(problem)(f"prompt {row}: {problem}")
        leaves = found.token_BRN, found.log_prob_BRN, found.count_BR, finish_BR, found.score_BR
        token_BN, log_prob_BN, count_B, finish_B, score_B = [leaf.reshape(-1, *leaf.shape[2:]) for leaf in leaves]
        return Best(
            token_BN=token_BN,
            log_prob_BN=log_prob_BN,
            count_B=count_B,
            finish_B=finish_B,
            moves_B=np.repeat(np.max(moves, axis=0), self.returned),
            top_id_BNE=None,
            top_log_prob_BNE=None,
            score_B=score_B,
        )


@partial(jax.jit, static_argnums=0)
def _begin(chain: Beam, hidden_BTD: Array, given: Prompt) -> tuple[Memory, State, Array]:
    """Memory but for its caches, the state before the first move, and what the head reads for each beam."""
    begun, rows, vocab = given.start, len(hidden_BTD), chain.model.config.vocab
    wishes = begun.controls.replace(limit_B=jnp.minimum(begun.controls.limit_B, chain.room))
    end_BE = jnp.where(wishes.end_BE >= 0, wishes.end_BE, vocab)
    is_end_BV = jax.vmap(lambda end_E: jnp.zeros((vocab,), bool).at[end_E].set(True, mode="drop"))(end_BE)
    past = progress.past(begun.before_BS, begun.before_length_B, wishes, vocab)
    numbers = given.length_penalty_B, given.diversity_B, given.minlen_B
    memory = Memory((), wishes, controls.bias(wishes, vocab), is_end_BV, past, numbers)
    size = chain.beams // chain.groups
    answers = 1 if chain.convention == "bert4keras" else size
    pool = ranking.begin(wishes, rows=rows, beams=size, answers=answers, room=chain.room, vocab=vocab)
    answer = chain.model.cache(rows * chain.beams, chain.room)
    return memory, State(answer, (pool,) * chain.groups), jnp.repeat(search.last(hidden_BTD, begun.length_B), chain.beams, axis=0)


@jax.jit
def _feed(state: State) -> tuple[Array, Array]:
    """The last token of each beam, and whether it is to be read."""
    last = [jnp.take_along_axis(pool.progress.token_BN, pool.progress.count_B[:, :, None] - 1, axis=2) for pool in state.pools]
    valid = [jnp.broadcast_to(~pool.over_B[:, None], pool.score_BR.shape) for pool in state.pools]
    return jnp.concatenate(last, axis=1).reshape(-1, 1), jnp.concatenate(valid, axis=1).reshape(-1, 1)


@partial(jax.jit, static_argnums=0, donate_argnums=4)
def _choose(chain: Beam, params: Params, hidden_BTD: Array, memory: Memory, state: State) -> State:
    """The state after every group has chosen its beams from what the model made of the last ones."""
    logit_BV = chain.model.apply(params, hidden_BTD, method="unembed")[:, 0]
    logit_BRV = logit_BV.reshape(-1, chain.beams, logit_BV.shape[1])
    crowd_BV = jnp.zeros_like(logit_BRV[:, 0])
    pools, parents = [], []
    for group, pool in enumerate(state.pools):
        size = pool.score_BR.shape[1]
        own_BRV = logit_BRV[:, group * size : (group + 1) * size]
        pool, parent_BR, crowd_BV = _choose_group(chain, own_BRV, memory, pool, crowd_BV)
        pools.append(pool)
        parents.append(parent_BR + group * size)
    row_BR = jnp.concatenate(parents, axis=1) + jnp.arange(len(logit_BRV))[:, None] * chain.beams
    rows = row_BR.reshape(-1)
    return State(jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), state.answer), tuple(pools))


def _choose_group(chain: Beam, logit_BRV: Array, memory: Memory, pool: ranking.Pool, crowd_BV: Array) -> tuple[ranking.Pool, Array, Array]:
    """The group's new beams, the beam each continues, and how many beams have just chosen each token."""
    length_penalty_B, diversity_B, minlen_B = memory.given
    wishes = memory.controls
    adjust = jax.vmap(partial(progress.adjust, processors=chain.processors), in_axes=(1, None, None, None, 1), out_axes=1)
    rated_BRV = adjust(jax.nn.log_softmax(logit_BRV, axis=-1), wishes, memory.bias_BV, memory.past, pool.progress)
    if chain.convention == "bert4keras":
        # log(p + 1e-12) as bert4keras has it, but what the rule bans stays banned.
        share_BRV = jax.nn.softmax(rated_BRV / wishes.temperature_B[:, None, None], axis=-1)
        rated_BRV = jnp.where(rated_BRV == -jnp.inf, -jnp.inf, jnp.log(share_BRV + 1e-12))
        pool, parent_BR = ranking.bert4keras(logit_BRV, pool.score_BR[:, :, None] + rated_BRV, wishes, pool, minlen_B=minlen_B)
        return pool, parent_BR, crowd_BV
    total_BRV = pool.score_BR[:, :, None] + rated_BRV - (diversity_B[:, None] * crowd_BV)[:, None]
    pool, parent_BR = ranking.transformers(
        logit_BRV,
        total_BRV,
        wishes,
        pool,
        penalty_B=length_penalty_B,
        is_end_BV=memory.is_end_BV,
        early_stopping=chain.early_stopping,
    )
    last_BR = jnp.take_along_axis(pool.progress.token_BN, pool.progress.count_B[:, :, None] - 1, axis=2)[:, :, 0]
    at_BR = jnp.where((pool.score_BR > -jnp.inf) & ~pool.over_B[:, None], last_BR, crowd_BV.shape[1])
    crowd_BV = jax.vmap(lambda crowd_V, at_R: crowd_V.at[at_R].add(1, mode="drop"))(crowd_BV, at_BR)
    return pool, parent_BR, crowd_BV
