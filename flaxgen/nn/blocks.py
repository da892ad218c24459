"""Products that keep their precision, dense layers, norms, activations and dropout by row."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from flaxgen.models.config import Activation
from flaxgen.nn import quantized
from flaxgen.protocols import Array

FEW_ROWS = 32
DENSE = "dense"  # what kernels give, by name for jax.checkpoint: policies do not see the products inside a custom_vjp


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def einsum(spec: str, a: Array, b: Array, dtype=jnp.float32) -> Array:
    """jnp.einsum given in `dtype`, float32 factors multiplied as float32 (by default a TPU takes bfloat16 for them, a GPU may take tf32).

    Backward, what comes in is rounded to the factors' own type first: left to itself jax would multiply float32 by bfloat16 in float32.
    XLA's CPU has no bfloat16 product with a float32 result, so there the factors are widened.
    """
    if jax.default_backend() == "cpu":
        a, b = a.astype(dtype), b.astype(dtype)
    return jnp.einsum(spec, a, b, precision="highest", preferred_element_type=dtype)


def _einsum_forward(spec, a, b, dtype):
    return einsum(spec, a, b, dtype), (a, b)


def _einsum_backward(spec, dtype, factors, slope):
    left, rest = spec.split(",")
    right, out = rest.split("->")
    a, b = factors
    slope = slope.astype(a.dtype)
    return einsum(f"{out},{right}->{left}", slope, b, a.dtype), einsum(f"{out},{left}->{right}", slope, a, b.dtype)


einsum.defvjp(_einsum_forward, _einsum_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x_BTD: Array, kernel_FD: Array, dtype) -> Array:
    """x kernel^T in `dtype`, the kernel kept (out, in) and rounded to the type of x; its gradient is summed in its own type.

    So float32 masters under bfloat16 activations get float32 gradients, across devices too, and no rounded copy outlives the layer.
    """
    kernel_FD = kernel_FD.astype(x_BTD.dtype)
    # On a CPU few rows are multiplied kernel first; x first is 1.3 to 3 times slower there. At 8 rows, ms, x first and kernel first: 768 to
    # 3072 .88 and .63, 3072 to 768 2.30 and .74, 768 to 50,257 17.7 and 9.1. At 1 row they are equal, from 64 rows on x first is faster.
    if jax.default_backend() == "cpu" and x_BTD.shape[0] * x_BTD.shape[1] <= FEW_ROWS:
        return einsum("FD,BTD->FBT", kernel_FD, x_BTD, dtype).transpose(1, 2, 0)
    return einsum("BTD,FD->BTF", x_BTD, kernel_FD, dtype)


def _project_forward(x_BTD, kernel_FD, dtype):
    return project(x_BTD, kernel_FD, dtype), (x_BTD, kernel_FD)


def _project_backward(dtype, factors, slope_BTF):
    x_BTD, kernel_FD = factors
    slope_BTF = slope_BTF.astype(x_BTD.dtype)
    x_slope_BTD = einsum("BTF,FD->BTD", slope_BTF, kernel_FD.astype(x_BTD.dtype), x_BTD.dtype)
    return x_slope_BTD, einsum("BTF,BTD->FD", slope_BTF, x_BTD, kernel_FD.dtype)


project.defvjp(_project_forward, _project_backward)


def check_scale(name: str, table: Array, scaled: bool) -> None:
    """ValueError unless an int8 table has its scales, and no other has."""
    if (table.dtype == jnp.int8) != scaled:
        beside = f"with {name}_scale" if scaled else f"without {name}_scale"
        raise ValueError(
            f"{name} is {table.dtype.name} {beside}; wanted int8 numbers with their scales, or floating-point numbers alone. "
            "Low-rank updates are merged into floating-point kernels only: flaxgen.weights.dequantize(params) gives those"
        )


class Dense(nn.Module):
    """x kernel^T + bias, the kernel kept (out, in), in int8 where the parameters hold kernel_scale (out,) beside it.

    Where the parameters hold kernel_a (rank, in) and kernel_b (out, rank) too, x kernel_a^T kernel_b^T is added (Hu et al. 2021, LoRA).
    """

    out: int
    init_range: float
    bias: bool = True

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        kernel_FD = self.param("kernel", nn.initializers.truncated_normal(self.init_range), (self.out, x_BTD.shape[-1]))
        scaled = self.has_variable("params", "kernel_scale")
        check_scale("kernel", kernel_FD, scaled)
        if scaled:
            y_BTF = quantized.project(x_BTD, kernel_FD, self.get_variable("params", "kernel_scale"), x_BTD.dtype)
        else:
            y_BTF = project(x_BTD, kernel_FD, x_BTD.dtype)
        y_BTF = checkpoint_name(y_BTF, DENSE)
        if self.bias:
            y_BTF += self.param("bias", nn.initializers.zeros, (self.out,)).astype(x_BTD.dtype)[None, None]
        if self.has_variable("params", "kernel_a"):
            inner_BTR = project(x_BTD, self.get_variable("params", "kernel_a"), x_BTD.dtype)
            y_BTF += project(inner_BTR, self.get_variable("params", "kernel_b"), x_BTD.dtype)
        return y_BTF


class Embedding(nn.Module):
    """Rows of a table, in `dtype`: rounded after they are picked, so that gradients of a row are summed in the table's own type.

    The table is in int8 where the parameters hold embedding_scale (count,) beside it.
    """

    count: int
    width: int
    init_range: float
    dtype: jnp.dtype

    def setup(self):
        init = nn.initializers.truncated_normal(self.init_range)
        self.embedding = self.param("embedding", init, (self.count, self.width))
        scaled = self.has_variable("params", "embedding_scale")
        check_scale("embedding", self.embedding, scaled)
        self.scale = self.get_variable("params", "embedding_scale") if scaled else None

    def __call__(self, index_BT: Array) -> Array:
        x_BTD = jnp.take(self.embedding, index_BT, axis=0)
        if self.scale is not None:
            x_BTD = x_BTD * jnp.take(self.scale, index_BT, axis=0)[..., None]
        return x_BTD.astype(self.dtype)

    def product(self, x_BTD: Array) -> Array:
        """x table^T in float32, one number a row of the table."""
        if self.scale is not None:
            return quantized.project(x_BTD, self.embedding, self.scale, jnp.float32)
        return project(x_BTD, self.embedding, jnp.float32)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis, in float32 with the biased variance (Ba et al. 2016)."""

    epsilon: float

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        scale_D = self.param("scale", nn.initializers.ones, x_BTD.shape[-1:])
        bias_D = self.param("bias", nn.initializers.zeros, x_BTD.shape[-1:])
        # Backward, the norm is computed again from x: of its steps nothing is kept.
        return jax.checkpoint(partial(_norm, epsilon=self.epsilon), prevent_cse=False)(x_BTD, scale_D, bias_D)


