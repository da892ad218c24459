"""What a row has drawn so far, and how that and its controls steer the next token.

Past is what lay before the answer and does not move; Progress moves. Every leaf of both begins with the rows, so rows join and leave a
batch, and beams are put in another order, by one tree.map.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from flaxgen import automata, penalties, sampling
from flaxgen.controls import Controls
from flaxgen.nn.attention import place
from flaxgen.protocols import Array

RUNNING, END, LENGTH, STOP, COMPLETE, BROKEN, STUCK = range(7)
FINISH = ("running", "end", "length", "stop", "complete", "broken", "stuck")

# (logit_BV, token_BS, length_B) -> logit_BV: what a user adds to the rule; token_BS holds prompt and answer side by side, length_B of them.
Processor = Callable[[Array, Array, Array], Array]


@struct.dataclass
class Past:
    token_BS: Array  # what penalties see before the answer, usually the prompt, padded on the right
    length_B: Array
    seen_BV: Array | None  # bool: which tokens those are; None in the plain family


@struct.dataclass
class Progress:
    token_BN: Array
    log_prob_BN: Array  # of the model's own softmax, before the rule
    count_B: Array
    ends_B: Array  # end tokens drawn
    finish_B: Array  # why the row is done, a place in FINISH; 0 while it runs
    drawn_BV: Array | None  # how often each token was drawn; None in the plain family
    constraint_B: Array | None  # states of the automata; None but in the constrained family
    stop_B: Array | None
    top_id_BNE: Array | None  # the likeliest tokens at every place and their log-probabilities; None where nobody asked
    top_log_prob_BNE: Array | None


def past(token_BS: Array, length_B: Array, controls: Controls, vocab: int) -> Past:
    """The Past of rows that begin with the first length_B of token_BS."""
    if controls.full is None:
        return Past(token_BS, length_B, None)
    id_BS = jnp.where(jnp.arange(token_BS.shape[1])[None] < length_B[:, None], token_BS, vocab)
    return Past(token_BS, length_B, place(jnp.zeros((len(token_BS), vocab), bool), jnp.ones_like(id_BS, bool), id_BS))


def begin(controls: Controls, *, rows: int, room: int, vocab: int, alternatives: int = 0) -> Progress:
    """Nothing drawn yet, with room for `room` tokens a row."""
    zero_B, blank_BN = jnp.zeros((rows,), jnp.int32), jnp.zeros((rows, room), jnp.int32)
    full, walks = controls.full is not None, controls.constraint is not None
    blank_BNE = jnp.zeros((rows, room, alternatives), jnp.int32) if alternatives else None
    return Progress(
        token_BN=blank_BN,
        log_prob_BN=blank_BN.astype(jnp.float32),
        count_B=zero_B,
        ends_B=zero_B,
        finish_B=zero_B,
        drawn_BV=jnp.zeros((rows, vocab), jnp.int32) if full else None,
        constraint_B=zero_B if walks else None,
        stop_B=zero_B if walks else None,
        top_id_BNE=blank_BNE,
        top_log_prob_BNE=blank_BNE.astype(jnp.float32) if alternatives else None,
    )


def so_far(past: Past, progress: Progress) -> tuple[Array, Array]:
    """(token_BS, length_B): what lay before and what was drawn, side by side without a gap."""
    width = past.token_BS.shape[1]
    both_BS = jnp.concatenate([past.token_BS, progress.token_BN], axis=1)
    slot_BS = jnp.broadcast_to(jnp.arange(both_BS.shape[1])[None], both_BS.shape)
    answer_BS = jnp.minimum(slot_BS - past.length_B[:, None] + width, both_BS.shape[1] - 1)
    at_BS = jnp.where(slot_BS < past.length_B[:, None], slot_BS, answer_BS)
    return jnp.take_along_axis(both_BS, at_BS, axis=1), past.length_B + progress.count_B


def adjust(
    logit_BV: Array, controls: Controls, bias_BV: Array, past: Past, progress: Progress, processors: tuple[Processor, ...] = ()
) -> Array:
    """The logits as rule and progress would have them; what may not come next is at -inf.

    In this order: bias, repetition, presence and frequency, `processors`, n-grams and banned sequences, minimum length, constraint.
    """
    logit_BV = logit_BV.astype(jnp.float32) + bias_BV
    full = controls.full
    if full is not None:
        logit_BV = penalties.repetition(logit_BV, past.seen_BV | (progress.drawn_BV > 0), full.repetition_B)
        logit_BV = penalties.presence_frequency(logit_BV, progress.drawn_BV, full.presence_B, full.frequency_B)
    if full is not None or processors:
        token_BS, length_B = so_far(past, progress)
    for processor in processors:
        logit_BV = processor(logit_BV, token_BS, length_B)
    if full is not None:
        logit_BV = penalties.no_repeat(logit_BV, token_BS, length_B, full.no_repeat_B)
        logit_BV = penalties.ban_sequences(logit_BV, token_BS, length_B, full.ban_BEN)
    too_short_BE = jnp.broadcast_to((progress.count_B < controls.min_tokens_B)[:, None], controls.end_BE.shape)
    logit_BV = _at_ends(logit_BV, controls.end_BE, jnp.where(too_short_BE, -jnp.inf, jnp.inf), "min")
    if controls.constraint is None:
        return logit_BV
    left_B = controls.limit_B - progress.count_B - 1
    allowed_BV, accepting_B = automata.allowed(controls.constraint, progress.constraint_B, left_B)
    accepting_BE = jnp.broadcast_to(accepting_B[:, None], controls.end_BE.shape)
    return jnp.where(_at_ends(allowed_BV, controls.end_BE, accepting_BE, "set"), logit_BV, -jnp.inf)


def _at_ends(x_BV: Array, end_BE: Array, value_BE: Array, how: str) -> Array:
    at_BE = jnp.where(end_BE >= 0, end_BE, x_BV.shape[1])
    return jax.vmap(lambda x_V, at_E, value_E: getattr(x_V.at[at_E], how)(value_E, mode="drop"))(x_BV, at_BE, value_BE)


def draw(
    logit_BV: Array,
    key_B: Array,
    controls: Controls,
    bias_BV: Array,
    past: Past,
    progress: Progress,
    alive_B: Array,
    processors: tuple[Processor, ...] = (),
) -> Progress:
    """`progress` with one more token in the rows that are alive; key_B: the rows' own keys, folded here with the place of the token."""
    allowed_BV = adjust(logit_BV, controls, bias_BV, past, progress, processors)
    token_B = sampling.choose(allowed_BV, jax.vmap(jax.random.fold_in)(key_B, progress.count_B), controls)
    stuck_B = (token_B < 0) & jnp.isfinite(jnp.max(logit_BV, axis=-1))
    return follow(logit_BV, token_B, controls, progress, alive_B, stuck_B)


