"""An LSTM that reads a text from both ends."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxgen.nn import blocks, quantized
from flaxgen.protocols import Array


def lstm(gate_TGBF: Array, kernel_GFU: Array) -> Array:
    """state_TGBU of LSTMs side by side, whose inputs' shares of the gates are given (Hochreiter & Schmidhuber 1997, forget gate 2000).

    c = sigmoid(f + 1) c + sigmoid(i) tanh(n), state = sigmoid(o) tanh(c), the F = 4 U gates in the order i, f, n, o. The 1 lets a fresh
    layer remember (Jozefowicz et al. 2015).
    """

    def step(carry, gate_GBF):
        state_GBU, cell_GBU = carry
        gate_GBF += blocks.einsum("GBU,GFU->GBF", state_GBU, kernel_GFU, state_GBU.dtype)
        i_GBU, f_GBU, n_GBU, o_GBU = jnp.split(gate_GBF, 4, axis=-1)
        cell_GBU = jax.nn.sigmoid(f_GBU + 1) * cell_GBU + jax.nn.sigmoid(i_GBU) * jnp.tanh(n_GBU)
        state_GBU = jax.nn.sigmoid(o_GBU) * jnp.tanh(cell_GBU)
        return (state_GBU, cell_GBU), state_GBU

    zero_GBU = jnp.zeros((*gate_TGBF.shape[1:3], kernel_GFU.shape[-1]), gate_TGBF.dtype)
    return jax.lax.scan(step, (zero_GBU, zero_GBU), gate_TGBF)[1]


class Gates(nn.Module):
    """One direction: what its input gives to the gates, gate_BTF, and the kernel_FU by which its state does."""

    units: int

    @nn.compact
    def __call__(self, x_BTD: Array) -> tuple[Array, Array]:
        gate_BTF = dense(4 * self.units, x_BTD, "input")
        kernel_FU = self.param("kernel", nn.initializers.orthogonal(column_axis=1), (4 * self.units, self.units))
        scaled = self.has_variable("params", "kernel_scale")
        blocks.check_scale("kernel", kernel_FU, scaled)
        if scaled:
            kernel_FU = quantized.widen(kernel_FU, self.get_variable("params", "kernel_scale"))
        return gate_BTF, kernel_FU.astype(x_BTD.dtype)


class BiLSTM(nn.Module):
    """Both directions at once, side by side, and a dense layer back to the width of x."""

    units: int

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        there_BTF, there_FU = Gates(self.units, name="forward")(x_BTD)
        back_BTF, back_FU = Gates(self.units, name="backward")(x_BTD[:, ::-1])
        gate_TGBF = jnp.stack([there_BTF, back_BTF]).transpose(2, 0, 1, 3)
        state_TGBU = lstm(gate_TGBF, jnp.stack([there_FU, back_FU]))
        both_TBF = jnp.concatenate([state_TGBU[:, 0], state_TGBU[::-1, 1]], axis=-1)
        return dense(x_BTD.shape[-1], both_TBF.transpose(1, 0, 2), "map")


def dense(out: int, x_BTD: Array, name: str) -> Array:
    """A dense layer drawn by the spread of Glorot and Bengio 2010."""
    return blocks.Dense(out, (2 / (out + x_BTD.shape[-1])) ** 0.5, name=name)(x_BTD)
