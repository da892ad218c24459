"""Scaling and squaring of float32 or float64 matrices (..., D, D), and its derivative: what `exponential` is made of.

exp(A) = (exp(A / 2^s))^(2^s). s is the fewest halvings that bring max(|A^2|^(1/2), |A^3|^(1/3)) to 1, in Frobenius norms: it is at most
|A| and bounds the series from the square on (Al-Mohy and Higham 2009). The series is cut after TERMS powers: what it leaves out has a
norm below 1.1/13! = 1.8e-10 in float32, 1.1/19! = 9e-18 in float64.
"""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad, batching, mlir

from flaxgen.protocols import Array

TERMS = {"float32": 12, "float64": 18}  # multiples of three: the series is summed in powers of A^3 (Paterson and Stockmeyer 1973)
UNROLLED = 24  # up to this size a product is a sum of outer products: on a CPU 1.2 to 70 times as quick as batched matrix products
UNSCALED = 16  # binary exponent of the largest element that may be squared and cubed as it is
OVERSCALED = 6  # halvings that the powers may save against the norm; more would drown the powers in rounding


@jax.jit
def value(a_DD: Array) -> Array:
    """exp of every matrix."""
    sum_DD, halvings = series(a_DD)

    def squared(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        k, x_DD, exponent = state
        square_DD, twice = held(product(x_DD, x_DD), 2 * exponent)
        more = k < halvings
        return k + 1, jnp.where(more, square_DD, x_DD), jnp.where(more, twice, exponent)

    start = (jnp.zeros((), jnp.int32), *held(sum_DD, jnp.zeros_like(halvings)))
    _, x_DD, exponent = jax.lax.while_loop(lambda state: jnp.any(state[0] < halvings), squared, start)
    return scale(_told(x_DD, x_DD), exponent)


def _told(x_DD: Array, l_DD: Array) -> Array:
    """L, but inf where X is nothing: elements that are too large beside the others drowned them, and then squared to 0 themselves."""
    return jnp.where(peak(x_DD) == 0, jnp.inf, l_DD)


def series(a_DD: Array) -> tuple[Array, Array]:
    """exp(A / 2^s) by its series, and s of each matrix, int32 (..., 1, 1); 0 where A is not finite."""
    x_DD, height = _tamed(a_DD)
    x2_DD = product(x_DD, x_DD)
    x3_DD = product(x2_DD, x_DD)
    first, second, third = (jax.lax.stop_gradient(norm(power_DD)) for power_DD in (x_DD, x2_DD, x3_DD))
    most = _bits(first)
    bits = jnp.clip(_bits(jnp.maximum(jnp.sqrt(second), jnp.cbrt(third))), most - OVERSCALED, most)
    halvings = jnp.where(jnp.isfinite(first), jnp.maximum(height + bits, 0), 0)
    part = scale(jnp.ones_like(first), height - halvings)
    terms = TERMS[a_DD.dtype.name]
    factor = 1 / np.cumprod([1.0, *range(1, terms + 1)])
    sum_DD = factor[terms] * x3_DD
    for k in range(terms - 3, -1, -3):
        sum_DD = sum_DD * part**3 + x2_DD * (factor[k + 2] * part**2) + x_DD * (factor[k + 1] * part) + factor[k] * unit(a_DD)
        sum_DD = product(sum_DD, x3_DD) if k else sum_DD
    return sum_DD, halvings


def _tamed(a_DD: Array) -> tuple[Array, Array]:
    """X and whole numbers h with A = X 2^h, such that X can be squared and cubed."""
    bits = _bits(jax.lax.stop_gradient(peak(a_DD)))
    height = jnp.where(bits > UNSCALED, bits, 0)
    # A branch, because the compiler would scale A anew wherever a product reads it.
    return jax.lax.cond(jnp.any(height != 0), lambda a_DD: scale(a_DD, -height), lambda a_DD: a_DD, a_DD), height


def held(x_DD: Array, exponent: Array) -> tuple[Array, Array]:
    """The same X 2^exponent, the largest element of X at `ceiling`, or as near as one shift takes it."""
    top, most = peak(x_DD), _span(x_DD)
    shift = jnp.where(jnp.isfinite(top) & (top > 0), jnp.clip(_bits(top) - ceiling(x_DD), -most, most), 0)
    return _divided(x_DD, shift), jnp.clip(exponent + shift, -(2**20), 2**20)


def ceiling(x_DD: Array) -> int:
    """The binary exponent up to which elements of X and L can be: X L + L X is in range. 2^-126 / 2^ceiling of the largest is kept."""
    return (jnp.finfo(x_DD.dtype).maxexp - 1 - x_DD.shape[-1].bit_length()) // 2


def scale(x: Array, exponent: Array) -> Array:
    """x 2^exponent, exact within the range of the dtype and monotone beyond it."""
    most = _span(x)
    first = jnp.clip(exponent, -most, most)
    return _divided(_divided(x, -first), -jnp.clip(exponent - first, -most, most))


def _span(x: Array) -> int:
    return jnp.finfo(x.dtype).maxexp - 2


def _divided(x: Array, exponent: Array) -> Array:
    """x / 2^exponent, the exponent at most `_span` up or down.

    As exact as a product, but XLA takes a quotient for dear and does not compute it anew wherever it is read: half the time.
    """
    info = jnp.finfo(x.dtype)
    whole = jnp.asarray(exponent, jnp.int64 if info.bits == 64 else jnp.int32)
    return x / jax.lax.bitcast_convert_type((whole + info.maxexp - 1) << info.nmant, x.dtype)


def _bits(x: Array) -> Array:
    """The least whole number that log2 of x does not pass."""
    mantissa, exponent = jnp.frexp(jnp.maximum(x, jnp.finfo(x.dtype).tiny))
    return (exponent - (mantissa == 0.5)).astype(jnp.int32)


def product(x_DK: Array, y_KF: Array) -> Array:
    """x y of every pair of matrices, in full precision on every device."""
    size = x_DK.shape[-1]
    if not 0 < size <= UNROLLED:
        return jnp.matmul(x_DK, y_KF, precision="highest")
    return functools.reduce(jnp.add, (x_DK[..., :, k, None] * y_KF[..., k, None, :] for k in range(size)))


def norm(x_DD: Array) -> Array:
    """The Frobenius norm of every matrix, (..., 1, 1)."""
    return jnp.sqrt((x_DD * x_DD).sum((-2, -1), keepdims=True))


def peak(x_DD: Array) -> Array:
    """The largest magnitude in every matrix, (..., 1, 1)."""
    return jnp.abs(x_DD).max((-2, -1), keepdims=True)


def unit(like_DD: Array) -> Array:
    """I in the shape and dtype of the argument."""
    return jnp.broadcast_to(jnp.eye(like_DD.shape[-1], dtype=like_DD.dtype), like_DD.shape)


exponential = jax.custom_jvp(value)


@exponential.defjvp
def _along(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (a_DD,), (e_DD,) = primals, tangents
    return exponential(a_DD), slope_p.bind(a_DD, e_DD)


def _slope(a_DD: Array, e_DD: Array) -> Array:
    """L(A, E), the derivative of exp at A in the direction E: the same series and squarings, carried out on pairs (X, L)."""
    steep = jnp.maximum(_bits(peak(a_DD)) - 1, 0) - _bits(peak(e_DD))
    sum_DD, slope_DD, halvings = jax.jvp(series, (a_DD,), (scale(e_DD, steep),), has_aux=True)

    def squared(state: tuple[Array, ...]) -> tuple[Array, ...]:
        k, x_DD, exponent, l_DD, rise = state
        square_DD, twice = held(product(x_DD, x_DD), 2 * exponent)
        both_DD = product(x_DD, l_DD) + product(l_DD, x_DD)
        pairs = (square_DD, x_DD), (twice, exponent), *zip(held(both_DD, exponent + rise), (l_DD, rise), strict=True)
        more = k < halvings
        return k + 1, *(jnp.where(more, new, old) for new, old in pairs)

    start = *held(sum_DD, jnp.zeros_like(halvings)), *held(slope_DD, -steep)
    start = jnp.zeros((), jnp.int32), *start
    _, x_DD, _, l_DD, rise = jax.lax.while_loop(lambda state: jnp.any(state[0] < halvings), squared, start)
    return scale(_told(x_DD, l_DD), rise)


def _slope_jvp(primals: tuple[Array, Array], tangents: tuple) -> tuple[Array, Array]:
    """L is a corner of exp([[A, E], [0, A]]); so its derivative along A is a corner of this matrix's own L."""
    (a_DD, e_DD), (da_DD, de_DD) = primals, tangents
    parts = []
    if type(de_DD) is not ad.Zero:
        parts.append(slope_p.bind(a_DD, de_DD))
    if type(da_DD) is not ad.Zero:
        size, none_DD = a_DD.shape[-1], jnp.zeros_like(a_DD)
        parts.append(slope_p.bind(_corners(a_DD, e_DD), _corners(da_DD, none_DD))[..., :size, size:])
    return slope_p.bind(a_DD, e_DD), functools.reduce(jnp.add, parts)


def _slope_transpose(cotangent_DD: Array, a_DD: Array, e_DD: Array) -> tuple[None, Array]:
    return None, slope_p.bind(a_DD.mT, ad.instantiate_zeros(cotangent_DD))


def _slope_batch(operands: tuple[Array, Array], axes: tuple) -> tuple[Array, int]:
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    return slope_p.bind(*(batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True))), 0


slope_p = jax.extend.core.Primitive("exponential_slope")
slope_p.def_impl(jax.jit(_slope))
slope_p.def_abstract_eval(lambda a_DD, e_DD: e_DD)
ad.primitive_jvps[slope_p] = _slope_jvp
ad.primitive_transposes[slope_p] = _slope_transpose
batching.primitive_batchers[slope_p] = _slope_batch
mlir.register_lowering(slope_p, mlir.lower_fun(_slope, multiple_results=False))


def _corners(x_DD: Array, y_DD: Array) -> Array:
    """[[X, Y], [0, X]]."""
    upper = jnp.concatenate([x_DD, y_DD], axis=-1)
    return jnp.concatenate([upper, jnp.concatenate([jnp.zeros_like(x_DD), x_DD], axis=-1)], axis=-2)
