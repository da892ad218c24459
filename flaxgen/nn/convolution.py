"""A convolution over the places of a text, and the gate that mixes what it gives with what it read."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxgen.nn import blocks, quantized
from flaxgen.protocols import Array


def convolve(x_BTD: Array, kernel_JFD: Array, bias_F: Array) -> Array:
    """y_BTF with y[t] = sum over taps j of kernel[j] x[t + j - J // 2] + bias, zeros beyond the ends; J is odd.

    Keras's Conv1D keeps (J, in, out), this kernel (J, out, in). The taps are laid side by side and multiplied at once.
    """
    taps, length = len(kernel_JFD), x_BTD.shape[1]
    wide_BSD = jnp.pad(x_BTD, ((0, 0), (taps // 2, taps // 2), (0, 0)))
    x_BTJD = jnp.stack([wide_BSD[:, tap : tap + length] for tap in range(taps)], axis=2)
    return blocks.einsum("BTJD,JFD->BTF", x_BTJD, kernel_JFD.astype(x_BTD.dtype), x_BTD.dtype) + bias_F.astype(x_BTD.dtype)[None, None]


def gate(x_BTD: Array, y_BTF: Array) -> Array:
    """x sigmoid(g) + h sigmoid(-g), g and h the halves of y (kexue.fm 6270; the gate of 5409 with its sign turned)."""
    g_BTD, h_BTD = jnp.split(y_BTF, 2, axis=-1)
    return x_BTD * jax.nn.sigmoid(g_BTD) + h_BTD * jax.nn.sigmoid(-g_BTD)


class Conv(nn.Module):
    """`convolve` with parameters: kernel (taps, out, in), drawn as Glorot and Bengio 2010 do, and bias.

    The kernel is in int8 where the parameters hold kernel_scale (taps, out) beside it.
    """

    taps: int
    out: int

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        glorot = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=2, out_axis=1)
        kernel_JFD = self.param("kernel", glorot, (self.taps, self.out, x_BTD.shape[-1]))
        scaled = self.has_variable("params", "kernel_scale")
        blocks.check_scale("kernel", kernel_JFD, scaled)
        if scaled:
            kernel_JFD = quantized.widen(kernel_JFD, self.get_variable("params", "kernel_scale"))
        return convolve(x_BTD, kernel_JFD, self.param("bias", nn.initializers.zeros, (self.out,)))


class Gated(nn.Module):
    """One residual layer: a convolution to twice the width, and its gate."""

    taps: int

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        return gate(x_BTD, Conv(self.taps, 2 * x_BTD.shape[-1], name="conv")(x_BTD))