def _norm(x_BTD, scale_D, bias_D, *, epsilon):
    wide_BTD = x_BTD.astype(jnp.float32)
    centred_BTD = wide_BTD - wide_BTD.mean(axis=-1, keepdims=True)
    variance_BT1 = jnp.square(centred_BTD).mean(axis=-1, keepdims=True)
    y_BTD = centred_BTD * jax.lax.rsqrt(variance_BT1 + epsilon) * scale_D.astype(jnp.float32)[None, None]
    return (y_BTD + bias_D.astype(jnp.float32)[None, None]).astype(x_BTD.dtype)


class BareNorm(nn.Module):
    """x / sqrt(mean of x^2 + epsilon) over the last axis, in float32, without parameters."""

    epsilon: float

    def __call__(self, x_BTD: Array) -> Array:
        return _unit(x_BTD, self.epsilon).astype(x_BTD.dtype)


class ScaleNorm(nn.Module):
    """x / sqrt(mean of x^2 + epsilon) * scale over the last axis, in float32 (Zhang & Sennrich 2019)."""

    epsilon: float

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        scale_D = self.param("scale", nn.initializers.ones, x_BTD.shape[-1:])
        return (_unit(x_BTD, self.epsilon) * scale_D.astype(jnp.float32)[None, None]).astype(x_BTD.dtype)


def _unit(x_BTD, epsilon):
    wide_BTD = x_BTD.astype(jnp.float32)
    return wide_BTD * jax.lax.rsqrt(jnp.square(wide_BTD).mean(axis=-1, keepdims=True) + epsilon)


def activate(x_BTF: Array, activation: Activation) -> Array:
    """The activation by its name."""
    return jax.nn.relu(x_BTF) if activation == "relu" else jax.nn.gelu(x_BTF, approximate=activation == "gelu_tanh")


class MLP(nn.Module):
    """down(activation(up(x))), two dense layers."""

    hidden: int
    activation: Activation
    init_range: float
    bias: bool = True

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        x_BTF = Dense(self.hidden, self.init_range, self.bias, name="up")(x_BTD)
        # Backward, gelu is computed again from x rather than kept in five pieces: a fifth of the memory, and on a CPU less time too.
        x_BTF = jax.checkpoint(partial(activate, activation=self.activation), prevent_cse=False)(x_BTF)
        return Dense(x_BTD.shape[-1], self.init_range, self.bias, name="down")(x_BTF)


def dropout(x_BTD: Array, key_B: Array | None, rate: float) -> Array:
    """x with elements zeroed at `rate` and the rest scaled up, each row by its own key; x itself without keys."""
    if key_B is None or rate == 0.0:
        return x_BTD
    keep_BTD = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x_BTD.shape[1:]))(key_B)
    return jnp.where(keep_BTD, x_BTD / (1 - rate), 0).astype(x_BTD.dtype)


def keys(key_B: Array | None, number: int) -> Array | None:
    """The rows' dropout keys of one of several places; None for none."""
    return None if key_B is None else jax.vmap(partial(jax.random.fold_in, data=number))(key_B)
