"""Maps of images that can be undone and whose log-determinant is known: scales, and mixings of the channels (Xiao & Liu 2020).

Every one has `apply(params, image_BYXC) -> (image_BYXC, logdet)`, the logdet that of each row or one for all rows, and `inverse`.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxgen.nn import exponential
from flaxgen.protocols import Array

IDENTITY = math.log(math.e - 1)  # softplus of it is 1


class Normalise(nn.Module):
    """softplus(scale) x + shift, a scale and a shift for every activation.

    Where "params" are mutable both are fitted to x, so that over the rows y has mean 0 and deviation 1 (Salimans & Kingma 2016); a
    deviation below `least` counts as `least`.
    """

    shape: tuple[int, int, int]
    least: float

    def setup(self):
        self.scale = self.param("scale", nn.initializers.constant(IDENTITY), self.shape)
        self.shift = self.param("shift", nn.initializers.zeros, self.shape)

    def __call__(self, x_BYXC: Array) -> tuple[Array, Array]:
        scale_YXC, shift_YXC = jax.nn.softplus(self.scale), self.shift
        if fits(self):
            scale_YXC = 1 / jnp.maximum(x_BYXC.std(0), self.least)
            shift_YXC = -x_BYXC.mean(0) * scale_YXC
            self.put_variable("params", "scale", scale_YXC + jnp.log(-jnp.expm1(-scale_YXC)))
            self.put_variable("params", "shift", shift_YXC)
        return x_BYXC * scale_YXC[None] + shift_YXC[None], jnp.log(scale_YXC).sum()

    def inverse(self, y_BYXC: Array) -> Array:
        return (y_BYXC - self.shift[None]) / jax.nn.softplus(self.scale)[None]


def fits(module: nn.Module) -> bool:
    """Whether the module is to fit its scales and shifts to what passes through."""
    return module.is_mutable_collection("params") and not module.is_initializing()


class Mix(nn.Module):
    """W x at every pixel, the logdet pixels times log |det W|. W is made by `matrix`, or for the inverse by `undone`, and handed in.

    kind: "exponential" W = exp(K), its logdet the trace of K, its inverse exp(-K); "standard" W = K; "plu" W = P L U with L below and U on
    and above the diagonal of K, and P the permutation that sorts `order`. All begin at a random orthogonal W, "exponential" at a rotation.
    """

    kind: Literal["exponential", "plu", "standard"]
    channels: int

    def setup(self):
        self.kernel = self.param("kernel", {"exponential": rotation, "plu": _packed, "standard": _orthogonal}[self.kind], self.channels)
        if self.kind == "plu":
            self.order = self.param("order", _order, self.channels)

    def __call__(self, x_BYXC: Array, matrix_FC: Array) -> tuple[Array, Array]:
        if self.kind == "standard":
            logdet = jnp.linalg.slogdet(self.kernel)[1]
        else:
            diagonal_C = jnp.diagonal(self.kernel)
            logdet = (diagonal_C if self.kind == "exponential" else jnp.log(jnp.abs(diagonal_C))).sum()
        return at_pixels(matrix_FC, x_BYXC), x_BYXC.shape[1] * x_BYXC.shape[2] * logdet

    def matrix(self) -> Array:
        """W."""
        kernel_FC = self.kernel
        if self.kind == "exponential":
            return exponential.expm(kernel_FC)
        if self.kind == "standard":
            return kernel_FC
        lower_FC = jnp.tril(kernel_FC, -1) + jnp.eye(self.channels)
        return jnp.matmul(lower_FC, jnp.triu(kernel_FC), precision="highest")[jnp.argsort(self.order)]

    def undone(self) -> Array:
        """The inverse of W."""
        return exponential.expm(-self.kernel) if self.kind == "exponential" else jnp.linalg.inv(self.matrix())


def at_pixels(matrix_FC: Array, x_BYXC: Array) -> Array:
    return jnp.einsum("BYXC,FC->BYXF", x_BYXC, matrix_FC, precision="highest")


def rotation(key: Array, size: int) -> Array:
    """The real logarithm of a random rotation, skew-symmetric: by uniform angles in planes that are orthogonal to each other."""
    plane_key, angle_key = jax.random.split(key)
    first_FN, second_FN = jnp.split(_orthogonal(plane_key, size)[:, : size // 2 * 2], 2, axis=1)
    angle_N = jax.random.uniform(angle_key, (size // 2,), minval=-jnp.pi, maxval=jnp.pi)
    half_FC = jnp.matmul(first_FN * angle_N[None], second_FN.T, precision="highest")
    return half_FC - half_FC.T


def _orthogonal(key: Array, size: int) -> Array:
    return jax.random.orthogonal(key, size)


def _packed(key: Array, size: int) -> Array:
    return jax.lax.linalg.lu(_orthogonal(key, size))[0]


def _order(key: Array, size: int) -> Array:
    return jax.random.permutation(key, size).astype(jnp.float32)
