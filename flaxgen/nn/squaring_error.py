"""A bound of the error of `squaring`, by following its rounding.

An error E of X = exp(tA) becomes at most 2 |X| |E| + |E|^2 when X is squared, and the product adds its own. |exp(tA)| is at most
e^(t m), m the largest eigenvalue of (A + A') / 2, so that nothing grows where A is skew-symmetric; and at least sqrt(D) e^(t tr A / D),
because the determinant is e^(t tr A). What underflows beside the largest elements is an error like any other.
"""

import jax
import jax.numpy as jnp

from flaxgen.nn import squaring
from flaxgen.protocols import Array


@jax.jit
def relative(a_DD: Array, x_DD: Array) -> Array:
    """No smaller than |X - exp A| / |exp A| in Frobenius norms, for A (..., D, D) in float32 or float64 and X as `squaring` gives it.

    inf where what is followed is as large as X.
    """
    finite = jnp.isfinite(squaring.peak(a_DD)) & jnp.isfinite(squaring.peak(x_DD))
    a_DD = jnp.where(finite, a_DD, 0)
    size, info = a_DD.shape[-1], jnp.finfo(x_DD.dtype)
    high = jnp.linalg.eigvalsh(a_DD / 2 + a_DD.mT / 2)[..., -1:, None] + _rounding(a_DD) * squaring.norm(a_DD)
    mean = jnp.trace(a_DD, axis1=-2, axis2=-1)[..., None, None] / size
    held_DD, exponent, error = _followed(a_DD, high)
    total, least = _norm(held_DD), size**0.5 * _power(mean, exponent)
    error = error + squaring.scale(jnp.full_like(error, size), info.minexp - exponent)
    error = jnp.where((error < total) & finite, error / jnp.maximum(total - error, least) * 1.01 + info.eps / 2, jnp.inf)
    return jnp.where((squaring.peak(x_DD) == 0) & finite, 1, error)[..., 0, 0]


def _followed(a_DD: Array, high: Array) -> tuple[Array, Array, Array]:
    """X, exponent and error of the result X 2^exponent, all errors in units of 2^exponent."""
    sum_DD, halvings = squaring.series(a_DD)
    step = squaring.norm(squaring.scale(a_DD, -halvings))
    start_DD, exponent = squaring.held(sum_DD, jnp.zeros_like(halvings))
    rounding, half = _rounding(a_DD), squaring.ceiling(a_DD)
    lost = a_DD.shape[-1] ** 2 * jnp.finfo(a_DD.dtype).tiny  # to underflow, by a product

    def squared(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        k, x_DD, exponent, error = state
        size_DD = jnp.abs(x_DD)
        spread = _norm(squaring.product(squaring.scale(size_DD, -half), size_DD))
        size = jnp.minimum(_norm(x_DD), _power(squaring.scale(high, k - halvings), exponent) + error)
        error_next = 2 * size * error + error**2 + rounding * squaring.scale(spread, half) + lost
        square_DD, twice = squaring.held(squaring.product(x_DD, x_DD), 2 * exponent)
        error_next = squaring.scale(error_next, 2 * exponent - twice) + lost
        more = k < halvings
        pairs = ((square_DD, x_DD), (twice, exponent), (error_next, error))
        return k + 1, *(jnp.where(more, new, old) for new, old in pairs)

    error = squaring.scale(2 * rounding * (1 + step + step**2 + step**3 / 2), -exponent)
    state = (jnp.zeros((), jnp.int32), start_DD, exponent, error)
    return jax.lax.while_loop(lambda state: jnp.any(state[0] < halvings), squared, state)[1:]


def _norm(x_DD: Array) -> Array:
    """The Frobenius norm of matrices whose squares of elements may be out of range."""
    half = squaring.ceiling(x_DD)
    return squaring.scale(squaring.norm(squaring.scale(x_DD, -half)), half)


def _rounding(a_DD: Array) -> Array:
    """Of a sum of D products, against the sum of their magnitudes: certain up to D = 16, likely beyond."""
    size = a_DD.shape[-1]
    return (min(size, 4 * size**0.5) + 2) * jnp.finfo(a_DD.dtype).eps / 2


def _power(high: Array, exponent: Array) -> Array:
    """e^high in units of 2^exponent."""
    return jnp.exp2(high * jnp.log2(jnp.e) - exponent)
