"""Contrastive search: of the likeliest tokens the one that resembles least what the model has read so far (Su et al. 2022).

The candidates of a row read one cache of the prompt and one of the answer, each beside a cache of one slot of its own; the slot of the
chosen one is then written into the answer's.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen import controls, progress, sampling
from flaxgen.chains import autoregressive, search
from flaxgen.models import transformer
from flaxgen.nn.attention import Cache, place
from flaxgen.protocols import Array, Params


@dataclasses.dataclass(frozen=True)
class Search:
    """What a user asks of contrastive search.

    Of the `candidates` likeliest tokens the one with the largest (1 - penalty) p - penalty s comes next, where p is its probability under
    the rule and s the largest cosine between the vector that the output head would read after it and those of all tokens before it
    (equation 5). penalty=0 takes the likeliest token. What steers draws is refused.
    """

    candidates: int = 4
    penalty: float = 0.6

    def __post_init__(self):
        search.count("candidates", self.candidates)
        search.number("penalty", self.penalty, 0.0, 1.0)

    def plan(
        self,
        model: transformer.Transformer,
        given: autoregressive.Prompt,
        *,
        room: int,
        layers: search.Layers = "unrolled",
        processors: tuple[progress.Processor, ...] = (),
    ) -> tuple["Contrastive", "Prompt"]:
        """The chain that searches so, and what it starts from; only the chain's own fields compile anew."""
        chain = Contrastive(model, room, candidates=self.candidates, layers=layers, processors=processors)
        return chain, Prompt(given, np.full(len(given.token_BT), self.penalty, np.float32))


@struct.dataclass
class Prompt:
    start: autoregressive.Prompt
    penalty_B: Array


@struct.dataclass
class Memory:
    caches: tuple[Cache, ...]
    controls: controls.Controls
    bias_BV: Array
    past: progress.Past
    penalty_B: Array
    unit_BTD: Array  # what the head reads after each token of the prompt, of length 1; zeros after padding
    seen_BT: Array


@struct.dataclass
class State:
    answer: Cache
    progress: progress.Progress
    unit_BND: Array
    last_BTD: Array  # what the head reads next


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """The chain of contrastive search over a Transformer; `Search.plan` makes one.

    room: slots of the answer's cache, the most tokens a row can have.
    """

    model: transformer.Transformer
    room: int = 128
    candidates: int = 4
    layers: search.Layers = "unrolled"
    processors: tuple[progress.Processor, ...] = ()

    @property
    def compiled(self) -> bool:
        return self.layers == "unrolled"

    def check(self, params: Params, key_B: Array, given: Prompt, steps: int) -> None:
        begun, config = given.start, self.model.config
        autoregressive.Autoregressive(self.model, self.room, self.layers).check(params, key_B, begun, steps)
        search.refuse_samples(key_B, begun, "ask for one sample")
        search.refuse_draws(begun.controls)
        if begun.context is not None:
            raise ValueError("contrastive search compares with every token before, and a context that was read already keeps none of that")
        if self.candidates > config.vocab:
            raise ValueError(f"candidates={self.candidates}: wanted at most the {config.vocab} tokens of the vocabulary")
        longest = int((begun.length_B + np.minimum(begun.controls.limit_B, steps)).max())
        # Every candidate is read before one is chosen, so the last token needs a position too.
        if longest > config.positions:
            raise ValueError(
                f"a prompt and its answer make {longest} tokens; contrastive search reads them all, and the model has {config.positions} "
                "positions. Shorten the prompt or ask for fewer tokens"
            )

    def start(self, params: Params, key_B: Array, given: Prompt) -> tuple[Memory, State]:
        hidden_BTD, caches = search.read(self.model, self.layers, params, given.start)
        memory, state = _begin(self, hidden_BTD, given)
        memory = memory.replace(caches=caches)
        return memory, self.step(params, memory, state)

    def step(self, params: Params, memory: Memory, state: State) -> State:
        logit_BV, share_BW, token_BW = _propose(self, params, memory, state)
        alive_BW = jnp.broadcast_to((state.progress.finish_B == progress.RUNNING)[:, None], token_BW.shape)
        caches = (*memory.caches, state.answer, self.model.cache(token_BW.size, 1))
        token_BT, valid_BT = token_BW.reshape(-1, 1), alive_BW.reshape(-1, 1)
        hidden_BTD, (*_, fresh) = search.forward(self.model, self.layers, params, token_BT, valid_BT, caches)
        return _choose(self, hidden_BTD.reshape(*token_BW.shape, -1), fresh, logit_BV, share_BW, token_BW, memory, state)

    def done(self, state: State) -> Array:
        return state.progress.finish_B != progress.RUNNING

    def read(self, state: State) -> autoregressive.Sample:
        """The tokens chosen; an ArithmeticError where the model's logits were not finite or the rule left nothing to choose."""
        p = jax.device_get(state.progress)
        for row, (finish, count) in enumerate(zip(p.finish_B, p.count_B, strict=True)):
            if problem := autoregressive.trouble(finish, count):
                raise type(problem)(f"row {row}: {problem}")
        named = {name: getattr(p, name) for name in ("token_BN", "log_prob_BN", "count_B", "finish_B", "top_id_BNE", "top_log_prob_BNE")}
        return autoregressive.Sample(moves_B=p.count_B, **named)


