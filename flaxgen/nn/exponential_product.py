"""exp(A) x without exp(A): millions of small matrices, one vector each.

The pixels P lie last, so that one instruction works on many of them. For c channels this takes some ten products of a matrix with a vector,
c^2 each, where exp(A) itself takes about as many products of matrices, c^3 each.
"""

import jax
import jax.numpy as jnp

from flaxgen.protocols import Array

TERMS = 10  # of the series, at a norm of at most 1: the first that is left out is at most 1 / 11! = 2.5e-8
MOST = 32  # parts that the unit of time is cut into


@jax.custom_vjp
def move(a_FDP: Array, x_DP: Array, drift_DP: Array) -> Array:
    """y(1) of y' = A y + drift, y(0) = x, for every pixel: exp(A) x where the drift is 0, phi(A) drift where x is 0.

    phi(A) is the sum of A^k / (k + 1)!. The time is cut into as many parts as the norm of A, its largest sum of |A| over a row, is large,
    for each pixel by itself: what a pixel gets does not depend on its neighbours. NaN where the norm is over 32, or not a number.
    It has a derivative backwards, and no second one.
    """
    part_FDP, parts_P = _cut(a_FDP)

    def more(index, y_DP):
        return jnp.where((index < parts_P)[None], _part(part_FDP, y_DP, drift_DP / parts_P[None])[0], y_DP)

    return jax.lax.fori_loop(0, _count(parts_P), more, x_DP) + jnp.where(parts_P > MOST, jnp.nan, 0)[None]


def _forward(a_FDP, x_DP, drift_DP):
    return move(a_FDP, x_DP, drift_DP), (a_FDP, x_DP, drift_DP)


def _backward(given, slope_DP):
    """The parts once more from the last to the first, from where each of them began."""
    a_FDP, x_DP, drift_DP = given
    part_FDP, parts_P = _cut(a_FDP)
    drift_DP, count = drift_DP / parts_P[None], _count(parts_P)

    def more(index, carry):
        y_DP, begun = carry
        begun = begun.at[index].set(y_DP)
        return jnp.where((index < parts_P)[None], _part(part_FDP, y_DP, drift_DP)[0], y_DP), begun

    _, begun = jax.lax.fori_loop(0, count, more, (x_DP, jnp.zeros((MOST, *x_DP.shape), x_DP.dtype)))

    def back(index, carry):
        index = count - 1 - index
        live_P = (index < parts_P)[None].astype(x_DP.dtype)
        steps = _part_backward(part_FDP, begun[index], drift_DP, carry[1] * live_P)
        return jax.tree.map(jnp.add, carry, steps)

    zeros = jnp.zeros_like(a_FDP), slope_DP, jnp.zeros_like(x_DP)
    a_FDP, x_DP, drift_DP = jax.lax.fori_loop(0, count, back, zeros)
    wrong_P = jnp.where(parts_P > MOST, jnp.nan, 0)
    return a_FDP / parts_P[None, None], x_DP + wrong_P[None], drift_DP / parts_P[None]


move.defvjp(_forward, _backward)


def _cut(a_FDP: Array) -> tuple[Array, Array]:
    """A over the number of parts, and that number, at least 1."""
    norm_P = jnp.abs(a_FDP).sum(1).max(0)
    parts_P = jnp.where(norm_P <= MOST, jnp.ceil(jnp.maximum(norm_P, 1)), MOST + 1)
    return a_FDP / parts_P[None, None], parts_P


def _count(parts_P: Array) -> Array:
    return jnp.minimum(parts_P.max(initial=1), MOST).astype(jnp.int32)


def _part(a_FDP: Array, y_DP: Array, drift_DP: Array) -> tuple[Array, Array]:
    """y at the end of one part, y + phi(A) (A y + drift), and the sums of Horner's rule from the last term to the first."""
    slope_DP = product(a_FDP, y_DP) + drift_DP

    def term(sum_DP, index):
        return slope_DP + product(a_FDP, sum_DP) / index, sum_DP

    last_DP, sums_KDP = jax.lax.scan(term, slope_DP, jnp.arange(TERMS, 1, -1, dtype=y_DP.dtype))
    return y_DP + last_DP, sums_KDP


def _part_backward(a_FDP: Array, y_DP: Array, drift_DP: Array, slope_DP: Array) -> tuple[Array, Array, Array]:
    """What a part adds to the gradients of A, y and the drift, given that of its end."""
    _, sums_KDP = _part(a_FDP, y_DP, drift_DP)
    turned_DFP = a_FDP.swapaxes(0, 1)

    def term(carry, index):
        left_DP, total_DP = carry
        left_DP = left_DP / index
        next_DP = product(turned_DFP, left_DP)
        return (next_DP, total_DP + next_DP), left_DP

    (_, all_DP), lefts_KDP = jax.lax.scan(term, (slope_DP, slope_DP), jnp.arange(2, TERMS + 1, dtype=y_DP.dtype))
    pairs = [*zip(lefts_KDP, sums_KDP[::-1], strict=True), (all_DP, y_DP)]
    return sum(left_DP[:, None] * right_DP[None] for left_DP, right_DP in pairs), product(turned_DFP, all_DP), all_DP


def product(a_FDP: Array, x_DP: Array) -> Array:
    """A x, written as a sum over columns: on a CPU the einsum copies A to bring the pixels to the front."""
    return sum(a_FDP[:, column] * x_DP[column][None] for column in range(a_FDP.shape[1]))
