"""Products with int8 numbers: weights with a scale a row, cached keys and values with a scale a slot.

An int8 number stands for number * scale, with scale = max|x| / 127 over what shares it and no zero point. Products are
(x number) * scale, so that one byte a number is read. On an accelerator the numbers are widened within the product. XLA's CPU would
widen a whole kernel in memory first, five times slower than float32, so a CPU has two forms of its own, `_by_digits` and `_by_heads`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from flaxgen.protocols import Array

LARGEST = 127
STEPS = 254  # a digit's own remainder, at most a half, in steps of 1 / 254
HEADS_TOGETHER = 4  # as many as stay in a CPU's cache, widened


@struct.dataclass
class Codes:
    """Keys or values in int8: number_BHKS or number_BHSK, and scale_BHS for every slot of a head."""

    number: Array
    scale: Array


def code(x_BTHK: Array) -> Codes:
    """x in int8, each head of each token by its own scale: number_BTHK, scale_BTH. A scale that is not finite keeps what overflowed."""
    unit_BTH1 = _unit(x_BTHK)
    return Codes(jnp.round(x_BTHK / unit_BTH1).astype(jnp.int8), unit_BTH1[..., 0])


def _unit(x: Array) -> Array:
    # maximum lets NaN through, which a comparison would turn into a harmless number.
    return jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True).astype(jnp.float32), 1e-30) / LARGEST


def widen(number: Array, scale: Array) -> Array:
    """The numbers in float32, every row times its scale, for kernels that are no matrix: scale has their shape without the last axis."""
    return number.astype(jnp.float32) * scale[..., None]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def project(x_BTD: Array, kernel_FD: Array, scale_F: Array, dtype) -> Array:
    """x (kernel scale)^T in `dtype` for an int8 kernel kept (out, in); x learns through it, the kernel does not."""
    if jax.default_backend() == "cpu":
        y_BTF = _by_digits(x_BTD.astype(jnp.float32), kernel_FD)
    else:
        y_BTF = _einsum("BTD,FD->BTF", x_BTD, kernel_FD.astype(x_BTD.dtype))
    return (y_BTF * scale_F[None, None]).astype(dtype)


def _project_forward(x_BTD, kernel_FD, scale_F, dtype):
    return project(x_BTD, kernel_FD, scale_F, dtype), (jnp.zeros((), x_BTD.dtype), kernel_FD, scale_F)


def _project_backward(dtype, kept, slope_BTF):
    like, kernel_FD, scale_F = kept
    slope_BTF = (slope_BTF * scale_F[None, None]).astype(like.dtype)
    return _einsum("BTF,FD->BTD", slope_BTF, kernel_FD.astype(like.dtype)).astype(like.dtype), None, None


project.defvjp(_project_forward, _project_backward)


def _einsum(spec, a, b):
    if jax.default_backend() == "cpu":
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.einsum(spec, a, b, precision="highest", preferred_element_type=jnp.float32)


def _by_digits(x_BTD: Array, kernel_FD: Array) -> Array:
    """x kernel^T, x written in two int8 digits as unit (high + low / 254): int8 by int8 in int32, which XLA's CPU does have.

    The digits hold x to max|x| / 64,516, a hundredth of what int8 weights round. Two digits also make one row a matrix, which it wants for
    its quick product. The sums are exact (up to 133,000 terms), so a row's bits do not depend on how many stand beside it.
    """
    unit_BT1 = _unit(x_BTD)
    scaled_BTD = x_BTD / unit_BT1
    high_BTD = jnp.round(scaled_BTD)
    digit_PBTD = jnp.stack([high_BTD, jnp.round((scaled_BTD - high_BTD) * STEPS)]).astype(jnp.int8)
    out, width = kernel_FD.shape
    # Cold kernels, ms at 1 row, x first and kernel first: 768 to 3072 .40 and .45, 3072 to 768 .43 and .34, 768 to 50,257 5.4 and 6.6.
    if width > out:
        sum_PBTF = jnp.einsum("FD,PBTD->FPBT", kernel_FD, digit_PBTD, preferred_element_type=jnp.int32).transpose(1, 2, 3, 0)
    else:
        sum_PBTF = jnp.einsum("PBTD,FD->PBTF", digit_PBTD, kernel_FD, preferred_element_type=jnp.int32)
    return (sum_PBTF[0].astype(jnp.float32) + sum_PBTF[1].astype(jnp.float32) / STEPS) * unit_BT1


def scores(q_BTHK: Array, k: Codes) -> Array:
    """q k^T of every head in float32, s_BHTS."""
    return _by_heads(q_BTHK.swapaxes(1, 2), k.number) * k.scale[:, :, None]


def mix(weight_BTHS: Array, v: Codes) -> Array:
    """The values weighed, in float32, BTHK."""
    weight_BHTS = weight_BTHS.swapaxes(1, 2).astype(jnp.float32) * v.scale[:, :, None]
    return _by_heads(weight_BHTS, v.number).swapaxes(1, 2)


def _by_heads(a_BHTK: Array, number_BHKS: Array) -> Array:
    """a number of every row and head in float32; on a CPU a few heads at a time are widened, so that they stay in its cache.

    12 heads of 64, 8 rows of 1,024 slots, ms a layer: float32 2.7, four heads at a time 2.6, all at once 27.
    """
    if jax.default_backend() != "cpu":
        return jnp.matmul(a_BHTK, number_BHKS.astype(a_BHTK.dtype), precision="highest", preferred_element_type=jnp.float32)
    rows, heads = number_BHKS.shape[:2]
    few = max(count for count in range(1, HEADS_TOGETHER + 1) if heads % count == 0)

    def split(x_BH):
        return x_BH.reshape(rows * heads // few, few, *x_BH.shape[2:])

    def product(pair):
        a_HTK, number_HKS = pair
        return jnp.matmul(a_HTK, number_HKS.astype(jnp.float32), precision="highest")

    product_BHTS = jax.lax.map(product, (split(a_BHTK.astype(jnp.float32)), split(number_BHKS)))
    return product_BHTS.reshape(rows, heads, *product_BHTS.shape[2:])
