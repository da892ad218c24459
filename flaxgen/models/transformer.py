"""The Transformer: GPT-2 and GPT2_ML as one module, the loop over its layers from the host, and how a mesh holds its parameters."""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from flaxgen import sharding
from flaxgen.models.config import Config, block_name
from flaxgen.nn import attention, blocks
from flaxgen.protocols import Array, Params


class Embed(nn.Module):
    """Token and position embeddings, summed; also the tied output head."""

    config: Config
    dtype: jnp.dtype

    def setup(self):
        c = self.config
        self.token = blocks.Embedding(c.vocab, c.width, c.init_range, self.dtype)
        self.position = blocks.Embedding(c.positions, c.width, c.init_range, self.dtype)
        if c.wiring == "between":
            self.norm = blocks.LayerNorm(c.epsilon)

    def __call__(self, token_BT: Array, position_BT: Array) -> Array:
        x_BTD = self.token(token_BT) + self.position(position_BT)
        return self.norm(x_BTD) if self.config.wiring == "between" else x_BTD

    def unembed(self, x_BTD: Array) -> Array:
        return self.token.product(x_BTD)


class Block(nn.Module):
    """One layer: attention and MLP in the wiring of `config` (figures in Radford et al. 2019; imcaspar/gpt2-ml train/modeling.py)."""

    config: Config

    @nn.compact
    def __call__(self, x_BTD: Array, buffers: tuple, sight: attention.Sight, key_B: Array | None = None) -> tuple[Array, tuple]:
        c = self.config
        attend = attention.Attention(c.heads, c.init_range, name="attend")
        mlp = blocks.MLP(c.hidden, c.activation, c.init_range, name="mlp")
        norm_0, norm_1 = (blocks.LayerNorm(c.epsilon, name=f"norm_{i}") for i in range(2))
        keys = [None, None] if key_B is None else [jax.vmap(partial(jax.random.fold_in, data=i))(key_B) for i in range(2)]
        drop = partial(blocks.dropout, rate=c.dropout)
        attended_BTD, buffer = attend(norm_0(x_BTD) if c.wiring == "pre" else x_BTD, buffers, sight)
        h_BTD = x_BTD + drop(attended_BTD, keys[0])
        if c.wiring == "pre":
            return h_BTD + drop(mlp(norm_1(h_BTD)), keys[1]), buffer
        return norm_1(h_BTD + drop(mlp(norm_0(h_BTD)), keys[1])), buffer


