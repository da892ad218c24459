"""Which candidates of a beam search go on and which are answers, in the conventions of transformers and of bert4keras.

All of it works on one group of beams of every prompt. R is a beam of the group, so leaves of a Pool begin with (B, R); W is a candidate, a
beam and its next token.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from flaxgen import controls, progress, sampling
from flaxgen.protocols import Array

Early = Literal[True, False, "never"]


@struct.dataclass
class Found:
    """Answers found so far, best first; the score of an empty place is -inf."""

    token_BRN: Array
    log_prob_BRN: Array  # of the model's own softmax
    count_BR: Array
    finish_BR: Array  # places in progress.FINISH
    score_BR: Array


@struct.dataclass
class Pool:
    """A group of beams."""

    progress: progress.Progress
    score_BR: Array  # sum of the log-probabilities as the rule has them, best first; -inf where there is no beam
    found: Found
    over_B: Array


@struct.dataclass
class Candidates:
    score_BW: Array
    parent_BW: Array  # the beam each continues
    progress: progress.Progress


def begin(wishes: controls.Controls, *, rows: int, beams: int, answers: int, room: int, vocab: int) -> Pool:
    """A pool whose first beam stands at the prompt; the others come with the first tokens."""
    one = progress.begin(wishes, rows=rows, room=room, vocab=vocab)
    score_BR = jnp.full((rows, beams), -jnp.inf).at[:, 0].set(0)

    def each(leaf, times):
        return jnp.repeat(leaf[:, None], times, axis=1)

    empty = [each(leaf, answers) for leaf in (one.token_BN, one.log_prob_BN, one.count_B, one.finish_B)]
    found = Found(*empty, jnp.full((rows, answers), -jnp.inf))
    return Pool(jax.tree.map(lambda leaf: each(leaf, beams), one), score_BR, found, jnp.zeros((rows,), bool))


def take(tree, at_BW: Array):
    """The entries at_BW of the second axis of every leaf."""
    each = jax.vmap(lambda leaf_R, at_W: leaf_R.at[at_W].get(mode="promise_in_bounds"))
    return jax.tree.map(lambda leaf: each(leaf, at_BW), tree)


def best(logit_BRV: Array, total_BRV: Array, wishes: controls.Controls, pool: Pool, width: int) -> Candidates:
    """The `width` candidates of the largest totals, best first, each followed by its token; those at -inf do not move."""
    rows, _, vocab = total_BRV.shape
    # A total that is no number comes first and has no token, so that the search ends and says so.
    total_BRV = jnp.where(jnp.isnan(total_BRV), jnp.inf, total_BRV)
    score_BW, at_BW = sampling.likeliest(total_BRV.reshape(rows, -1), width)
    parent_BW, token_BW = at_BW // vocab, jnp.where(score_BW == jnp.inf, sampling.NONE, at_BW % vocab)
    alive_BW = (score_BW > -jnp.inf) & ~pool.over_B[:, None]
    follow = jax.vmap(progress.follow, in_axes=(1, 1, None, 1, 1, None), out_axes=1)
    never_B = jnp.zeros((rows,), bool)
    followed = follow(take(logit_BRV, parent_BW), token_BW, wishes, take(pool.progress, parent_BW), alive_BW, never_B)
    return Candidates(jnp.where(alive_BW, score_BW, -jnp.inf), parent_BW, followed)


def transformers(
    logit_BRV: Array, total_BRV: Array, wishes: controls.Controls, pool: Pool, *, penalty_B: Array, is_end_BV: Array, early_stopping: Early
) -> tuple[Pool, Array]:
    """One move as transformers' generation makes it, and the beam that each of the new ones continues.

    A candidate among the R best overall that ends is an answer of score total / tokens ** penalty; the R best that do not end go on. The
    search is over when no beam can beat the worst of R answers: reckoned at its present length, or for "never" at the length that favours
    it most; with early_stopping=True as soon as there are R answers.
    """
    beams = pool.score_BR.shape[1]
    count_B = pool.progress.count_B[:, 0] + 1

    def normed(score_BW, length_B):
        return score_BW / (length_B.astype(jnp.float32) ** penalty_B)[:, None]

    first = best(logit_BRV, total_BRV, wishes, pool, beams)
    ended_BW = (first.progress.finish_B != progress.RUNNING) & (first.score_BW > -jnp.inf)
    found = merge(pool.found, first.progress, jnp.where(ended_BW, normed(first.score_BW, count_B), -jnp.inf))

    ends_BR = pool.progress.ends_B + 1 >= wishes.min_ends_B[:, None]
    open_BRV = jnp.where(is_end_BV[:, None] & ends_BR[:, :, None], -jnp.inf, total_BRV)
    # Texts may end by automata too, which only following a candidate shows; as many again stand by for those.
    width = beams if wishes.stop is None else 2 * beams
    going = best(logit_BRV, open_BRV, wishes, pool, width)
    goes_BW = going.progress.finish_B == progress.RUNNING
    score_BR, at_BR = jax.lax.top_k(jnp.where(goes_BW, going.score_BW, -jnp.inf), beams)

    never_B = penalty_B > 0 if early_stopping == "never" else jnp.zeros_like(pool.over_B)
    length_B = jnp.where(never_B, wishes.limit_B, count_B)
    over_B = ~(normed(score_BR, length_B)[:, 0] > found.score_BR.min(axis=1))
    if early_stopping is True:
        over_B |= (found.finish_BR != progress.RUNNING).all(axis=1)
    pool = Pool(take(going.progress, at_BR), score_BR, found, pool.over_B | over_B)
    return pool, take(going.parent_BW, at_BR)


def merge(found: Found, candidate: progress.Progress, score_BW: Array) -> Found:
    """The best of what was found before and the candidates; those before win ties."""
    answers = found.score_BR.shape[1]
    score_BR, at_BR = jax.lax.top_k(jnp.concatenate([found.score_BR, score_BW], axis=1), answers)
    new = Found(candidate.token_BN, candidate.log_prob_BN, candidate.count_B, candidate.finish_B, score_BW)
    merged = take(jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), found, new), at_BR)
    # A place without an answer may have taken any candidate; it stays empty.
    empty_BR = score_BR == -jnp.inf
    return merged.replace(
        score_BR=score_BR,
        count_BR=jnp.where(empty_BR, 0, merged.count_BR),
        finish_BR=jnp.where(empty_BR, progress.RUNNING, merged.finish_BR),
    )


def bert4keras(logit_BRV: Array, total_BRV: Array, wishes: controls.Controls, pool: Pool, *, minlen_B: Array) -> tuple[Pool, Array]:
    """One move as bert4keras's AutoRegressiveDecoder.beam_search makes it, and the beam that each of the new ones continues.

    The best totals are the new beams. From minlen tokens on: when the best of them has ended it is the answer; otherwise those that have
    ended leave, and the search goes on with so many fewer. At the limit the best of what is left is the answer. End tokens before minlen
    end nothing.
    """
    beams = pool.score_BR.shape[1]
    count_B = pool.progress.count_B[:, 0] + 1
    width_B = jnp.where(count_B == 1, beams, (pool.score_BR > -jnp.inf).sum(axis=1))
    heirs = best(logit_BRV, total_BRV, wishes, pool, beams)
    score_BR = jnp.where(jnp.arange(beams)[None] < width_B[:, None], heirs.score_BW, -jnp.inf)
    finish_BR = heirs.progress.finish_B
    ended_BR = (finish_BR != progress.RUNNING) & (finish_BR != progress.LENGTH) & (count_B >= minlen_B)[:, None]
    ended_BR |= finish_BR == progress.BROKEN
    answered_B = ended_BR[:, 0]
    left_BR = jnp.where(ended_BR, -jnp.inf, score_BR)
    at_B1 = jnp.where(answered_B, 0, jnp.argmax(left_BR, axis=1))[:, None]

    over_B = pool.over_B | answered_B | (count_B >= wishes.limit_B) | (left_BR == -jnp.inf).all(axis=1)
    answer_B1 = jnp.where(over_B & ~pool.over_B, jnp.take_along_axis(score_BR, at_B1[:, :1], axis=1)[:, 0], -jnp.inf)[:, None]
    found = merge(pool.found, take(heirs.progress, at_B1), answer_B1)
    going = heirs.progress.replace(finish_B=jnp.zeros_like(finish_BR))
    return Pool(going, left_BR, found, over_B), heirs.parent_BW
