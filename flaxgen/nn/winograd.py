"""Convolutions of three by three pixels with fewer multiplications: F(2x2, 3x3) of Winograd, as Lavin and Gray (arXiv 1509.09308) write it.

A square of two by two outputs needs four by four inputs. Along one axis four inputs d become four numbers, three taps g become four, and
their products m give two outputs; along both axes 16 products stand for 36:

    inputs   d0 - d2, d1 + d2, d2 - d1, d1 - d3
    taps     g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2
    outputs  m0 + m1 + m2, m1 - m2 - m3
"""

import jax
import jax.numpy as jnp

from flaxgen.protocols import Array


def conv(x_BYXC: Array, kernel_YXCF: Array) -> Array:
    """The convolution of stride 1 that keeps height and width, zeros beyond the edges; the kernel is (3, 3, in, out).

    In float32 it differs from a direct one by about 1e-6 of the largest number.
    """
    rows, height, width, _ = x_BYXC.shape
    down, right = -(-height // 2), -(-width // 2)
    wide_BYXC = jnp.pad(x_BYXC, ((0, 0), (1, 2 * down + 1 - height), (1, 2 * right + 1 - width), (0, 0)))
    # Behind barriers, or XLA computes the padding and the inputs again inside each of what reads them.
    wide_BYXC = jax.lax.optimization_barrier(wide_BYXC)
    bands = _inputs([wide_BYXC[:, i : i + 2 * down - 1 : 2] for i in range(4)])
    inputs = jax.lax.optimization_barrier([_inputs([band_BYXC[:, :, j : j + 2 * right - 1 : 2] for j in range(4)]) for band_BYXC in bands])
    taps = [_taps(list(band_XCF)) for band_XCF in _taps(list(kernel_YXCF))]
    products = [_products(*pair) for pair in zip(inputs, taps, strict=True)]
    outputs = zip(*map(_outputs, products), strict=True)  # for each of two columns the four rows of products
    columns = [_outputs(list(column)) for column in outputs]
    y_BYXF = jnp.stack([jnp.stack([columns[j][i] for j in range(2)], 3) for i in range(2)], 2)
    return y_BYXF.reshape(rows, 2 * down, 2 * right, kernel_YXCF.shape[-1])[:, :height, :width]


def share(height: int, width: int) -> float:
    """Products of `conv` for one of a direct convolution: 4 / 9 where both sides are even, more where squares hang over the edges."""
    return 16 * -(-height // 2) * -(-width // 2) / (9 * height * width)


def _inputs(d: list[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _taps(g: list[Array]) -> list[Array]:
    return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]


def _products(inputs: list[Array], taps: list[Array]) -> list[Array]:
    return [jnp.einsum("BYXC,CF->BYXF", d_BYXC, g_CF) for d_BYXC, g_CF in zip(inputs, taps, strict=True)]


def _outputs(m: list[Array]) -> tuple[Array, Array]:
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
