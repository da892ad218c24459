"""Densities learnt by likelihood: bits per dimension of images under a flow."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from flaxgen.models import flow
from flaxgen.protocols import Array, Params


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Bits per dimension of images with uniform noise within their levels; an upper bound of what the levels themselves take.

    A batch holds image_BYXC uint8, and may hold row_B (a row's number in the whole batch, by which its noise is drawn; absent 0, 1, ...)
    and weight_B (0 for a row that does not count; absent 1).
    """

    model: flow.Flow

    def init(self, key):
        c = self.model.config
        return self.model.init(key, jnp.zeros((1, c.size, c.size, c.channels)))

    def begin(self, params: Params, key: Array, image_BYXC: Array) -> Params:
        """Parameters whose scales and shifts are fitted to the first images, some hundreds, as training should begin."""
        fitted = jax.jit(partial(self.model.apply, method=flow.Flow.fitted))
        return fitted(params, self.widened(key, {"image_BYXC": image_BYXC}))

    def carry(self, key):
        return ()

    def loss(self, params, carry, key, batch):
        bits_B = self.bits(params, key, batch)
        weight_B = batch.get("weight_B", jnp.ones(len(bits_B)))
        weight = weight_B.sum()
        return (bits_B * weight_B).sum() / jnp.maximum(weight, 1), (carry, {"weight": weight})

    def export(self, params, carry):
        return params

    def bits(self, params: Params, key: Array, batch) -> Array:
        """Bits per dimension of each image."""
        log_prob_B = self.model.apply(params, self.widened(key, batch), method=flow.Flow.log_prob)
        return flow.bits(log_prob_B, self.model.config)

    def widened(self, key: Array, batch) -> Array:
        """The images as numbers from -1 to 1, with noise."""
        image_BYXC = batch["image_BYXC"]
        row_B = batch.get("row_B", jnp.arange(len(image_BYXC)))
        noise_BYXC = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), image_BYXC.shape[1:]))(row_B)
        return flow.widen(image_BYXC, noise_BYXC, self.model.config.bits)
