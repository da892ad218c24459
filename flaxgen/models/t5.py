"""T5: an encoder, and a decoder that reads what the encoder made; T5 1.0, T5 1.1 and mT5 as one module."""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxgen.models.config import block_name
from flaxgen.models.t5_config import Config
from flaxgen.nn import attention, blocks, quantized, relative
from flaxgen.protocols import Array

Caches = tuple[attention.Cache, ...]


class MLP(nn.Module):
    """down(relu(up(x))), or down(gelu(gate(x)) * up(x))."""

    config: Config

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        c = self.config
        x_BTF = blocks.Dense(c.hidden, c.width**-0.5, bias=False, name="up")(x_BTD)
        if c.activation == "gated_gelu":
            gate_BTF = blocks.Dense(c.hidden, c.width**-0.5, bias=False, name="gate")(x_BTD)
            x_BTF = jax.nn.gelu(gate_BTF, approximate=True) * x_BTF
        else:
            x_BTF = jax.nn.relu(x_BTF)
        return blocks.Dense(c.width, c.hidden**-0.5, bias=False, name="down")(x_BTF)


class Block(nn.Module):
    """One layer: x + A(n(x)) for attention among its own, for attention to a source where it has one, and for the MLP."""

    config: Config
    reads: Literal["own", "own and source"]

    def setup(self):
        c = self.config
        self.attend = relative.Attention(c.width, c.heads, c.head_width)
        self.mlp = MLP(c)
        self.norm_0, self.norm_1 = blocks.ScaleNorm(c.epsilon), blocks.ScaleNorm(c.epsilon)
        if self.reads == "own and source":
            self.cross = relative.Attention(c.width, c.heads, c.head_width)
            self.norm_2 = blocks.ScaleNorm(c.epsilon)

    def __call__(self, x_BTD: Array, buffers: tuple, sight: attention.Sight, biases, source=None, key_B=None) -> tuple[Array, tuple]:
        """source: its keys and values, and mask_BTS of who sees them."""
        keys = [blocks.keys(key_B, number) for number in range(3)]
        drop = partial(blocks.dropout, rate=self.config.dropout)
        attended_BTD, grown = self.attend(self.norm_0(x_BTD), buffers, sight, biases)
        x_BTD += drop(attended_BTD, keys[0])
        if source is None:
            return x_BTD + drop(self.mlp(self.norm_1(x_BTD)), keys[1]), grown
        buffer, mask_BTS = source
        x_BTD += drop(self.cross.read(self.norm_1(x_BTD), (buffer,), (mask_BTS,)), keys[1])
        return x_BTD + drop(self.mlp(self.norm_2(x_BTD)), keys[2]), grown

    def source_keys(self, x_BTD: Array) -> tuple[Array, Array]:
        return self.cross.keys(x_BTD)


class Side(nn.Module):
    """The layers of encoder or decoder: a table of distances, blocks and a final norm."""

    config: Config
    layers: int
    sees: relative.Sees
    reads: Literal["own", "own and source"]

    def setup(self):
        c = self.config
        self.relative = relative.Biases(c.heads, c.buckets, c.distance, self.sees, c.width**-0.5)
        for layer in range(self.layers):
            setattr(self, block_name(layer), Block(c, self.reads))
        self.norm = blocks.ScaleNorm(c.epsilon)

    def __call__(self, x_BTD: Array, sight: attention.Sight, caches: Caches = (), source=None, key_B=None) -> tuple[Array, list]:
        """hidden_BTD after the norm, and each layer's grown buffers. source: a cache and mask_BTS of who sees it."""
        biases, grown = self.relative(sight.distances), []
        for layer in range(self.layers):
            read = None if source is None else ((source[0].k[layer], source[0].v[layer]), source[1])
            buffers = tuple((cache.k[layer], cache.v[layer]) for cache in caches)
            x_BTD, buffer = getattr(self, block_name(layer))(x_BTD, buffers, sight, biases, read, blocks.keys(key_B, layer))
            grown.append(buffer)
        return self.norm(x_BTD), grown

    def source_keys(self, x_BTD: Array) -> list[tuple[Array, Array]]:
        """Keys and values of a source for each layer."""
        return [getattr(self, block_name(layer)).source_keys(x_BTD) for layer in range(self.layers)]