class Transformer(nn.Module):
    """A causal language model; `apply(params, token_BT)` gives (logit_BTV in float32, caches).

    dtype is that of the activations and of the caches it makes; norms, softmax and logits are float32 whatever it is.
    """

    config: Config
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.embed = Embed(self.config, self.dtype)
        for layer in range(self.config.layers):
            setattr(self, block_name(layer), Block(self.config))
        if self.config.wiring == "pre":
            self.norm = blocks.LayerNorm(self.config.epsilon)

    def __call__(
        self,
        token_BT: Array,
        *,
        valid_BT: Array | None = None,
        rank_BT: Array | None = None,
        floor_BT: Array | None = None,
        position_BT: Array | None = None,
        caches: tuple[attention.Cache, ...] = (),
        key_B: Array | None = None,
        head: Literal["logits", "hidden"] = "logits",
    ) -> tuple[Array, tuple[attention.Cache, ...]]:
        """Logits after every token, and `caches` with the last one grown by these tokens.

        token_BT: ids in [0, vocab). valid_BT: False where a token is padding, on either side. rank_BT: who sees whom (see
        flaxgen.nn.attention), by default each token all earlier ones. floor_BT: the least rank a token sees, that of its document's first
        token; by default all. position_BT: in [0, positions), by default how many came before, or rank - floor where there are floors.
        caches: read left to right; without any, the tokens see each other and nothing is kept. key_B: one dropout key a row, None for none.
        head: "hidden" gives what the output head would read, hidden_BTD, in place of the logits.
        Logits and caches of padding mean nothing. Ranges are checked by the callers that see concrete values (flaxgen.loop).
        """
        if head not in ("logits", "hidden"):
            raise ValueError(f'head={head!r}: wanted "logits" or "hidden"')
        x_BTD, sight, last = self.enter(token_BT, valid_BT, rank_BT, position_BT, caches, floor_BT)
        grown = []
        for layer in range(self.config.layers):
            block = getattr(self, block_name(layer))
            x_BTD, buffer = block(x_BTD, buffers(caches, layer), sight, layer_keys(key_B, layer))
            grown.append(buffer)
        hidden_BTD = self.leave(x_BTD)
        return hidden_BTD if head == "hidden" else self.unembed(hidden_BTD), regrow(caches, last, grown)

    def enter(self, token_BT, valid_BT=None, rank_BT=None, position_BT=None, caches=(), floor_BT=None):
        """Embedded tokens, what they may see, and the last cache with their ranks; keys and values come from the layers."""
        if valid_BT is None and token_BT.shape[1] > self.config.positions:
            raise ValueError(
                f"{token_BT.shape[1]} tokens a row; the model has {self.config.positions} positions. Cut the rows or use a larger model"
            )
        if valid_BT is None and caches and token_BT.shape[1] > caches[-1].rank_BS.shape[1]:
            raise ValueError(f"{token_BT.shape[1]} tokens a row for a cache of {caches[-1].rank_BS.shape[1]} slots; make it larger")
        valid_BT = jnp.ones(token_BT.shape, bool) if valid_BT is None else valid_BT.astype(bool)
        before_BT = jnp.cumsum(valid_BT, axis=1, dtype=jnp.int32) - 1
        for cache in caches:
            before_BT += jnp.repeat(cache.length_B, len(token_BT) // len(cache.length_B), total_repeat_length=len(token_BT))[:, None]
        before_BT = jnp.maximum(before_BT, 0)
        rank_BT = before_BT + 1 if rank_BT is None else rank_BT
        if position_BT is None:
            position_BT = before_BT if floor_BT is None else jnp.maximum(rank_BT - floor_BT, 0)
        sight, last = attention.look(rank_BT, valid_BT, caches, floor_BT)
        return self.embed(token_BT, position_BT), sight, last

    def leave(self, x_BTD: Array) -> Array:
        """What the output head reads, from what the last layer gave."""
        return self.norm(x_BTD) if self.config.wiring == "pre" else x_BTD

    def unembed(self, hidden_BTD: Array) -> Array:
        """logit_BTV in float32 by the tied token embedding."""
        return self.embed.unembed(hidden_BTD)

    def cache(self, rows: int, slots: int, kind: attention.Kind = "float") -> attention.Cache:
        """An empty cache for `rows` rows of up to `slots` tokens; the caller sees to it that no row gets more.

        kind: "float" holds keys and values in the model's dtype, "int8" in a byte each and a scale for every head of a token.
        """
        c = self.config
        return attention.Cache.empty(rows, slots, layers=c.layers, heads=c.heads, head_width=c.head_width, dtype=self.dtype, kind=kind)


def buffers(caches: tuple[attention.Cache, ...], layer: int) -> tuple:
    return tuple((cache.k[layer], cache.v[layer]) for cache in caches)


def regrow(caches: tuple[attention.Cache, ...], last: attention.Cache | None, grown: list) -> tuple[attention.Cache, ...]:
    """`caches` with the last one replaced by `last`, holding the (k, v) pairs that came out of the layers."""
    if not caches:
        return ()
    k, v = zip(*grown, strict=True)
    return (*caches[:-1], last.replace(k=k, v=v))


def layer_keys(key_B: Array | None, layer: int | Array) -> Array | None:
    return None if key_B is None else jax.vmap(lambda key: jax.random.fold_in(key, layer))(key_B)


def stack(params: Params) -> Params:
    """Per-layer parameters to stacked ones: block_00, block_01, ... become one `block` whose leaves begin with the layer axis."""
    tree = dict(params["params"])
    count = sum(name.startswith("block_") for name in tree)
    layers = [tree.pop(block_name(layer)) for layer in range(count)]
    return {"params": tree | {"block": jax.tree.map(_stacked, *layers)}}


def _stacked(*leaves):
    return (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves)  # what lies on the host stays there


def unstack(params: Params) -> Params:
    """The inverse of `stack`."""
    tree = dict(params["params"])
    stacked = tree.pop("block")
    count = len(jax.tree.leaves(stacked)[0])
    return {"params": tree | {block_name(i): jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)}}


