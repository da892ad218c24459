"""Random affine transformations of images: mirrored, turned, resized and shifted."""

import math

import jax
import jax.numpy as jnp

from flaxgen.protocols import Array

SIZES = (0.5, 1.25)  # least and largest factor of height and width; its logarithm is uniform
SHIFT = 1 / 7  # of height and width, at most, in each direction


def transformed(image_YXC: Array, key: Array) -> Array:
    """The image mirrored by chance, turned by any angle, resized and shifted; between pixels linear, black where it does not reach."""
    mirror, turn, resize, shift = jax.random.split(key, 4)
    angle = jax.random.uniform(turn, maxval=2 * math.pi)
    factor = jnp.exp(jax.random.uniform(resize, minval=math.log(SIZES[0]), maxval=math.log(SIZES[1])))
    sign = jnp.where(jax.random.bernoulli(mirror), -1, 1)
    shift_y, shift_x = jax.random.uniform(shift, (2,), minval=-SHIFT, maxval=SHIFT)
    height, width = image_YXC.shape[:2]
    y_YX, x_YX = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    # The place that each pixel comes from, so the inverse of what the image undergoes.
    from_y_YX = (jnp.cos(angle) * y_YX - jnp.sin(angle) * x_YX) / factor + (height - 1) / 2 + shift_y * height
    from_x_YX = sign * (jnp.sin(angle) * y_YX + jnp.cos(angle) * x_YX) / factor + (width - 1) / 2 + shift_x * width
    return jax.vmap(lambda image_YX: jax.scipy.ndimage.map_coordinates(image_YX, [from_y_YX, from_x_YX], order=1), -1, -1)(image_YXC)
