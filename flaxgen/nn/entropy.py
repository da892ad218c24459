"""Cross-entropy of a tied output head, without all logits in memory at once."""

from functools import partial

import jax
import jax.numpy as jnp

from flaxgen.nn import blocks
from flaxgen.protocols import Array


def nats(x_BTD: Array, table_VD: Array, target_BT: Array, chunks: int) -> Array:
    """-log softmax(x table^T)[target], nats_BT in float32.

    chunks: 1 keeps logit_BTV (4 V bytes a token) for the backward pass; more go over the vocabulary in so many pieces, of which one is in
    memory at a time, and compute them twice: 8 V D operations a token instead of 6. V need not divide: the last piece begins earlier.
    """
    if chunks == 1:
        return _of_logits(blocks.project(x_BTD, table_VD, jnp.float32), target_BT)
    return _in_chunks(x_BTD, table_VD, target_BT, chunks)


def _slope(logit_BTV, log_sum_BT, column_BT, slope_BT):
    """The gradient at the logits: (softmax - one-hot) times what comes in."""
    share_BTV = jnp.exp(logit_BTV - log_sum_BT[..., None])
    here_BTV = jnp.arange(logit_BTV.shape[-1])[None, None] == column_BT[..., None]
    return (share_BTV - here_BTV) * slope_BT[..., None]


def _picked(logit_BTV, column_BT):
    """The logit in that column, 0 where there is none; a comparison, since the gradient of a lookup is a slow scatter."""
    here_BTV = jnp.arange(logit_BTV.shape[-1])[None, None] == column_BT[..., None]
    return jnp.sum(jnp.where(here_BTV, logit_BTV, 0), axis=-1)


@jax.custom_vjp
def _of_logits(logit_BTV, target_BT):
    return _of_logits_forward(logit_BTV, target_BT)[0]


def _of_logits_forward(logit_BTV, target_BT):
    log_sum_BT = jax.nn.logsumexp(logit_BTV, axis=-1)
    return log_sum_BT - _picked(logit_BTV, target_BT), (logit_BTV, log_sum_BT, target_BT)


def _of_logits_backward(kept, slope_BT):
    logit_BTV, log_sum_BT, target_BT = kept
    return _slope(logit_BTV, log_sum_BT, target_BT, slope_BT), None


_of_logits.defvjp(_of_logits_forward, _of_logits_backward)


def _pieces(vocab: int, chunks: int) -> tuple[int, Array]:
    """The width of a piece, and the first column that each of them adds; pieces are cut so that none reaches beyond the vocabulary."""
    width = -(-vocab // chunks)
    return width, jnp.arange(0, vocab, width)


def _piece(x_BTD, table_VD, first, width):
    """The logits of `width` columns (-inf in those an earlier piece has had), the rows of the table and where they begin."""
    start = jnp.minimum(first, len(table_VD) - width)
    rows_VD = jax.lax.dynamic_slice_in_dim(table_VD, start, width).astype(x_BTD.dtype)
    logit_BTV = blocks.project(x_BTD, rows_VD, jnp.float32)
    return jnp.where(start + jnp.arange(width)[None, None] < first, -jnp.inf, logit_BTV), rows_VD, start


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _in_chunks(x_BTD, table_VD, target_BT, chunks):
    return _in_chunks_forward(x_BTD, table_VD, target_BT, chunks)[0]


def _in_chunks_forward(x_BTD, table_VD, target_BT, chunks):
    width, firsts = _pieces(len(table_VD), chunks)

    def add(so_far, first):
        most_BT, sum_BT, picked_BT = so_far
        logit_BTV, _, start = _piece(x_BTD, table_VD, first, width)
        higher_BT = jnp.maximum(most_BT, logit_BTV.max(axis=-1))
        sum_BT = sum_BT * jnp.exp(most_BT - higher_BT) + jnp.exp(logit_BTV - higher_BT[..., None]).sum(axis=-1)
        column_BT = jnp.where(target_BT >= first, target_BT - start, -1)
        return (higher_BT, sum_BT, picked_BT + _picked(logit_BTV, column_BT)), None

    zero_BT = jnp.zeros(target_BT.shape, jnp.float32)
    (most_BT, sum_BT, picked_BT), _ = jax.lax.scan(add, (zero_BT - jnp.inf, zero_BT, zero_BT), firsts)
    log_sum_BT = most_BT + jnp.log(sum_BT)
    return log_sum_BT - picked_BT, (x_BTD, table_VD, target_BT, log_sum_BT)


def _in_chunks_backward(chunks, kept, slope_BT):
    x_BTD, table_VD, target_BT, log_sum_BT = kept
    width, firsts = _pieces(len(table_VD), chunks)

    def add(so_far, first):
        x_slope_BTD, table_slope_VD = so_far
        logit_BTV, rows_VD, start = _piece(x_BTD, table_VD, first, width)
        column_BT = jnp.where(target_BT >= first, target_BT - start, -1)
        slope_BTV = _slope(logit_BTV, log_sum_BT, column_BT, slope_BT).astype(x_BTD.dtype)
        x_slope_BTD += blocks.einsum("BTV,VD->BTD", slope_BTV, rows_VD)
        rows_slope_VD = jax.lax.dynamic_slice_in_dim(table_slope_VD, start, width)
        rows_slope_VD += blocks.einsum("BTV,BTD->VD", slope_BTV, x_BTD, table_VD.dtype)
        return (x_slope_BTD, jax.lax.dynamic_update_slice_in_dim(table_slope_VD, rows_slope_VD, start, 0)), None

    zeros = jnp.zeros(x_BTD.shape, jnp.float32), jnp.zeros_like(table_VD)
    (x_slope_BTD, table_slope_VD), _ = jax.lax.scan(add, zeros, firsts)
    return x_slope_BTD.astype(x_BTD.dtype), table_slope_VD, None


_in_chunks.defvjp(_in_chunks_forward, _in_chunks_backward)
