"""Logits to a token: temperature, what is kept, and draws that no layout can change.

Nothing sorts the vocabulary. The 256 largest logits settle nearly every row; a row whose kept set may be wider finds its thresholds by
bisection on the bits of its numbers. The noise of a token is a function of (the row's key at this position, the token's id), so both ways
draw the same token.
"""

import jax
import jax.numpy as jnp

from flaxgen.controls import Controls
from flaxgen.protocols import Array

WINDOW = 256
SMALLEST_TEMPERATURE = 1e-4
NONE = -1  # the token of a row that has no token to choose


def choose(logit_BV: Array, key_B: Array, controls: Controls) -> Array:
    """The next token of each row, -1 where all logits are -inf or one is NaN or inf; key_B holds each row's key at this position."""
    logit_BV = logit_BV.astype(jnp.float32)
    best_B = jnp.argmax(logit_BV, axis=-1).astype(jnp.int32)  # that of the first NaN, if there is one
    greedy_B = controls.temperature_B == 0
    token_B = jax.lax.cond(jnp.all(greedy_B), lambda *_: best_B, _sample, logit_BV, key_B, controls)
    peak_B = jnp.take_along_axis(logit_BV, best_B[:, None], axis=1)[:, 0]
    return jnp.where(jnp.isfinite(peak_B), jnp.where(greedy_B, best_B, token_B), NONE)


def log_probability(logit_BV: Array, token_B: Array) -> Array:
    """log softmax(logit)[token] of each row; NaN where a logit is NaN or infinite upwards, all are -inf, or there is no token (-1)."""
    logit_BV = logit_BV.astype(jnp.float32)
    found_B = jnp.take_along_axis(logit_BV, jnp.maximum(token_B, 0)[:, None], axis=1)[:, 0] - jax.nn.logsumexp(logit_BV, axis=-1)
    return jnp.where(token_B >= 0, found_B, jnp.nan)


def _sample(logit_BV: Array, key_B: Array, controls: Controls) -> Array:
    scaled_BV = logit_BV / jnp.maximum(controls.temperature_B, SMALLEST_TEMPERATURE)[:, None]
    kept_BW, top_BW, id_BW, settled_B = narrow(scaled_BV, controls)
    settled_B |= controls.temperature_B == 0
    noisy_BW = jnp.where(kept_BW, top_BW + _noise(key_B, id_BW), -jnp.inf)
    token_B = jnp.take_along_axis(id_BW, jnp.argmax(noisy_BW, axis=-1)[:, None], axis=1)[:, 0]
    wide_B = jax.lax.cond(jnp.all(settled_B), lambda *_: token_B, _sample_wide, scaled_BV, key_B, controls)
    return jnp.where(settled_B, token_B, wide_B)


def _sample_wide(scaled_BV: Array, key_B: Array, controls: Controls) -> Array:
    id_BV = jnp.broadcast_to(jnp.arange(scaled_BV.shape[1], dtype=jnp.int32)[None], scaled_BV.shape)
    noisy_BV = jnp.where(wide(scaled_BV, controls), scaled_BV + _noise(key_B, id_BV), -jnp.inf)
    return jnp.argmax(noisy_BV, axis=-1).astype(jnp.int32)


def likeliest(logit_BV: Array, count: int) -> tuple[Array, Array]:
    """(logit_BW, id_BW): the `count` largest entries of each row, largest first, and their places."""
    # Where a slice of what top_k gives is taken, XLA's CPU sorts the whole vocabulary: 11 ms for .6 at 50,257 tokens.
    return jax.lax.optimization_barrier(tuple(jax.lax.top_k(logit_BV, count)))


def narrow(scaled_BV: Array, controls: Controls) -> tuple[Array, Array, Array, Array]:
    """(kept_BW, logit_BW, id_BW, settled_B): what is kept of the likeliest tokens, and in which rows that is all that is kept."""
    vocab = scaled_BV.shape[1]
    window = min(WINDOW, vocab)
    top_BW, id_BW = likeliest(scaled_BV, window)
    limit_B = _limit(controls, vocab)
    rank_W = jnp.arange(window)
    inside_BW = rank_W[None] < limit_B[:, None]
    # Above the window's width top-k counts as absent in the sum; such a row goes the wide way, where the sum is right.
    whole_B = limit_B <= window
    log_sum_B = jnp.where(whole_B, jax.nn.logsumexp(jnp.where(inside_BW, top_BW, -jnp.inf), axis=-1), jax.nn.logsumexp(scaled_BV, axis=-1))
    share_BW = jnp.where(inside_BW, jnp.exp(top_BW - log_sum_B[:, None]), 0)
    reached_BW = jnp.cumsum(share_BW, axis=-1)
    top_p_B, below_B = controls.top_p_B, controls.top_p_below_B
    first_BW = (rank_W == 0)[None]
    kept_BW = inside_BW & ((reached_BW - share_BW < top_p_B[:, None]) | (top_p_B >= 1)[:, None]) | first_BW
    cut_B = (reached_BW[:, -1] >= top_p_B) & (top_p_B < 1)
    # The mass that top-p kept is known once it ends inside the window, or where there is no top-p.
    known_B = cut_B | (top_p_B >= 1) | (below_B >= 1)
    mass_B = jnp.where(top_p_B < 1, jnp.where(kept_BW, share_BW, 0).sum(axis=-1), 1)
    kept_BW &= (reached_BW < (below_B * mass_B)[:, None]) | (below_B >= 1)[:, None] | first_BW
    cut_B |= (reached_BW[:, -1] >= below_B * mass_B) & (below_B < 1)
    kept_BW &= top_BW > -jnp.inf
    if controls.full is not None:
        least_B = _least(top_BW[:, 0], controls)
        kept_BW &= top_BW >= least_B[:, None]
        cut_B |= top_BW[:, -1] < least_B
    settled_B = whole_B | cut_B & known_B & (controls.top_k_B == 0)
    if controls.full is not None:
        kept_BW = _typical(kept_BW, top_BW, controls)
    return kept_BW, top_BW, id_BW, settled_B