def follow(logit_BV: Array, token_B: Array, controls: Controls, progress: Progress, alive_B: Array, stuck_B: Array) -> Progress:
    """`progress` after token_B in the rows that are alive: counted, walked along the automata, and done where that ends the row.

    logit_BV: the model's own. stuck_B: where the rule left no token to choose.
    """
    room = progress.token_BN.shape[1]
    log_prob_B = sampling.log_probability(logit_BV, token_B)
    slot_BT = jnp.where(alive_B, progress.count_B, room)[:, None]
    is_end_B = (token_B[:, None] == controls.end_BE).any(axis=1) & (token_B >= 0)
    count_B, ends_B = progress.count_B + alive_B, progress.ends_B + (alive_B & is_end_B)
    reasons = [
        (stuck_B, STUCK),
        (jnp.isnan(log_prob_B), BROKEN),
        (is_end_B & (ends_B >= controls.min_ends_B), END),
        (count_B >= controls.limit_B, LENGTH),
    ]
    changes = {}
    if progress.constraint_B is not None:
        walked_B = automata.walk(controls.constraint, progress.constraint_B, token_B)
        stop_B = automata.walk(controls.stop, progress.stop_B, token_B)
        left_B = jnp.maximum(controls.limit_B - count_B, 1)
        reasons[3:3] = [(automata.hit(controls.stop, stop_B), STOP), (automata.over(controls.constraint, walked_B, left_B), COMPLETE)]
        # An end token is no part of a text under a pattern.
        changes["constraint_B"] = jnp.where(alive_B & ~is_end_B, walked_B, progress.constraint_B)
        changes["stop_B"] = jnp.where(alive_B, stop_B, progress.stop_B)
    if progress.drawn_BV is not None:
        at_B = jnp.where(alive_B, token_B, progress.drawn_BV.shape[1])
        changes["drawn_BV"] = jax.vmap(lambda drawn_V, at: drawn_V.at[at].add(1, mode="drop"))(progress.drawn_BV, at_B)
    if progress.top_id_BNE is not None:
        log_prob_BV = jax.nn.log_softmax(logit_BV.astype(jnp.float32), axis=-1)
        top_BE, id_BE = sampling.likeliest(log_prob_BV, progress.top_id_BNE.shape[2])
        changes["top_id_BNE"] = place(progress.top_id_BNE, id_BE[:, None], slot_BT)
        changes["top_log_prob_BNE"] = place(progress.top_log_prob_BNE, top_BE[:, None], slot_BT)
    finish_B = jnp.select(*map(list, zip(*reasons, strict=True)), RUNNING)
    return progress.replace(
        token_BN=place(progress.token_BN, token_B[:, None], slot_BT),
        log_prob_BN=place(progress.log_prob_BN, log_prob_B[:, None], slot_BT),
        count_B=count_B,
        ends_B=ends_B,
        finish_B=jnp.where(alive_B, finish_B, progress.finish_B),
        **changes,
    )
