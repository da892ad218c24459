"""What the tokens so far do to the logits of the next one.

Each function is pure, works row by row, and with its neutral number (1 for repetition, 0 for the others, no sequences) changes no bit.
token_BS holds prompt and answer without a gap, length_B of them; what lies behind means nothing.
"""

import jax
import jax.numpy as jnp

from flaxgen.protocols import Array


def repetition(logit_BV: Array, seen_BV: Array, penalty_B: Array) -> Array:
    """Logits of seen tokens divided by the penalty where positive and multiplied by it where negative (Keskar et al. 2019, CTRL)."""
    penalty_BV = jnp.where(seen_BV, penalty_B[:, None], 1)
    return jnp.where(logit_BV > 0, logit_BV / penalty_BV, logit_BV * penalty_BV)


def presence_frequency(logit_BV: Array, drawn_BV: Array, presence_B: Array, frequency_B: Array) -> Array:
    """Logits less presence where the answer holds the token, less frequency for each time it does; drawn_BV counts them."""
    return logit_BV - jnp.where(drawn_BV > 0, presence_B[:, None], 0) - drawn_BV * frequency_B[:, None]


def no_repeat(logit_BV: Array, token_BS: Array, length_B: Array, n_B: Array) -> Array:
    """Logits at -inf for the tokens that would make n tokens in a row stand a second time; n = 0 bans none, n = 1 every token seen.

    The token in slot i is banned when the n - 1 tokens before it equal the last n - 1 tokens. For n = 3 and a b c d a b: c is banned.
    """
    slot_S = jnp.arange(token_BS.shape[1])

    def back(j, live_BS):
        before_BS = jnp.take(token_BS, jnp.maximum(slot_S - j, 0), axis=1)
        last_BT = jnp.take_along_axis(token_BS, jnp.maximum(length_B - j, 0)[:, None], axis=1)
        return live_BS & ((before_BS == last_BT) & (slot_S >= j)[None] | (j >= n_B)[:, None])

    def banned(logit_BV):
        live_BS = (slot_S[None] < length_B[:, None]) & (n_B > 0)[:, None]
        # No more than S tokens lie before a slot, so a longer n finds nothing after S comparisons.
        live_BS = jax.lax.fori_loop(1, jnp.minimum(jnp.max(n_B), token_BS.shape[1] + 1), back, live_BS)
        return _ban(logit_BV, jnp.where(live_BS, token_BS, -1))

    return jax.lax.cond(jnp.any(n_B > 0), banned, lambda logit_BV: logit_BV, logit_BV)


def ban_sequences(logit_BV: Array, token_BS: Array, length_B: Array, ban_BEN: Array) -> Array:
    """Logits at -inf for the last token of each sequence whose other tokens are the last ones so far; -1 on the left is an empty place."""

    def banned(logit_BV):
        width = ban_BEN.shape[2] - 1
        slot_BN = length_B[:, None] + jnp.arange(-width, 0)[None]
        tail_BN = jnp.take_along_axis(token_BS, jnp.maximum(slot_BN, 0), axis=1)
        tail_BN = jnp.where(slot_BN >= 0, tail_BN, -2)
        before_BEN = ban_BEN[:, :, :-1]
        met_BE = ((before_BEN == tail_BN[:, None]) | (before_BEN < 0)).all(axis=2)
        return _ban(logit_BV, jnp.where(met_BE, ban_BEN[:, :, -1], -1))

    return jax.lax.cond(jnp.any(ban_BEN >= 0), banned, lambda logit_BV: logit_BV, logit_BV)


def _ban(logit_BV: Array, token_BE: Array) -> Array:
    """logit_BV with each row's listed tokens at -inf; -1 is an empty place."""
    at_BE = jnp.where(token_BE >= 0, token_BE, logit_BV.shape[1])
    return jax.vmap(lambda logit_V, at_E: logit_V.at[at_E].set(-jnp.inf, mode="drop"))(logit_BV, at_BE)