# One compilation serves every layer: they differ in parameters only.
_enter = partial(jax.jit, static_argnums=0)(lambda model, params, *given: model.apply(params, *given, method=Transformer.enter))
_leave = partial(jax.jit, static_argnums=0)(lambda model, params, x_BTD: model.apply(params, x_BTD, method=Transformer.leave))


@partial(jax.jit, static_argnums=0, donate_argnums=4)
def _block(model, tree, x_BTD, fixed, last, sight):
    return Block(model.config).apply({"params": tree}, x_BTD, (*fixed, last), sight)


def apply_dispatched(
    model: Transformer, params: Params, token_BT: Array, *, valid_BT: Array | None = None, caches: tuple[attention.Cache, ...]
) -> tuple[Array, tuple[attention.Cache, ...]]:
    """What `model.apply(..., head="hidden")` gives, by one compiled layer called once a layer from the host: quick to compile at any depth.

    The buffers of the last cache are donated.
    """
    tree = params["params"]
    ends = {"params": {name: part for name, part in tree.items() if not name.startswith("block_")}}
    x_BTD, sight, last = _enter(model, ends, token_BT, valid_BT, None, None, caches)
    grown = []
    for layer in range(model.config.layers):
        *fixed, own = buffers(caches, layer)
        x_BTD, buffer = _block(model, tree[block_name(layer)], x_BTD, tuple(fixed), own, sight)
        grown.append(buffer)
    return _leave(model, ends, x_BTD), regrow(caches, last, grown)


# How a mesh with the axes "fsdp" and "tensor" holds the parameters: the first pattern that takes a whole path gives the layout; `block/...`
# are stacked leaves, which have the layer axis before these (flaxgen.sharding). Kernels are (out, in). A layer needs one sum over "tensor"
# after o and one after down (Shoeybi et al. 2019), and "fsdp" splits the other axis. Vocabularies (8021, 50257) divide by nothing.
_LAYER = r"block(_\d+)?/"
_WIDE, _NARROW = rf"{_LAYER}(attend/[qkv]|mlp/up)/", rf"{_LAYER}(attend/o|mlp/down)/"
SHARDING = (
    (_WIDE + "kernel", PartitionSpec("tensor", "fsdp")),
    (_WIDE + "(bias|kernel_scale)", PartitionSpec("tensor")),
    (_WIDE + "kernel_a", PartitionSpec(None, "fsdp")),
    (_WIDE + "kernel_b", PartitionSpec("tensor", None)),
    (_NARROW + "kernel", PartitionSpec("fsdp", "tensor")),
    (_NARROW + "kernel_scale", PartitionSpec("fsdp")),
    (_NARROW + "kernel_a", PartitionSpec(None, "tensor")),
    (_NARROW + "kernel_b", PartitionSpec("fsdp", None)),
    (r"embed/(token|position)/embedding", PartitionSpec(None, "fsdp")),
    (r".*/bias|(.*/)?norm(_\d)?/scale|embed/token/embedding_scale", PartitionSpec()),
)


def limits(config: Config) -> tuple[sharding.Limit, ...]:
    """What a mesh must divide beside the parameters: a head is whole on a device."""
    return (sharding.Limit("heads", config.heads, ("tensor",)),)
