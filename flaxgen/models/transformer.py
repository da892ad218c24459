"""The Transformer: GPT-2, GPT2_ML, BERT and its kin as one module, and how a mesh holds it."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from flaxgen import sharding
from flaxgen.models import block, heads
from flaxgen.models.config import Config, block_name
from flaxgen.nn import attention, blocks, sinusoidal
from flaxgen.protocols import Array, Params

Head = Literal["logits", "mlm", "hidden", "pool", "nsp", "discriminator"]


class Transformer(nn.Module):
    """Encoder, prefix or causal language model; `apply(params, token_BT)` gives (logit_BTV in float32, caches).

    dtype is that of the activations and of the caches it makes; norms, softmax and logits are float32 whatever it is.
    """

    config: Config
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        c = self.config
        self.embed = block.Embed(c, self.dtype)
        for layer in range(c.stored_layers):
            setattr(self, block_name(layer), block.Block(c))
        if c.wiring == "pre":
            self.norm = block.norm(c)
        if "mlm" in c.outputs:
            self.mlm = heads.Masked(c)
        elif c.embedding != c.width and "tied" in c.outputs:
            self.map_out = blocks.Dense(c.embedding, c.init_range, bias=False)
        if "pool" in c.outputs:
            self.pool = heads.Pool(c)
        if "nsp" in c.outputs:
            self.nsp = heads.NextSentence(c)
        if "discriminator" in c.outputs:
            self.discriminator = heads.Discriminator(c)

    def __call__(
        self,
        token_BT: Array,
        *,
        valid_BT: Array | None = None,
        segment_BT: Array | None = None,
        rank_BT: Array | None = None,
        floor_BT: Array | None = None,
        position_BT: Array | None = None,
        caches: tuple[attention.Cache, ...] = (),
        key_B: Array | None = None,
        head: Head | None = None,
    ) -> tuple[Array, tuple[attention.Cache, ...]]:
        """What `head` reads off the last layer, and `caches` with the last one grown by these tokens.

        token_BT: ids in [0, vocab). valid_BT: False where a token is padding, on either side. segment_BT: in [0, segments), by default 0,
        and 1 in a UniLM that has more caches than one: what stands behind a prompt is its answer.
        rank_BT: who sees whom (see flaxgen.nn.attention), by default as the config's `application` has it. floor_BT: the least rank a token
        sees, that of its document's first token; by default all. position_BT: in [0, positions), by default how many came before, or
        rank - floor where there are floors. caches: read left to right; without any, the tokens see each other and nothing is kept. key_B:
        one dropout key a row, None for none.
        head: "logits" (also called "mlm"), logit_BTV after every token, is the default where the model has them, else "hidden": hidden_BTD
        of the last layer. "pool" gives pooled_BD, "nsp" logit_BN of (follows, does not), "discriminator" logit_BT.
        What is given for padding means nothing. Ranges are checked by the callers that see concrete values (flaxgen.loop).
        """
        head = self._head(head)
        x_BTD, sight, last = self.enter(token_BT, valid_BT, rank_BT, position_BT, caches, floor_BT, segment_BT)
        grown = []
        for layer in range(self.config.layers):
            own = getattr(self, block_name(layer % self.config.stored_layers))
            x_BTD, buffer = own(x_BTD, buffers(caches, layer), sight, layer_keys(key_B, layer))
            grown.append(buffer)
        hidden_BTD = self.leave(x_BTD)
        if self.is_initializing():
            self.read_off(hidden_BTD)
        return self._read(hidden_BTD, head), regrow(caches, last, grown)

    def _head(self, head: Head | None) -> Head:
        outputs = self.config.outputs
        if head is None:
            return "logits" if self.config.speaks else "hidden"
        there = ["hidden", *(["logits", "mlm"] if self.config.speaks else []), *outputs]
        if head not in there:
            raise ValueError(f"head={head!r}: wanted one of {', '.join(sorted({*there} - {'tied'}))}, which this model has")
        return "logits" if head == "mlm" else head

    def _read(self, hidden_BTD: Array, head: Head) -> Array:
        if head == "hidden":
            return hidden_BTD
        if head == "logits":
            return self.unembed(hidden_BTD)
        if head == "discriminator":
            return self.discriminator(hidden_BTD)[..., 0]
        pooled_BTD = self.pool(hidden_BTD)
        return pooled_BTD[:, 0] if head == "pool" else self.nsp(pooled_BTD)[:, 0]

    def read_off(self, hidden_BTD: Array) -> list[Array]:
        """What every head of the model gives."""
        return [self._read(hidden_BTD, "logits" if name in ("tied", "mlm") else name) for name in self.config.outputs]

    def enter(self, token_BT, valid_BT=None, rank_BT=None, position_BT=None, caches=(), floor_BT=None, segment_BT=None):
        """Embedded tokens, what they may see, and the last cache with their ranks; keys and values come from the layers."""
        c = self.config
        if valid_BT is None and c.position == "learned" and token_BT.shape[1] > c.positions:
            raise ValueError(f"{token_BT.shape[1]} tokens a row; the model has {c.positions} positions. Cut the rows or use a larger model")
        if valid_BT is None and caches and token_BT.shape[1] > caches[-1].rank_BS.shape[1]:
            raise ValueError(f"{token_BT.shape[1]} tokens a row for a cache of {caches[-1].rank_BS.shape[1]} slots; make it larger")
        if segment_BT is None and not caches and c.application == "unilm" and rank_BT is None and not self.is_initializing():
            raise ValueError('segment_BT is missing; application="unilm" reads it to tell the text (0) from its answer (1)')
        valid_BT = jnp.ones(token_BT.shape, bool) if valid_BT is None else valid_BT.astype(bool)
        if segment_BT is None:
            segment_BT = jnp.full_like(token_BT, c.application == "unilm" and len(caches) > 1)
        before_BT = jnp.cumsum(valid_BT, axis=1, dtype=jnp.int32) - 1
        for cache in caches:
            before_BT += jnp.repeat(cache.length_B, len(token_BT) // len(cache.length_B), total_repeat_length=len(token_BT))[:, None]
        before_BT = jnp.maximum(before_BT, 0)
        rank_BT = self._ranks(before_BT, valid_BT, segment_BT, caches) if rank_BT is None else rank_BT
        if position_BT is None:
            position_BT = before_BT if floor_BT is None else jnp.maximum(rank_BT - floor_BT, 0)
        sight, last = attention.look(rank_BT, valid_BT, caches, floor_BT, position_BT if c.position == "relative" else None)
        if c.position == "rotary":
            sight = sight.replace(angle_BTK=sinusoidal.angles(position_BT, c.head_width))
        if c.position == "relative":
            vectors = tuple(sinusoidal.sines(distance_BTS, c.head_width, self.dtype) for distance_BTS in sight.distances)
            sight = sight.replace(distances=None, vectors=vectors)
        return self.embed(token_BT, position_BT, segment_BT), sight, last

    def _ranks(self, before_BT: Array, valid_BT: Array, segment_BT: Array, caches: tuple[attention.Cache, ...]) -> Array:
        if self.config.application == "lm":
            return before_BT + 1
        if self.config.application == "encoder":
            return jnp.ones_like(before_BT)
        rank_BT = jnp.cumsum(segment_BT * valid_BT, axis=1, dtype=jnp.int32)
        highest_B = jnp.ones(len(rank_BT), jnp.int32)
        for cache in caches:
            seen_B = jnp.where(cache.rank_BS == attention.HIDDEN, 0, cache.rank_BS).max(axis=1)
            highest_B = jnp.maximum(highest_B, jnp.repeat(seen_B, len(rank_BT) // len(seen_B), total_repeat_length=len(rank_BT)))
        return rank_BT + highest_B[:, None]

    def leave(self, x_BTD: Array) -> Array:
        """What the heads read, from what the last layer gave."""
        return self.norm(x_BTD) if self.config.wiring == "pre" else x_BTD

    def unembed(self, hidden_BTD: Array) -> Array:
        """logit_BTV in float32 by the token embedding."""
        logit_BTV = self.embed.token.product(self.before_product(hidden_BTD))
        return logit_BTV + self.mlm.bias.astype(jnp.float32)[None, None] if "mlm" in self.config.outputs else logit_BTV

    def before_product(self, hidden_BTD: Array) -> Array:
        """What is multiplied by the token embedding to give logits, before the bias of the vocabulary."""
        if "mlm" in self.config.outputs:
            return self.mlm(hidden_BTD)
        return hidden_BTD if self.config.embedding == self.config.width else self.map_out(hidden_BTD)

    def cache(self, rows: int, slots: int, kind: attention.Kind = "float") -> attention.Cache:
        """An empty cache for `rows` rows of up to `slots` tokens; the caller sees to it that no row gets more.

        kind: "float" holds keys and values in the model's dtype, "int8" in a byte each and a scale for every head of a token.
        """
        c = self.config
        shape = {"layers": c.layers, "heads": c.heads, "head_width": c.head_width}
        return attention.Cache.empty(rows, slots, **shape, dtype=self.dtype, kind=kind, positions=c.position == "relative")


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
    (r"embed/(token|position|segment)/embedding", PartitionSpec(None, "fsdp")),
    (r"(embed/map|map_out|mlm/dense|pool/dense|nsp/dense|discriminator/(dense|out))/kernel(_scale)?", PartitionSpec()),
    (r".*/bias|(.*/)?norm(_\d)?/scale|embed/token/embedding_scale", PartitionSpec()),
)


def limits(config: Config) -> tuple[sharding.Limit, ...]:
    """What a mesh must divide beside the parameters: a head is whole on a device."""
    return (sharding.Limit("heads", config.heads, ("tensor",)),)
