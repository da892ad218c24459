"""Couplings: half of the channels are moved by what a network reads in the other half (Xiao & Liu 2020)."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from flaxgen.models.config import block_name
from flaxgen.nn import exponential_product, images, invertible
from flaxgen.protocols import Array


class Normed(nn.Module):
    """scale conv(x) + shift, a scale and a shift for every filter.

    Where "params" are mutable both are fitted to x, so that over rows and pixels y has mean 0 and deviation `deviation`.
    """

    filters: int
    taps: int = 3
    deviation: float = 1.0

    @nn.compact
    def __call__(self, x_BYXC: Array) -> Array:
        shape = self.taps, self.taps, x_BYXC.shape[-1], self.filters
        y_BYXF = images.conv(x_BYXC, self.param("kernel", nn.initializers.he_uniform(), shape))
        scale_F = self.param("scale", nn.initializers.constant(self.deviation), (self.filters,))
        shift_F = self.param("shift", nn.initializers.zeros, (self.filters,))
        if invertible.fits(self):
            scale_F = self.deviation / (y_BYXF.std((0, 1, 2)) + 1e-8)
            shift_F = -y_BYXF.mean((0, 1, 2)) * scale_F
            self.put_variable("params", "scale", scale_F)
            self.put_variable("params", "shift", shift_F)
        return y_BYXF * scale_F[None, None, None] + shift_F[None, None, None]


class Block(nn.Module):
    """elu(x + third(elu(second(elu(first(x)))))); the third begins at nothing."""

    @nn.compact
    def __call__(self, x_BYXF: Array) -> Array:
        filters = x_BYXF.shape[-1]
        h_BYXF = nn.elu(Normed(filters, name="first")(x_BYXF))
        h_BYXF = nn.elu(Normed(filters, 1, name="second")(h_BYXF))
        return nn.elu(x_BYXF + Normed(filters, deviation=0.0, name="third")(h_BYXF))


class Net(nn.Module):
    """The network of a coupling: a convolution, residual blocks, and a convolution that begins at nothing."""

    hidden: int
    blocks: int
    out: int

    @nn.compact
    def __call__(self, x_BYXC: Array) -> Array:
        x_BYXF = nn.elu(Normed(self.hidden, name="enter")(x_BYXC))
        for block in range(self.blocks):
            x_BYXF = Block(name=block_name(block))(x_BYXF)
        y_BYXF = images.conv(x_BYXF, self.param("kernel", nn.initializers.zeros, (3, 3, self.hidden, self.out)))
        return images.bias(y_BYXF, self.param("bias", nn.initializers.zeros, (self.out,)))


class Coupling(nn.Module):
    """The last channels // 2 of every pixel moved by b + exp(S) x, b and S read by a network in the other channels.

    kind: S is a matrix for every pixel ("exponential"), one of rank `rank` ("low-rank"), diagonal ("affine") or 0 ("additive"). Its
    logdet is the sum of the traces. Every number of S, and of the two factors of low rank, is rescale tanh(scale out + shift) + reshift.
    """

    kind: Literal["exponential", "low-rank", "affine", "additive"]
    rank: int
    channels: int
    hidden: int
    blocks: int
    out: int

    def setup(self):
        self.moved = self.channels // 2
        self.net = Net(self.hidden, self.blocks, self.out)
        if self.kind != "additive":
            begin = {"scale": 1 / 8, "shift": 0.0, "rescale": 1.0 if self.kind == "affine" else 1 / self.moved, "reshift": 0.0}
            self.limits = [self.param(name, nn.initializers.constant(value), ()) for name, value in begin.items()]

    def __call__(self, x_BYXC: Array) -> tuple[Array, Array]:
        kept_BYXC, x_DP = self._split(x_BYXC)
        shift_DP, factors = self._read(kept_BYXC)
        return self._join(kept_BYXC, self._multiply(factors, x_DP) + shift_DP), self._logdet(factors, kept_BYXC)

    def inverse(self, y_BYXC: Array) -> Array:
        kept_BYXC, y_DP = self._split(y_BYXC)
        shift_DP, (first, *rest) = self._read(kept_BYXC)
        return self._join(kept_BYXC, self._multiply((-first, *rest), y_DP - shift_DP))

    def _split(self, x_BYXC: Array) -> tuple[Array, Array]:
        """The channels that are read as they are, those that are moved with all pixels of all rows last."""
        return x_BYXC[..., : -self.moved], x_BYXC[..., -self.moved :].reshape(-1, self.moved).T

    def _join(self, kept_BYXC: Array, y_DP: Array) -> Array:
        return jnp.concatenate([kept_BYXC, y_DP.T.reshape(*kept_BYXC.shape[:3], self.moved)], axis=-1)

    def _read(self, kept_BYXC: Array) -> tuple[Array, tuple[Array, ...]]:
        """b and the factors of S."""
        out_FP = self.net(kept_BYXC).reshape(-1, self.out).T
        shift_DP, numbers_FP = out_FP[: self.moved], out_FP[self.moved :]
        if self.kind == "additive":
            return shift_DP, (jnp.zeros_like(shift_DP),)
        scale, shift, rescale, reshift = self.limits
        numbers_FP = rescale * jnp.tanh(scale * numbers_FP + shift) + reshift
        if self.kind == "affine":
            return shift_DP, (numbers_FP,)
        if self.kind == "exponential":
            return shift_DP, (numbers_FP.reshape(self.moved, self.moved, -1),)
        left_FP, right_FP = jnp.split(numbers_FP, 2)
        return shift_DP, (left_FP.reshape(self.moved, self.rank, -1), right_FP.reshape(self.rank, self.moved, -1))

    def _multiply(self, factors: tuple[Array, ...], x_DP: Array) -> Array:
        """exp(S) x; for S = A1 A2 of low rank x + A1 phi(A2 A1) A2 x."""
        if self.kind in ("affine", "additive"):
            return jnp.exp(factors[0]) * x_DP
        if self.kind == "exponential":
            return exponential_product.move(factors[0], x_DP, jnp.zeros_like(x_DP))
        left_FKP, right_KDP = factors
        seen_KP = exponential_product.product(right_KDP, x_DP)
        small_KNP = _small(right_KDP, left_FKP)
        return x_DP + exponential_product.product(left_FKP, exponential_product.move(small_KNP, jnp.zeros_like(seen_KP), seen_KP))

    def _logdet(self, factors: tuple[Array, ...], kept_BYXC: Array) -> Array:
        if self.kind == "low-rank":
            traces_P = (factors[0] * factors[1].swapaxes(0, 1)).sum((0, 1))
        else:
            traces_P = (jnp.diagonal(factors[0]).T if self.kind == "exponential" else factors[0]).sum(0)
        rows, height, width, _ = kept_BYXC.shape
        return traces_P.reshape(rows, height * width).sum(1)


def _small(right_KDP: Array, left_FKP: Array) -> Array:
    """A2 A1."""
    return jnp.stack([exponential_product.product(right_KDP, left_FKP[:, column]) for column in range(left_FKP.shape[1])], axis=1)
