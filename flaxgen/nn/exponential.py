"""The matrix exponential with its derivative and a bound of its error, and its form for products of thin matrices.

`squaring` says how it is computed, and how many terms the series has.
"""

import jax
import jax.numpy as jnp

from flaxgen.nn import squaring, squaring_error
from flaxgen.protocols import Array


def expm(a_DD: Array) -> Array:
    """exp(A) of every matrix in a_DD or a_BDD (or more axes before the last two), in its dtype, computed in float32 at least.

    Integers give float32. Elements beyond the dtype's range are inf with their sign; a matrix that is not finite gives NaN. Where a few
    huge elements drown all others on the way (a corner of 1e38 beside a diagonal of 0) all are inf.
    Derivatives of any order, forward and reverse, keep nothing but A.
    """
    wide_DD, dtype = checked("a", a_DD)
    return (squaring.exponential(wide_DD) if wide_DD.size else wide_DD).astype(dtype)


def expm_with_error(a_DD: Array) -> tuple[Array, Array]:
    """`expm`, and for every matrix a number no smaller than |X - exp A| / |exp A| in Frobenius norms; no derivative goes through it.

    inf where an element of X is not finite or nothing is certain of X, 1 where all underflow. `squaring_error` says what it follows; it
    sees norms alone, so that of a matrix far from normal, such as [[0, 1e6], [0, 0]], it knows nothing though X is right.
    """
    x_DD = expm(a_DD)
    wide_DD, _ = checked("a", a_DD)
    if not wide_DD.size:
        return x_DD, jnp.zeros(wide_DD.shape[:-2], wide_DD.dtype)
    return x_DD, squaring_error.relative(*jax.lax.stop_gradient((wide_DD, x_DD)))


def logdet(a_DD: Array) -> Array:
    """log det exp(A) = tr A of every matrix, in float32 at least."""
    return jnp.trace(checked("a", a_DD)[0], axis1=-2, axis2=-1)


def phi(a_DD: Array) -> Array:
    """The sum of A^k / (k + 1)!, which is (exp(A) - I) / A where A has an inverse: a corner of exp([[A, I], [0, 0]])."""
    wide_DD, dtype = checked("a", a_DD)
    size = wide_DD.shape[-1]
    upper = jnp.concatenate([wide_DD, squaring.unit(wide_DD)], axis=-1)
    return expm(jnp.concatenate([upper, jnp.zeros_like(upper)], axis=-2))[..., :size, size:].astype(dtype)


def expm_thin(u_DK: Array, v_KD: Array) -> Array:
    """exp(U V) = I + U phi(V U) V by an exponential of size 2 K (Xiao and Liu 2020, arXiv 2007.09651); its log-determinant is tr V U.

    Computed in float32 at least, as `expm` is.
    """
    u_DK, v_KD = jnp.asarray(u_DK), jnp.asarray(v_KD)
    if u_DK.ndim < 2 or u_DK.shape != (*v_KD.shape[:-2], *v_KD.shape[:-3:-1]):
        raise ValueError(f"u and v of shapes {u_DK.shape} and {v_KD.shape}: want (..., D, K) and (..., K, D), the same axes before")
    dtype = jnp.result_type(u_DK, v_KD) if jnp.issubdtype(jnp.result_type(u_DK, v_KD), jnp.inexact) else jnp.float32
    u_DK, v_KD = (each.astype(jnp.promote_types(dtype, jnp.float32)) for each in (u_DK, v_KD))
    x_DD = squaring.product(squaring.product(u_DK, phi(squaring.product(v_KD, u_DK))), v_KD)
    return (x_DD + squaring.unit(x_DD)).astype(dtype)


def checked(name: str, a_DD: Array) -> tuple[Array, jnp.dtype]:
    """The square matrices in float32 or float64, and the dtype that goes back to the caller."""
    a_DD = jnp.asarray(a_DD)
    if a_DD.ndim < 2 or a_DD.shape[-1] != a_DD.shape[-2]:
        raise ValueError(f"{name} of shape {a_DD.shape}: want square matrices, (D, D) or (B, D, D)")
    if jnp.issubdtype(a_DD.dtype, jnp.complexfloating):
        raise ValueError(f"{name} is {a_DD.dtype}, want real numbers; exp(P + iQ) is the left half of exp([[P, -Q], [Q, P]])")
    dtype = a_DD.dtype if jnp.issubdtype(a_DD.dtype, jnp.floating) else jnp.dtype(jnp.float32)
    return a_DD.astype(jnp.promote_types(dtype, jnp.float32)), dtype
