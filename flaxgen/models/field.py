"""Energies of points of few numbers: densities that can be drawn, and integrated on a grid."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flaxgen.models.config import block_name
from flaxgen.models.field_config import Config
from flaxgen.nn import blocks
from flaxgen.protocols import Array


class Field(nn.Module):
    """`apply(params, x_BD)` gives energy_B in float32: a perceptron with swish, smooth as Langevin dynamics want it, and the bowl.

    label_B and key_B are there because every energy has them; they must be None.
    """

    config: Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BD: Array, label_B: Array | None = None, *, key_B: Array | None = None) -> Array:
        c = self.config
        if label_B is not None:
            raise ValueError("label_B is given, and the energy of points knows no classes; wanted None")
        h_BTD = x_BD.astype(self.dtype)[:, None]
        for layer, units in enumerate(c.hidden):
            h_BTD = jax.nn.silu(blocks.Dense(units, (2 / h_BTD.shape[-1]) ** 0.5, name=block_name(layer))(h_BTD))
        energy_B = blocks.Dense(1, h_BTD.shape[-1] ** -0.5, bias=False, name="out")(h_BTD)[:, 0, 0].astype(jnp.float32)
        return energy_B if c.bowl is None else energy_B + jnp.square(x_BD.astype(jnp.float32)).sum(axis=-1) / (2 * c.bowl**2)


SHARDING = ((r".*", PartitionSpec()),)
