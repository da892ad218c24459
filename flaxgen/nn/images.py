"""Convolutions, pooling and squeezing of images."""

import jax
import jax.numpy as jnp

from flaxgen.nn import winograd
from flaxgen.protocols import Array


@jax.custom_vjp
def conv(x_BYXC: Array, kernel_YXCF: Array) -> Array:
    """The convolution of stride 1 that keeps height and width, zeros beyond the edges; the kernel (height, width, in, out), odd sizes."""
    rows, height, width, _ = x_BYXC.shape
    tall, wide, channels, filters = kernel_YXCF.shape
    # With fewer products of one tap XLA's own convolution is as fast on a CPU, and compiles sooner.
    small = channels < 16 or rows * height * width * channels * filters < 2**20
    if small or x_BYXC.dtype != jnp.float32 or kernel_YXCF.dtype != jnp.float32:
        return _direct(x_BYXC, kernel_YXCF)
    if filters < 16:
        return jax.lax.platform_dependent(x_BYXC, kernel_YXCF, cpu=_narrow, default=_direct)
    if (tall, wide) == (3, 3) and winograd.share(height, width) < 0.7:
        return jax.lax.platform_dependent(x_BYXC, kernel_YXCF, cpu=winograd.conv, default=_direct)
    return _direct(x_BYXC, kernel_YXCF)


def _direct(x_BYXC, kernel_YXCF):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x_BYXC, kernel_YXCF, (1, 1), "SAME", dimension_numbers=numbers, precision="highest")


def _narrow(x_BYXC, kernel_YXCF):
    """Where few filters come out: every pixel times all taps at once, then each product added where it belongs."""
    (_, height, width, _), (tall, wide, channels, filters) = x_BYXC.shape, kernel_YXCF.shape
    kernel_CF = kernel_YXCF.transpose(2, 0, 1, 3).reshape(channels, -1)
    y_BYXF = jnp.einsum("BYXC,CF->BYXF", x_BYXC, kernel_CF)
    y_BYXF = jnp.pad(jax.lax.optimization_barrier(y_BYXF), ((0, 0), (tall // 2, tall // 2), (wide // 2, wide // 2), (0, 0)))
    places = [(i, j, slice((i * wide + j) * filters, (i * wide + j + 1) * filters)) for i in range(tall) for j in range(wide)]
    return sum(y_BYXF[:, i : i + height, j : j + width, place] for i, j, place in places)


def _forward(x_BYXC, kernel_YXCF):
    return conv(x_BYXC, kernel_YXCF), (x_BYXC, kernel_YXCF)


def _backward(factors, slope_BYXF):
    x_BYXC, kernel_YXCF = factors
    # Behind the barrier, or XLA folds the turning into the convolution, which its CPU then does eight times slower inside a loop
    # (14 by 14 pixels, 32 filters, 64 images: 50 ms in place of 6).
    turned_YXFC = jax.lax.optimization_barrier(jnp.flip(kernel_YXCF, (0, 1)).swapaxes(2, 3))
    _, to_kernel = jax.vjp(lambda kernel_YXCF: _direct(x_BYXC, kernel_YXCF), kernel_YXCF)
    return conv(slope_BYXF, turned_YXFC), to_kernel(slope_BYXF)[0]


conv.defvjp(_forward, _backward)


def mean_pool(x_BYXC: Array) -> Array:
    """Means over squares of two by two pixels; an odd last row or column is left out."""
    rows, height, width, channels = x_BYXC.shape
    height, width = height // 2, width // 2
    x_BYXC = x_BYXC[:, : 2 * height, : 2 * width]
    return x_BYXC.reshape(rows, height, 2, width, 2, channels).mean((2, 4))


def squeeze(x_BYXC: Array, factor: int = 2) -> Array:
    """Squares of pixels as one pixel: (B, Y, X, C) to (B, Y / factor, X / factor, factor² C), rows of a square first."""
    rows, height, width, channels = x_BYXC.shape
    cut = x_BYXC.reshape(rows, height // factor, factor, width // factor, factor, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(rows, height // factor, width // factor, factor * factor * channels)


def unsqueeze(x_BYXC: Array, factor: int = 2) -> Array:
    """The inverse of `squeeze`."""
    rows, height, width, channels = x_BYXC.shape
    cut = x_BYXC.reshape(rows, height, width, factor, factor, channels // factor**2)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(rows, height * factor, width * factor, channels // factor**2)


def bias(x_BYXC: Array, bias: Array) -> Array:
    """x + bias in the type of x, the bias of shape (C,) for all rows or (B, C) for each."""
    return x_BYXC + _by_row(bias, x_BYXC)


def gain(x_BYXC: Array, gain: Array) -> Array:
    """x times a gain, as `bias` adds."""
    return x_BYXC * _by_row(gain, x_BYXC)


def _by_row(numbers: Array, x_BYXC: Array) -> Array:
    return jnp.broadcast_to(numbers.astype(x_BYXC.dtype), (len(x_BYXC), numbers.shape[-1]))[:, None, None]