@partial(jax.jit, static_argnums=0)
def _begin(chain: Contrastive, hidden_BTD: Array, given: Prompt) -> tuple[Memory, State]:
    """Memory but for its caches, and the state before the first move."""
    begun, rows, vocab = given.start, len(hidden_BTD), chain.model.config.vocab
    wishes = begun.controls.replace(limit_B=jnp.minimum(begun.controls.limit_B, chain.room))
    seen_BT = jnp.arange(hidden_BTD.shape[1])[None] < begun.length_B[:, None]
    unit_BTD = jnp.where(seen_BT[:, :, None], _unit(hidden_BTD), 0)
    past = progress.past(begun.before_BS, begun.before_length_B, wishes, vocab)
    memory = Memory((), wishes, controls.bias(wishes, vocab), past, given.penalty_B, unit_BTD, seen_BT)
    blank = progress.begin(wishes, rows=rows, room=chain.room, vocab=vocab)
    unit_BND = jnp.zeros((rows, chain.room, hidden_BTD.shape[2]), jnp.float32)
    return memory, State(chain.model.cache(rows, chain.room), blank, unit_BND, search.last(hidden_BTD, begun.length_B))


def _unit(hidden_BTD: Array) -> Array:
    """The vectors at length 1, in float32."""
    hidden_BTD = hidden_BTD.astype(jnp.float32)
    return hidden_BTD / jnp.maximum(jnp.linalg.norm(hidden_BTD, axis=-1, keepdims=True), 1e-12)


@partial(jax.jit, static_argnums=0)
def _propose(chain: Contrastive, params: Params, memory: Memory, state: State) -> tuple[Array, Array, Array]:
    """The model's logits, and the likeliest tokens under the rule with their probabilities."""
    logit_BV = chain.model.apply(params, state.last_BTD, method="unembed")[:, 0]
    allowed_BV = progress.adjust(logit_BV, memory.controls, memory.bias_BV, memory.past, state.progress, chain.processors)
    top_BW, token_BW = sampling.likeliest(allowed_BV, chain.candidates)
    return logit_BV, jnp.exp(top_BW - jax.nn.logsumexp(allowed_BV, axis=-1, keepdims=True)), token_BW


@partial(jax.jit, static_argnums=0, donate_argnums=7)
def _choose(
    chain: Contrastive, hidden_BWD: Array, fresh: Cache, logit_BV: Array, share_BW: Array, token_BW: Array, memory: Memory, state: State
) -> State:
    """The state after the candidate that is likely and unlike what came before; share_BW is 0 for what the rule bans."""
    before = state.progress
    alive_B = before.finish_B == progress.RUNNING
    unit_BWD = _unit(hidden_BWD)
    drawn_BN = jnp.arange(state.unit_BND.shape[1])[None] < before.count_B[:, None]
    like_BWT = jnp.einsum("BWD,BTD->BWT", unit_BWD, memory.unit_BTD, precision="highest")
    like_BWN = jnp.einsum("BWD,BND->BWN", unit_BWD, state.unit_BND, precision="highest")
    like_BWT = jnp.where(memory.seen_BT[:, None], like_BWT, -jnp.inf)
    like_BWN = jnp.where(drawn_BN[:, None], like_BWN, -jnp.inf)
    like_BW = jnp.maximum(like_BWT.max(axis=2), like_BWN.max(axis=2))
    penalty_B1 = memory.penalty_B[:, None]
    rated_BW = jnp.where(share_BW == 0, -jnp.inf, (1 - penalty_B1) * share_BW - penalty_B1 * like_BW)
    at_B = jnp.argmax(rated_BW, axis=1)

    def chosen(x_BW):
        return jax.vmap(lambda x_W, at: x_W[at])(x_BW, at_B)

    rated_B = chosen(rated_BW)  # of the first that is no number, if there is one
    token_B = jnp.where(jnp.isnan(rated_B), sampling.NONE, chosen(token_BW))
    after = progress.follow(logit_BV, token_B, memory.controls, before, alive_B, rated_B == -jnp.inf)
    slot_B = jnp.where(alive_B, before.count_B, chain.room)
    unit_BND = jax.vmap(lambda unit_ND, unit_D, slot: unit_ND.at[slot].set(unit_D, mode="drop"))(state.unit_BND, chosen(unit_BWD), slot_B)
    return State(_adopt(state.answer, fresh, at_B, slot_B), after, unit_BND, chosen(hidden_BWD)[:, None])


def _adopt(answer: Cache, fresh: Cache, at_B: Array, slot_B: Array) -> Cache:
    """`answer` with what candidate at_B of each row holds in its one slot, written into slot_B; slots beyond the buffer are dropped."""
    rows = len(at_B)

    def put(write):
        def each(old, new):
            return jax.vmap(write)(old, new.reshape(rows, -1, *new.shape[1:]), at_B, slot_B)

        return each

    k = jax.tree.map(put(lambda old, new, at, slot: old.at[..., slot].set(new[at][..., 0], mode="drop")), answer.k, fresh.k)
    v = jax.tree.map(put(lambda old, new, at, slot: old.at[:, slot].set(new[at][:, 0], mode="drop")), answer.v, fresh.v)

    def put_number(old_BS, new_BS):
        new_BT = jax.vmap(lambda new_W, at: new_W[at])(new_BS.reshape(rows, -1), at_B)[:, None]
        return place(old_BS, new_BT, slot_B[:, None])

    numbers = jax.tree.map(put_number, (answer.rank_BS, answer.position_BS), (fresh.rank_BS, fresh.position_BS))
    return Cache(k, v, numbers[0], answer.length_B + (slot_B < answer.rank_BS.shape[1]), numbers[1])
