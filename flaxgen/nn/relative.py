"""Attention whose scores know the distance between two tokens by buckets, and neither scale nor bias (Raffel et al. 2020, section 2.1).

A bucket for every distance up to a quarter of them, then buckets that widen as powers, and the last for all that is farther. With 8 buckets
and distance 20, seen from the query:

    key is      ... 20  10   5   3   2   1 before   0   1   2   3   5 after ...
    "both"           3   3   2   2   2   1          0   5   6   6   6
    "before"         7   6   4   3   2   1          0   0   0   0   0
"""

import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from flaxgen.nn import attention, blocks
from flaxgen.protocols import Array

Sees = Literal["both", "before"]


@functools.cache
def table(buckets: int, distance: int) -> np.ndarray:
    """The bucket of each of the distances 0 to `distance` in one direction; exact, where logarithms round."""
    near = buckets // 2
    wide = buckets - near
    found, bucket = [], 0
    for far in range(distance + 1):
        # bucket - near is the greatest k with (far / near)^wide >= (distance / near)^k
        while bucket + 1 < buckets and (
            far > bucket if bucket < near else far**wide * near ** (bucket + 1 - near) >= distance ** (bucket + 1 - near) * near**wide
        ):
            bucket += 1
        found.append(bucket)
    return np.array(found, np.int32)


def bucket(distance_BTS: Array, buckets: int, distance: int, sees: Sees) -> Array:
    """bucket_BTS of distances, position of the key - that of the query."""
    one_way = buckets // 2 if sees == "both" else buckets
    before_BTS = jnp.clip(-distance_BTS, 0, distance) if sees == "before" else jnp.minimum(jnp.abs(distance_BTS), distance)
    bucket_BTS = jnp.asarray(table(one_way, distance))[before_BTS]
    return bucket_BTS if sees == "before" else jnp.where(distance_BTS > 0, bucket_BTS + one_way, bucket_BTS)


class Biases(nn.Module):
    """What distances add to the scores of each head, of a table that all layers share: bias_BHTS of each distance_BTS, in float32."""

    heads: int
    buckets: int
    distance: int
    sees: Sees
    init_range: float

    @nn.compact
    def __call__(self, distances: tuple[Array, ...]) -> tuple[Array, ...]:
        init = nn.initializers.truncated_normal(self.init_range)
        embedding = self.param("embedding", init, (self.buckets, self.heads)).astype(jnp.float32)
        found = (bucket(distance_BTS, self.buckets, self.distance, self.sees) for distance_BTS in distances)
        return tuple(jnp.take(embedding, bucket_BTS, axis=0).transpose(0, 3, 1, 2) for bucket_BTS in found)


class Attention(nn.Module):
    """softmax(q k + bias) v over heads of any width; what it is called for says whose keys and values these are.

    Kernels start as in mesh-tensorflow: q by (width head_width)^-1/2, k and v by width^-1/2, o by (heads head_width)^-1/2.
    """

    width: int
    heads: int
    head_width: int

    def setup(self):
        inner = self.heads * self.head_width
        self.q = blocks.Dense(inner, (self.width * self.head_width) ** -0.5, bias=False)
        self.k = blocks.Dense(inner, self.width**-0.5, bias=False)
        self.v = blocks.Dense(inner, self.width**-0.5, bias=False)
        self.o = blocks.Dense(self.width, inner**-0.5, bias=False)

    def __call__(
        self, x_BTD: Array, buffers: tuple, sight: attention.Sight, biases: tuple[Array, ...]
    ) -> tuple[Array, tuple[attention.Buffer, attention.Buffer]]:
        """Tokens among themselves and those of the caches, and the last of the buffers grown, () without any."""
        if not buffers:
            k_BTHK, v_BTHK = self.keys(x_BTD)
            return self.read(x_BTD, ((k_BTHK.transpose(0, 2, 3, 1), v_BTHK.transpose(0, 2, 1, 3)),), sight.masks, biases), ()
        *fixed, (k_BHKS, v_BHSK) = buffers
        grown = attention.append(k_BHKS, v_BHSK, *self.keys(x_BTD), sight.slot_BT)
        return self.read(x_BTD, (*fixed, grown), sight.masks, biases), grown

    def keys(self, x_BTD: Array) -> tuple[Array, Array]:
        """k_BTHK and v_BTHK of tokens."""
        return self._in_heads(self.k(x_BTD)), self._in_heads(self.v(x_BTD))

    def read(self, x_BTD: Array, buffers: tuple, masks: tuple[Array, ...], biases: tuple[Array, ...] | None = None) -> Array:
        """What tokens make of keys and values that are there already."""
        keys, values = zip(*buffers, strict=True)
        y_BTHK = attention.attend(self._in_heads(self.q(x_BTD)), keys, values, masks, scale=1.0, biases=biases)
        return self.o(y_BTHK.reshape(*x_BTD.shape[:2], -1))

    def _in_heads(self, x_BTD: Array) -> Array:
        return x_BTD.reshape(*x_BTD.shape[:2], self.heads, self.head_width)
