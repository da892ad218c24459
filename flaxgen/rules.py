"""Logits to a token: temperature, top-k, both conventions of top-p, bans, and draws that no layout can change.

Nothing sorts the vocabulary. The 256 largest logits settle nearly every row; a row whose kept set may be wider finds its threshold by
bisection on the bits of its logits. The noise of a token is a function of (the row's key at this position, the token's id), so both ways
draw the same token.
"""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen.protocols import Array

WINDOW = 256
SMALLEST_TEMPERATURE = 1e-4


@struct.dataclass
class Rule:
    """How a token is chosen from logits. Each field is a number, or one number a row; changing one never recompiles.

    temperature: divides the logits; 0 takes the likeliest token. top_k: keeps the k likeliest; 0 keeps all.
    top_p: keeps the fewest likeliest tokens whose probabilities reach p, the crossing token among them (Holtzman et al. 2020, eq. 2).
    top_p_below: keeps tokens while the sum of probabilities stays below p, the crossing token dropped, the first always kept: the sampler
        of gpt2-ml. For probabilities .5 .3 .15 .05 and p = .7, top_p keeps two tokens and top_p_below one.
    min_tokens: end tokens are banned until this many have been drawn.

    top_k comes first, and both top-p then see the probabilities renormalised over what it kept.
    """

    temperature: Any = 1.0
    top_k: Any = 0
    top_p: Any = 1.0
    top_p_below: Any = 1.0
    min_tokens: Any = 0

    def rows(self, rows: int) -> "Rule":
        """The same rule with one checked entry a row; ValueError names the field and its range."""
        return Rule(**{name: _column(name, getattr(self, name), rows) for name in _RANGES})


_RANGES = {
    "temperature": (np.float32, 0.0, 1e4),
    "top_k": (np.int32, 0, 2**31 - 1),
    "top_p": (np.float32, 0.0, 1.0),
    "top_p_below": (np.float32, 0.0, 1.0),
    "min_tokens": (np.int32, 0, 2**31 - 1),
}


def _column(name: str, value, rows: int) -> np.ndarray:
    kind, low, high = _RANGES[name]
    what = "a whole number" if kind is np.int32 else "a number"
    try:
        column = np.asarray(value)
        whole = np.issubdtype(column.dtype, np.integer)
        good = whole or (kind is np.float32 and np.issubdtype(column.dtype, np.floating))
        good = good and column.shape in ((), (rows,)) and bool(np.all((column >= low) & (column <= high)))
    except (TypeError, ValueError):
        good = False
    if not good:
        each = "" if isinstance(value, numbers.Number) else f", or one for each of the {rows} rows"
        raise ValueError(f"Rule({name}={value!r}): wanted {what} from {low} to {high}{each}")
    return np.broadcast_to(column, (rows,)).astype(kind)


def choose(logit_BV: Array, key_B: Array, rule: Rule) -> Array:
    """The next token of each row; key_B holds each row's key at this position."""
    logit_BV = logit_BV.astype(jnp.float32)
    best_B = jnp.argmax(logit_BV, axis=-1).astype(jnp.int32)
    greedy_B = rule.temperature == 0
    token_B = jax.lax.cond(jnp.all(greedy_B), lambda *_: best_B, _sample, logit_BV, key_B, rule)
    return jnp.where(greedy_B, best_B, token_B)


def log_probability(logit_BV: Array, token_B: Array) -> Array:
    """log softmax(logit)[token] of each row; NaN where a logit is NaN or infinite upwards."""
    logit_BV = logit_BV.astype(jnp.float32)
    return jnp.take_along_axis(logit_BV, token_B[:, None], axis=1)[:, 0] - jax.nn.logsumexp(logit_BV, axis=-1)


def ban(logit_BV: Array, token_BE: Array, when_B: Array) -> Array:
    """logit_BV with each row's listed tokens at -inf in the rows where `when_B`; entries of -1 are empty places of the list."""
    vocab = logit_BV.shape[1]
    at_BE = jnp.where((token_BE >= 0) & when_B[:, None], token_BE, vocab)
    return jax.vmap(lambda logit_V, at_E: logit_V.at[at_E].set(-jnp.inf, mode="drop"))(logit_BV, at_BE)


