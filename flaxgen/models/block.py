"""What a Transformer is made of: norms and dense layers of its kind, the embedding, and the block in each wiring."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from flaxgen.models.config import Config
from flaxgen.nn import attention, blocks
from flaxgen.protocols import Array


def norm(config: Config, name: str | None = None) -> nn.Module:
    """A norm of the model's kind."""
    made = blocks.BareNorm if config.norm == "bare" else blocks.LayerNorm
    return made(config.epsilon, name=name)


def dense(config: Config, out: int, name: str | None = None) -> blocks.Dense:
    """A dense layer of the model's kind."""
    return blocks.Dense(out, config.init_range, config.norm != "bare", name=name)


class Embed(nn.Module):
    """Token, position and segment embeddings, summed, normed and mapped to the model's width."""

    config: Config
    dtype: jnp.dtype

    def setup(self):
        c = self.config
        self.token = blocks.Embedding(c.vocab, c.embedding, c.init_range, self.dtype)
        if c.position == "learned":
            self.position = blocks.Embedding(c.positions, c.embedding, c.init_range, self.dtype)
        if c.segments:
            self.segment = blocks.Embedding(c.segments, c.embedding, c.init_range, self.dtype)
        if c.embedding_norm == "layer":
            self.norm = norm(c)
        if c.embedding != c.width:
            self.map = dense(c, c.width)

    def __call__(self, token_BT: Array, position_BT: Array, segment_BT: Array) -> Array:
        c = self.config
        x_BTD = self.token(token_BT)
        if c.position == "learned":
            x_BTD += self.position(position_BT)
        if c.segments:
            x_BTD += self.segment(segment_BT)
        if c.embedding_norm == "layer":
            x_BTD = self.norm(x_BTD)
        return x_BTD if c.embedding == c.width else self.map(x_BTD)


class Block(nn.Module):
    """One layer: attention and MLP in the wiring of `config` (Radford et al. 2019; Devlin et al. 2019; imcaspar/gpt2-ml)."""

    config: Config

    @nn.compact
    def __call__(self, x_BTD: Array, buffers: tuple, sight: attention.Sight, key_B: Array | None = None) -> tuple[Array, tuple]:
        c, bias = self.config, self.config.norm != "bare"
        attend = attention.Attention(c.heads, c.init_range, bias, name="attend")
        mlp = blocks.MLP(c.hidden, c.activation, c.init_range, bias, name="mlp")
        norm_0, norm_1 = (norm(c, f"norm_{i}") for i in range(2))
        keys = [blocks.keys(key_B, number) for number in range(2)]
        drop = partial(blocks.dropout, rate=c.dropout)
        attended_BTD, buffer = attend(norm_0(x_BTD) if c.wiring == "pre" else x_BTD, buffers, sight)
        h_BTD = x_BTD + drop(attended_BTD, keys[0])
        if c.wiring == "pre":
            return h_BTD + drop(mlp(norm_1(h_BTD)), keys[1]), buffer
        h_BTD, inner_BTD = (norm_0(h_BTD),) * 2 if c.wiring == "post" else (h_BTD, norm_0(h_BTD))
        return norm_1(h_BTD + drop(mlp(inner_BTD), keys[1])), buffer
