"""Positions as sines and cosines: angles by which RoFormer turns, and the vectors of distances that NEZHA adds."""

import jax.numpy as jnp

from flaxgen.protocols import Array

FARTHEST = 64  # distances beyond it count as it


def angles(position_BT: Array, width: int) -> Array:
    """angle_BTK = position / 10000^(2 i / K), each twice: of the elements 2 i and 2 i + 1 (Vaswani et al. 2017, section 3.5)."""
    frequency_K = jnp.repeat(10000.0 ** (-2 * jnp.arange(width // 2) / width), 2)
    return position_BT[..., None].astype(jnp.float32) * frequency_K[None, None]


def sines(distance_BTS: Array, width: int, dtype) -> Array:
    """vector_BTSK of distances (key - query) of at most FARTHEST: sin and cos in turn of the angles of distance + FARTHEST.

    The rows 0 to 128 of a table of sines, as NEZHA has them (Wei et al. 2019; bert4keras, RelativePositionEmbedding).
    """
    row_N = jnp.arange(2 * FARTHEST + 1)
    angle_NK = angles(row_N[None], width)[0]
    table_NK = jnp.where(jnp.arange(width)[None] % 2 == 0, jnp.sin(angle_NK), jnp.cos(angle_NK)).astype(dtype)
    return jnp.take(table_NK, jnp.clip(distance_BTS, -FARTHEST, FARTHEST) + FARTHEST, axis=0)