class Embed(nn.Module):
    """The token embedding of both sides."""

    config: Config
    dtype: jnp.dtype

    def setup(self):
        self.token = blocks.Embedding(self.config.vocab, self.config.width, 1.0, self.dtype)

    def __call__(self, token_BT: Array) -> Array:
        return self.token(token_BT)

    def product(self, x_BTD: Array) -> Array:
        return self.token.product(x_BTD)


class Head(nn.Module):
    """logit_BTV in float32 by a kernel of its own."""

    vocab: int

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        kernel_VD = self.param("kernel", nn.initializers.truncated_normal(x_BTD.shape[-1] ** -0.5), (self.vocab, x_BTD.shape[-1]))
        scaled = self.has_variable("params", "kernel_scale")
        blocks.check_scale("kernel", kernel_VD, scaled)
        if scaled:
            return quantized.project(x_BTD, kernel_VD, self.get_variable("params", "kernel_scale"), jnp.float32)
        return blocks.project(x_BTD, kernel_VD, jnp.float32)


class T5(nn.Module):
    """An encoder-decoder; `apply(params, source_BT, target_BT, valid_BT=...)` gives (logit_BTV in float32, caches).

    dtype is that of the activations and of the caches it makes; norms, softmax and logits are float32 whatever it is.
    """

    config: Config
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        c = self.config
        self.embed = Embed(c, self.dtype)
        self.encoder = Side(c, c.layers, "both", "own")
        self.decoder = Side(c, c.decoder_layers, "before", "own and source")
        if c.head == "own":
            self.head = Head(c.vocab)

    def __call__(
        self,
        source_BT: Array | None,
        target_BT: Array,
        *,
        valid_BT: Array | None = None,
        target_valid_BT: Array | None = None,
        caches: Caches = (),
        key_B: Array | None = None,
        head: Literal["logits", "hidden"] = "logits",
    ) -> tuple[Array, Caches]:
        """Logits after every token of the target, and the caches (source, *answer) with the last one grown by these tokens.

        source_BT: ids in [0, vocab), or None where `caches` begins with what `encode` gave. target_BT: begins with config.start; it sees
        itself from left to right. valid_BT, target_valid_BT: False where a token of source or target is padding, on either side.
        caches: those of the answer so far, read left to right, after the source's where source_BT is None; without any of the answer
        nothing of it is kept. key_B: one dropout key a row, None for none. head: "hidden" gives what `unembed` reads in place of logits.
        Logits of padding mean nothing.

            logits, (source, answer) = model.apply(params, source_BT, target_BT, caches=(model.cache(rows, 64),))
            logits, (source, answer) = model.apply(params, None, next_BT, caches=(source, answer))
        """
        if head not in ("logits", "hidden"):
            raise ValueError(f'head={head!r}: wanted "logits" or "hidden"')
        if source_BT is not None:
            caches = (self.encode(source_BT, valid_BT, key_B=key_B), *caches)
        elif not caches:
            raise ValueError("source_BT is None and there are no caches; give the source's tokens, or the cache that `encode` made of them")
        source, own = caches[0], caches[1:]
        rows, steps = target_BT.shape
        valid_BT = jnp.ones(target_BT.shape, bool) if target_valid_BT is None else target_valid_BT.astype(bool)
        if target_valid_BT is None and own and steps > own[-1].rank_BS.shape[1]:
            raise ValueError(f"{steps} tokens a row for a cache of {own[-1].rank_BS.shape[1]} slots; make it larger")
        position_BT = jnp.cumsum(valid_BT, axis=1, dtype=jnp.int32) - 1
        for cache in own:
            position_BT += jnp.repeat(cache.length_B, rows // len(cache.length_B), total_repeat_length=rows)[:, None]
        position_BT = jnp.maximum(position_BT, 0)
        sight, last = attention.look(position_BT + 1, valid_BT, own, position_BT=position_BT)
        count = len(source.rank_BS)
        mask_BTS = jnp.broadcast_to(source.rank_BS[:, None] <= 0, (count, rows // count * steps, source.rank_BS.shape[1]))
        drop = _drops(key_B, self.config.dropout, 1)
        hidden_BTD, grown = self.decoder(drop(self.embed(target_BT)), sight, own, (source, mask_BTS), blocks.keys(key_B, 2))
        if own:
            k, v = zip(*grown, strict=True)
            caches = (*caches[:-1], last.replace(k=k, v=v))
        return hidden_BTD if head == "hidden" else self.unembed(hidden_BTD), caches

    def encode(
        self, source_BT: Array, valid_BT: Array | None = None, *, kind: attention.Kind = "float", key_B: Array | None = None
    ) -> attention.Cache:
        """What the decoder reads of sources: keys and values of each of its layers, all of rank 0."""
        c = self.config
        hidden_BTD, valid_BT = self.encoded(source_BT, valid_BT, key_B=key_B)
        sizes = {"layers": c.decoder_layers, "heads": c.heads, "head_width": c.head_width, "dtype": self.dtype, "kind": kind}
        empty = attention.Cache.empty(*source_BT.shape, **sizes)
        sight, cache = attention.look(jnp.zeros(source_BT.shape, jnp.int32), valid_BT, (empty,))
        pairs = zip(empty.k, empty.v, self.decoder.source_keys(hidden_BTD), strict=True)
        k, v = zip(*(attention.append(*buffer, *new, sight.slot_BT) for *buffer, new in pairs), strict=True)
        return cache.replace(k=k, v=v)

    def encoded(self, source_BT: Array, valid_BT: Array | None = None, *, key_B: Array | None = None) -> tuple[Array, Array]:
        """hidden_BTD, the encoder's own output, and which of it is no padding."""
        valid_BT = jnp.ones(source_BT.shape, bool) if valid_BT is None else valid_BT.astype(bool)
        position_BT = jnp.maximum(jnp.cumsum(valid_BT, axis=1, dtype=jnp.int32) - 1, 0)
        sight, _ = attention.look(jnp.ones(source_BT.shape, jnp.int32), valid_BT, (), position_BT=position_BT)
        drop = _drops(key_B, self.config.dropout, 3)
        return self.encoder(drop(self.embed(source_BT)), sight, key_B=blocks.keys(key_B, 4))[0], valid_BT

    def unembed(self, hidden_BTD: Array) -> Array:
        """logit_BTV in float32."""
        x_BTD = self.before_product(hidden_BTD)
        return self.head(x_BTD) if self.config.head == "own" else self.embed.product(x_BTD)

    def before_product(self, hidden_BTD: Array) -> Array:
        """What the table of the head is multiplied with."""
        return hidden_BTD if self.config.head == "own" else hidden_BTD * self.config.width**-0.5

    def cache(self, rows: int, slots: int, kind: attention.Kind = "float") -> attention.Cache:
        """An empty cache for answers of up to `slots` tokens; the caller sees to it that no row gets more."""
        c = self.config
        sizes = {"layers": c.decoder_layers, "heads": c.heads, "head_width": c.head_width, "dtype": self.dtype, "kind": kind}
        return attention.Cache.empty(rows, slots, positions=True, **sizes)


class Decoder(T5):
    """The same model with the face of a causal language model, whose first cache is what `encode` made of the sources."""

    def __call__(
        self, token_BT: Array, *, valid_BT: Array | None = None, caches: Caches = (), head: Literal["logits", "hidden"] = "logits"
    ) -> tuple[Array, Caches]:
        return super().__call__(None, token_BT, target_valid_BT=valid_BT, caches=caches, head=head)


def _drops(key_B: Array | None, rate: float, number: int):
    return partial(blocks.dropout, key_B=blocks.keys(key_B, number), rate=rate)