def _sample(logit_BV: Array, key_B: Array, rule: Rule) -> Array:
    scaled_BV = logit_BV / jnp.maximum(rule.temperature, SMALLEST_TEMPERATURE)[:, None]
    vocab = logit_BV.shape[1]
    window = min(WINDOW, vocab)
    top_BW, id_BW = jax.lax.top_k(scaled_BV, window)
    limit_B = jnp.where(rule.top_k == 0, vocab, jnp.minimum(rule.top_k, vocab))
    rank_W = jnp.arange(window)
    inside_BW = rank_W[None] < limit_B[:, None]
    # Above the window's width top-k counts as absent in the sum; such a row goes the wide way below, where the sum is right.
    narrow_B = limit_B <= window
    log_sum_B = jnp.where(narrow_B, jax.nn.logsumexp(jnp.where(inside_BW, top_BW, -jnp.inf), axis=-1), jax.nn.logsumexp(scaled_BV, axis=-1))
    share_BW = jnp.where(inside_BW, jnp.exp(top_BW - log_sum_B[:, None]), 0)
    reached_BW = jnp.cumsum(share_BW, axis=-1)
    keep_BW = inside_BW & (reached_BW - share_BW < rule.top_p[:, None])
    keep_BW &= (reached_BW < rule.top_p_below[:, None]) | (rule.top_p_below >= 1)[:, None]
    keep_BW = (keep_BW | (rank_W == 0)[None]) & (top_BW > -jnp.inf)
    cut_B = (reached_BW[:, -1] >= rule.top_p) & (rule.top_p < 1) | (reached_BW[:, -1] >= rule.top_p_below) & (rule.top_p_below < 1)
    settled_B = narrow_B | cut_B & (rule.top_k == 0) | (rule.temperature == 0)

    noisy_BW = jnp.where(keep_BW, top_BW + _noise(key_B, id_BW), -jnp.inf)
    token_B = jnp.take_along_axis(id_BW, jnp.argmax(noisy_BW, axis=-1)[:, None], axis=1)[:, 0]
    wide_B = jax.lax.cond(jnp.all(settled_B), lambda *_: token_B, _sample_wide, scaled_BV, key_B, rule, limit_B)
    return jnp.where(settled_B, token_B, wide_B)


def _sample_wide(scaled_BV: Array, key_B: Array, rule: Rule, limit_B: Array) -> Array:
    """The draw over the whole vocabulary; tokens that tie with the last one kept are kept too."""
    order_BV = _ordered_bits(scaled_BV)
    kept_BV = order_BV >= _threshold(order_BV, jnp.ones_like(scaled_BV), limit_B.astype(jnp.float32))[:, None]
    share_BV = jax.nn.softmax(jnp.where(kept_BV, scaled_BV, -jnp.inf), axis=-1)
    crossing_B = _threshold(order_BV, share_BV, rule.top_p)
    kept_BV &= (order_BV >= crossing_B[:, None]) | (rule.top_p >= 1)[:, None]
    crossing_B = _threshold(order_BV, share_BV, rule.top_p_below)
    first_BV = order_BV == order_BV.max(axis=-1, keepdims=True)
    kept_BV &= (order_BV > crossing_B[:, None]) | first_BV | (rule.top_p_below >= 1)[:, None]
    id_BV = jnp.broadcast_to(jnp.arange(scaled_BV.shape[1], dtype=jnp.int32)[None], scaled_BV.shape)
    noisy_BV = jnp.where(kept_BV & (scaled_BV > -jnp.inf), scaled_BV + _noise(key_B, id_BV), -jnp.inf)
    return jnp.argmax(noisy_BV, axis=-1).astype(jnp.int32)


def _ordered_bits(x_BV: Array) -> Array:
    """Unsigned whole numbers in the order of the floats."""
    bits_BV = jax.lax.bitcast_convert_type(x_BV, jnp.uint32)
    return jnp.where(bits_BV >> 31 == 1, ~bits_BV, bits_BV | jnp.uint32(1 << 31))


def _threshold(order_BV: Array, weight_BV: Array, target_B: Array) -> Array:
    """The largest number whose equals and betters weigh at least the target, bit by bit from the top."""

    def bit(i, found_B):
        trial_B = found_B | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        weight_B = jnp.where(order_BV >= trial_B[:, None], weight_BV, 0).sum(axis=-1)
        return jnp.where(weight_B >= target_B, trial_B, found_B)

    return jax.lax.fori_loop(0, 32, bit, jnp.zeros(target_B.shape, jnp.uint32))


def _noise(key_B: Array, id_BW: Array) -> Array:
    """Gumbel noise by (key of the row, token id) alone (Gumbel 1954; the argmax of logits plus noise is a draw from the softmax)."""
    keys_BW = jax.vmap(lambda key, id_W: jax.vmap(lambda i: jax.random.fold_in(key, i))(id_W))(key_B, id_BW)
    return jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, (), jnp.float32)))(keys_BW)