def wide(scaled_BV: Array, controls: Controls) -> Array:
    """kept_BV: what is kept of the whole vocabulary; tokens that tie with the last one kept are kept too."""
    limit_B = _limit(controls, scaled_BV.shape[1])
    top_p_B, below_B = controls.top_p_B, controls.top_p_below_B
    order_BV = _ordered_bits(scaled_BV)
    best_B = order_BV.max(axis=-1)
    kept_BV = order_BV >= _threshold(order_BV, jnp.ones_like(scaled_BV), limit_B.astype(jnp.float32))[:, None]
    share_BV = jax.nn.softmax(jnp.where(kept_BV, scaled_BV, -jnp.inf), axis=-1)
    crossing_B = jnp.where(top_p_B < 1, _threshold(order_BV, share_BV, top_p_B), 0)
    kept_BV &= order_BV >= crossing_B[:, None]
    mass_B = jnp.where(top_p_B < 1, jnp.where(kept_BV, share_BV, 0).sum(axis=-1), 1)
    crossing_B = _threshold(order_BV, share_BV, below_B * mass_B)
    kept_BV &= (order_BV > crossing_B[:, None]) | (order_BV == best_B[:, None]) | (below_B >= 1)[:, None]
    kept_BV &= scaled_BV > -jnp.inf
    if controls.full is not None:
        kept_BV &= scaled_BV >= _least(scaled_BV.max(axis=-1), controls)[:, None]
        kept_BV = _typical(kept_BV, scaled_BV, controls)
    return kept_BV


def _limit(controls: Controls, vocab: int) -> Array:
    return jnp.where(controls.top_k_B == 0, vocab, jnp.minimum(controls.top_k_B, vocab))


def _least(best_B: Array, controls: Controls) -> Array:
    """The least logit that min-p keeps: p >= min_p * p_max (Nguyen et al. 2024)."""
    return best_B + jnp.log(controls.full.min_p_B)


def _typical(kept_BW: Array, scaled_BW: Array, controls: Controls) -> Array:
    """Of what was kept, the tokens nearest the entropy in surprise until they reach p, crossing token and its ties included.

    Meister et al. 2022, eq. 9: by |-log p(w) - H|, ascending.
    """
    typical_B = controls.full.typical_p_B

    def cut(kept_BW):
        log_BW = jax.nn.log_softmax(jnp.where(kept_BW, scaled_BW, -jnp.inf), axis=-1)
        share_BW = jnp.exp(log_BW)
        entropy_B = -jnp.where(kept_BW, share_BW * log_BW, 0).sum(axis=-1)
        near_BW = _ordered_bits(-jnp.abs(log_BW + entropy_B[:, None]))
        crossing_B = _threshold(near_BW, share_BW, typical_B)
        return kept_BW & ((near_BW >= crossing_B[:, None]) | (typical_B >= 1)[:, None])

    return jax.lax.cond(jnp.all(typical_B >= 1), lambda kept_BW: kept_BW, cut, kept_BW)


def _ordered_bits(x_BV: Array) -> Array:
    """Unsigned whole numbers in the order of the floats, both zeros alike."""
    bits_BV = jax.lax.bitcast_convert_type(jnp.where(x_BV == 0, 0, x_BV), jnp.uint32)
    return jnp.where(bits_BV >> 31 == 1, ~bits_BV, bits_BV | jnp.uint32(1 << 31))


def _threshold(order_BV: Array, weight_BV: Array, target_B: Array) -> Array:
    """The largest number, at most the best one's, whose equals and betters weigh at least the target; bit by bit from the top."""

    def bit(i, found_B):
        trial_B = found_B | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        weight_B = jnp.where(order_BV >= trial_B[:, None], weight_BV, 0).sum(axis=-1)
        return jnp.where(weight_B >= target_B, trial_B, found_B)

    found_B = jax.lax.fori_loop(0, 32, bit, jnp.zeros(target_B.shape, jnp.uint32))
    return jnp.minimum(found_B, order_BV.max(axis=-1))


def _noise(key_B: Array, id_BW: Array) -> Array:
    """Gumbel noise by (key of the row, token id) alone (Gumbel 1954; the argmax of logits plus noise is a draw from the softmax)."""
    keys_BW = jax.vmap(lambda key, id_W: jax.vmap(lambda i: jax.random.fold_in(key, i))(id_W))(key_B, id_BW)
    return jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, (), jnp.float32)))(keys_BW)
