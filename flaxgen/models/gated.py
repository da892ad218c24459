"""The couplet writer: the lower line of a couplet as a label for every character of the upper one."""

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flaxgen.models.config import block_name
from flaxgen.models.gated_config import Config
from flaxgen.nn import blocks, convolution, recurrent
from flaxgen.protocols import Array


class Embed(nn.Module):
    """The token embedding."""

    config: Config
    dtype: jnp.dtype

    def setup(self):
        self.token = blocks.Embedding(self.config.vocab, self.config.width, 0.03, self.dtype)

    def __call__(self, token_BT: Array) -> Array:
        return self.token(token_BT)


class Gated(nn.Module):
    """`apply(params, token_BT)` gives logit_BTV in float32: at every place of the upper line, of the character that answers it.

    A gated layer sees taps // 2 places to both sides, six of three taps thirteen in all; the BiLSTM sees the whole line. Rows of one call
    have one length: padding would be read.
    """

    config: Config
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        c = self.config
        self.embed = Embed(c, self.dtype)
        for layer in range(c.layers):
            setattr(self, block_name(layer), convolution.Gated(c.taps) if c.kind == "gated" else recurrent.BiLSTM(c.units))
        self.out = blocks.Dense(c.vocab, (2 / (c.vocab + c.width)) ** 0.5)

    def __call__(self, token_BT: Array, *, key_B: Array | None = None) -> Array:
        """token_BT: ids in [0, vocab). key_B: one dropout key a row, None for none."""
        return self.out(self.hidden(token_BT, key_B=key_B)).astype(jnp.float32)

    def hidden(self, token_BT: Array, *, key_B: Array | None = None) -> Array:
        """hidden_BTD, what the last dense layer reads."""
        x_BTD = blocks.dropout(self.embed(token_BT), key_B, self.config.dropout)
        for layer in range(self.config.layers):
            x_BTD = getattr(self, block_name(layer))(x_BTD)
        return x_BTD


SHARDING = ((r".*/(kernel|embedding)", PartitionSpec(None, "fsdp")), (r".*/bias", PartitionSpec()))
