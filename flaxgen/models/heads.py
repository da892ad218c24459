"""What can be read off the last layer of a BERT or an ELECTRA besides logits by the token embedding."""

import flax.linen as nn
import jax.numpy as jnp

from flaxgen.models.block import dense, norm
from flaxgen.models.config import Config
from flaxgen.nn import blocks
from flaxgen.protocols import Array


class Masked(nn.Module):
    """What BERT reads a token's logits off: norm(activation(dense(x))), and the bias of the vocabulary."""

    config: Config

    def setup(self):
        c = self.config
        self.dense, self.norm = dense(c, c.embedding), norm(c)
        self.bias = self.param("bias", nn.initializers.zeros, (c.vocab,))

    def __call__(self, x_BTD: Array) -> Array:
        return self.norm(blocks.activate(self.dense(x_BTD), self.config.activation))


class Pool(nn.Module):
    """tanh(dense(x)) of the first token."""

    config: Config

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        return jnp.tanh(dense(self.config, self.config.width, "dense")(x_BTD[:, :1]))


class NextSentence(nn.Module):
    """Two logits of what the pool gives: does the second segment follow the first (0), or not (1)?"""

    config: Config

    @nn.compact
    def __call__(self, pooled_BTD: Array) -> Array:
        return dense(self.config, 2, "dense")(pooled_BTD).astype(jnp.float32)


class Discriminator(nn.Module):
    """One logit a token: has it been replaced (Clark et al. 2020, ELECTRA)?"""

    config: Config

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        inner_BTD = blocks.activate(dense(self.config, self.config.width, "dense")(x_BTD), self.config.activation)
        return dense(self.config, 1, "out")(inner_BTD).astype(jnp.float32)
