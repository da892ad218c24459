"""The matrix exponential by scaling and squaring, its derivative, and its form for products of thin matrices.

exp(A) = (exp(A / 2^s))^(2^s). s is the fewest halvings that bring a bound of the norm to 1: the bound is the least of the 1-norm, the
infinity-norm and max(|A^2|^(1/2), |A^3|^(1/3)), which bounds the series from the square on (Al-Mohy and Higham 2009). The series is cut
after TERMS powers: what it leaves out is below 1/13! = 1.6e-10 in float32, 1/19! = 8e-18 in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.protocols import Array

TERMS = {"float32": 12, "float64": 18}  # multiples of three: the series is summed in powers of A^3 (Paterson and Stockmeyer 1973)
SQUARINGS = 32  # norms up to 4e9; from 1.7e7 on float32 keeps no digit of an angle
UNROLLED = 24  # up to this size a product is a sum of outer products: on a CPU 1.4 to 80 times as quick as batched matrix products
OVERSCALED = 6  # halvings that the powers may save against the norm; more would drown the powers in rounding
PEAK = (-20, 50)  # binary exponents between which the largest element is held while squaring, so that nothing overflows before its time
STEEP = 100  # binary exponent of a result beyond which its derivative is inf


def expm(a_DD: Array, *, squarings: int = SQUARINGS) -> Array:
    """exp(A) of every matrix in a_DD or a_BDD (or more axes before the last two), in its dtype, computed in float32 at least.

    Integers give float32. Elements beyond the dtype's range are inf with their sign; the derivative there is inf times the direction.
    Matrices of a norm beyond 2^squarings are shrunk to it first. Derivatives of any order, forward and reverse, keep nothing but A.
    """
    wide_DD, dtype = checked("a", a_DD)
    return (_exponential(wide_DD, squarings) if wide_DD.size else wide_DD).astype(dtype)


def logdet(a_DD: Array) -> Array:
    """log det exp(A) = tr A of every matrix, in float32 at least."""
    return jnp.trace(checked("a", a_DD)[0], axis1=-2, axis2=-1)


def phi(a_DD: Array, *, squarings: int = SQUARINGS) -> Array:
    """The sum of A^k / (k + 1)!, which is (exp(A) - I) / A where A has an inverse: a corner of exp([[A, I], [0, 0]])."""
    wide_DD, dtype = checked("a", a_DD)
    size = wide_DD.shape[-1]
    upper = jnp.concatenate([wide_DD, _unit(wide_DD)], axis=-1)
    return expm(jnp.concatenate([upper, jnp.zeros_like(upper)], axis=-2), squarings=squarings)[..., :size, size:].astype(dtype)


def expm_thin(u_DK: Array, v_KD: Array, *, squarings: int = SQUARINGS) -> Array:
    """exp(U V) = I + U phi(V U) V by an exponential of size 2 K (Xiao and Liu 2020, arXiv 2007.09651); its log-determinant is tr V U."""
    if u_DK.ndim < 2 or u_DK.shape != (*v_KD.shape[:-2], *v_KD.shape[:-3:-1]):
        raise ValueError(f"u and v of shapes {u_DK.shape} and {v_KD.shape}: want (..., D, K) and (..., K, D), the same axes before")
    x_DD = product(product(u_DK, phi(product(v_KD, u_DK), squarings=squarings)), v_KD)
    return x_DD + _unit(x_DD)


def product(x_DK: Array, y_KF: Array) -> Array:
    """x y of every pair of matrices, in full precision on every device."""
    size = x_DK.shape[-1]
    if not 0 < size <= UNROLLED:
        return jnp.matmul(x_DK, y_KF, precision="highest")
    return functools.reduce(jnp.add, (x_DK[..., :, k, None] * y_KF[..., k, None, :] for k in range(size)))


def checked(name: str, a_DD: Array) -> tuple[Array, jnp.dtype]:
    """The square matrices in float32 or float64, and the dtype that goes back to the caller."""
    a_DD = jnp.asarray(a_DD)
    if a_DD.ndim < 2 or a_DD.shape[-1] != a_DD.shape[-2]:
        raise ValueError(f"{name} of shape {a_DD.shape}: want square matrices, (D, D) or (B, D, D)")
    if jnp.issubdtype(a_DD.dtype, jnp.complexfloating):
        raise ValueError(f"{name} is {a_DD.dtype}, want real numbers; exp(P + iQ) is the left half of exp([[P, -Q], [Q, P]])")
    dtype = a_DD.dtype if jnp.issubdtype(a_DD.dtype, jnp.floating) else jnp.dtype(jnp.float32)
    return a_DD.astype(jnp.promote_types(dtype, jnp.float32)), dtype


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _exponential(a_DD: Array, squarings: int) -> Array:
    return _evaluate(a_DD, squarings)


@_exponential.defjvp
def _slope(squarings: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """L(A, E), the derivative of exp at A in the direction E: the same series and squarings, carried out on pairs (X, L)."""
    (a_DD,), (e_DD,) = primals, tangents
    x_DD = _exponential(a_DD, squarings)
    steep = ~(_peak(x_DD) < 2.0**STEEP)
    pairs = jax.checkpoint(lambda a_DD, e_DD: jax.jvp(lambda a_DD: _evaluate(a_DD, squarings), (a_DD,), (e_DD,))[1])
    return x_DD, jnp.where(steep, scale(e_DD, jnp.where(steep, 3 * STEEP, 0)), pairs(jnp.where(steep, 0, a_DD), e_DD))


def _evaluate(a_DD: Array, squarings: int) -> Array:
    series_DD, halvings = series(a_DD)

    def squared(state: tuple[Array, Array]) -> tuple[Array, Array]:
        x_DD, exponent = held(*state)
        return product(x_DD, x_DD), 2 * exponent

    def step(state: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
        more = k < halvings
        moved = jax.lax.cond(jnp.any(more), squared, lambda state: state, state)
        return jax.tree.map(lambda new, old: jnp.where(more, new, old), moved, state), None

    (x_DD, exponent), _ = jax.lax.scan(step, (series_DD, jnp.zeros_like(halvings)), jnp.arange(squarings))
    return scale(x_DD, exponent)


def series(a_DD: Array) -> tuple[Array, Array]:
    """exp(A / 2^s) by its series, and s of each matrix, int32 with the axes of A; 0 where A is not finite."""
    peak = jax.lax.stop_gradient(_peak(a_DD))
    height = jnp.where(jnp.isfinite(peak), _bits(peak), 0)
    a1_DD = scale(a_DD, -height)
    a2_DD = product(a1_DD, a1_DD)
    a3_DD = product(a2_DD, a1_DD)
    norm, second, third = (jax.lax.stop_gradient(_norm(x_DD)) for x_DD in (a1_DD, a2_DD, a3_DD))
    bits = _bits(norm)
    bits = jnp.clip(_bits(jnp.maximum(jnp.sqrt(second), jnp.cbrt(third))), bits - OVERSCALED, bits)
    halvings = jnp.where(jnp.isfinite(peak), jnp.maximum(height + bits, 0), 0)
    x_DD, x2_DD, x3_DD = (scale(power_DD, k * (height - halvings)) for k, power_DD in ((1, a1_DD), (2, a2_DD), (3, a3_DD)))
    terms = TERMS[a_DD.dtype.name]
    factor = 1 / np.cumprod([1.0, *range(1, terms + 1)])
    sum_DD = factor[terms] * x3_DD
    for k in range(terms - 3, -1, -3):
        sum_DD = factor[k] * _unit(a_DD) + factor[k + 1] * x_DD + factor[k + 2] * x2_DD + sum_DD
        sum_DD = product(sum_DD, x3_DD) if k else sum_DD
    return sum_DD, halvings


def held(x_DD: Array, exponent: Array) -> tuple[Array, Array]:
    """The same X 2^exponent, with the largest element of X within PEAK."""
    peak = jax.lax.stop_gradient(_peak(x_DD))
    bits = _bits(peak)
    shift = jnp.where(jnp.isfinite(peak) & (peak > 0), bits - jnp.clip(bits, *PEAK), 0)
    return scale(x_DD, -shift), jnp.clip(exponent + shift, -(2**20), 2**20)


def scale(x: Array, exponent: Array) -> Array:
    """x 2^exponent, exact within the range of the dtype and monotone beyond it."""
    info = jnp.finfo(x.dtype)
    whole = jnp.asarray(exponent, jnp.int64 if info.bits == 64 else jnp.int32)
    for _ in range(3):
        part = jnp.clip(whole, 2 - info.maxexp, info.maxexp - 2)
        x = x * jax.lax.bitcast_convert_type((part + info.maxexp - 1) << info.nmant, x.dtype)
        whole = whole - part
    return x


def _bits(x: Array) -> Array:
    """The least whole number that log2 of x does not pass."""
    mantissa, exponent = jnp.frexp(jnp.maximum(x, jnp.finfo(x.dtype).tiny))
    return (exponent - (mantissa == 0.5)).astype(jnp.int32)


def _norm(x_DD: Array) -> Array:
    size_DD = jnp.abs(x_DD)
    return jnp.minimum(size_DD.sum(-1, keepdims=True).max(-2, keepdims=True), size_DD.sum(-2, keepdims=True).max(-1, keepdims=True))


def _peak(x_DD: Array) -> Array:
    return jnp.abs(x_DD).max((-2, -1), keepdims=True)


def _unit(like_DD: Array) -> Array:
    return jnp.broadcast_to(jnp.eye(like_DD.shape[-1], dtype=like_DD.dtype), like_DD.shape)
