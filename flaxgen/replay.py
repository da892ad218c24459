"""A store of images that Markov chains have reached, from which later chains go on."""

import jax
import jax.numpy as jnp
from flax import struct

from flaxgen.protocols import Array


@struct.dataclass
class Buffer:
    """image_NYXC uint8, and label_N where labels are kept; the first count are filled; place: where the next goes, around and around."""

    image_NYXC: Array
    label_N: Array | None
    count: Array
    place: Array


def empty(size: int, shape: tuple[int, int, int], *, labels: bool = False) -> Buffer:
    """Room for `size` images of a shape, and their labels."""
    zero = jnp.zeros((), jnp.int32)
    return Buffer(jnp.zeros((size, *shape), jnp.uint8), jnp.zeros((size,), jnp.int32) if labels else None, zero, zero)


def add(buffer: Buffer, image_BYXC: Array, label_B: Array | None = None) -> Buffer:
    """The buffer with images in [0, 1], rounded down to 255ths, in place of the oldest; more rows than it has room for are an error."""
    size, rows = len(buffer.image_NYXC), len(image_BYXC)
    if rows > size:
        raise ValueError(f"{rows} images for a buffer of {size}; give a larger buffer, or fewer rows")
    slot_B = (buffer.place + jnp.arange(rows)) % size
    stored_BYXC = (jnp.clip(image_BYXC, 0, 1) * 255).astype(jnp.uint8)
    return Buffer(
        buffer.image_NYXC.at[slot_B].set(stored_BYXC, unique_indices=True),
        None if buffer.label_N is None else buffer.label_N.at[slot_B].set(label_B, unique_indices=True),
        jnp.minimum(buffer.count + rows, size),
        (buffer.place + rows) % size,
    )


def draw(buffer: Buffer, key_B: Array, fresh: float, label_B: Array | None = None) -> tuple[Array, Array | None, Array]:
    """(image_BYXC in [0, 1], label_B, fresh_B): for each key an image of the buffer, with replacement, or noise, with chance `fresh`.

    Noise is uniform; while the buffer holds no more images than rows are asked for, all rows are, and a buffer without room for more is an
    error. An image v of the buffer comes back as v/256 + U(0, 1/256), with its label where labels are kept; others have the label given.
    """
    size, *shape = buffer.image_NYXC.shape
    if len(key_B) >= size:
        raise ValueError(f"{len(key_B)} rows of a buffer of {size}, which would give noise alone; give a larger buffer, or fewer rows")
    if buffer.label_N is not None and label_B is None:
        raise ValueError("the buffer keeps labels and none are given for what begins with noise; give label_B")

    def one(key):
        which, uniform, chance = (jax.random.fold_in(key, number) for number in range(3))
        slot = jax.random.randint(which, (), 0, jnp.maximum(buffer.count, 1))
        return slot, jax.random.uniform(uniform, shape), jax.random.uniform(chance)

    slot_B, uniform_BYXC, chance_B = jax.vmap(one)(key_B)
    fresh_B = (chance_B <= fresh) | (buffer.count <= len(key_B))
    old_BYXC = (buffer.image_NYXC[slot_B] + uniform_BYXC) / 256
    if buffer.label_N is not None:
        label_B = jnp.where(fresh_B, label_B, buffer.label_N[slot_B])
    return jnp.where(fresh_B[:, None, None, None], uniform_BYXC, old_BYXC), label_B, fresh_B
