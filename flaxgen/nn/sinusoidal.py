"""Positions as sines and cosines: angles by which RoFormer turns, and the vectors of distances that NEZHA adds."""

import jax.numpy as jnp

from flaxgen.protocols import Array

FARTHEST = 64  # distances beyond it count as it


def angles(position_BT: Array, width: int) -> Array:
    """angle_BTK = position / 10000^(2 i / K), each twice: of the elements 2 i and 2 i + 1 (Vaswani et al. 2017, section 3.5)."""
    frequency_K = jnp.repeat(10000.0 ** (-2 * jnp.arange(width // 2) / width), 2)
    return position_BT[..., None].astype(jnp.float32) * frequency_K[None, None]


def turn(x_BTHK: Array, angle_BTK: Array) -> Array:
    """Pairs (x_0, x_1), (x_2, x_3), ... turned by the angles of each token (Su et al. 2021, eq. 34), in float32."""
    wide_BTHK = x_BTHK.astype(jnp.float32)
    side_BTHK = jnp.stack([-wide_BTHK[..., 1::2], wide_BTHK[..., ::2]], axis=-1).reshape(x_BTHK.shape)
    angle_BTHK = angle_BTK[:, :, None]
    return (wide_BTHK * jnp.cos(angle_BTHK) + side_BTHK * jnp.sin(angle_BTHK)).astype(x_BTHK.dtype)


def sines(distance_BTS: Array, width: int, dtype) -> Array:
    """vector_BTSK of distances (key - query) of at most FARTHEST: sin and cos in turn of the angles of distance + FARTHEST.

    The rows 0 to 128 of a table of sines, as NEZHA has them (Wei et al. 2019; bert4keras, RelativePositionEmbedding).
    """
    row_N = jnp.arange(2 * FARTHEST + 1)
    angle_NK = angles(row_N[None], width)[0]
    table_NK = jnp.where(jnp.arange(width)[None] % 2 == 0, jnp.sin(angle_NK), jnp.cos(angle_NK)).astype(dtype)
    return jnp.take(table_NK, jnp.clip(distance_BTS, -FARTHEST, FARTHEST) + FARTHEST, axis=0)
