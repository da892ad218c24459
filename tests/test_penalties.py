"""Each penalty, and all of them together, against loops over the tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from flaxgen import controls, penalties, rules
from tests import oracle

ROWS, PROMPT, ROOM, VOCAB = 3, 5, 8, 7
CASES = pytest.mark.parametrize("cases", [200, pytest.param(1000, marks=pytest.mark.nightly)])

numbers = {
    "repetition_penalty": some.sampled_from([0.25, 0.7, 1.0, 1.3, 5.0]),
    "presence_penalty": some.sampled_from([-2.0, 0.0, 0.5, 2.0]),
    "frequency_penalty": some.sampled_from([-1.0, 0.0, 0.25, 2.0]),
    "no_repeat_ngram": some.sampled_from([0, 1, 2, 3, 5, 100]),
    "logit_bias": some.dictionaries(some.integers(0, VOCAB - 1), some.sampled_from([-3.0, 0.5, 8.0, -np.inf]), max_size=4),
    "ban": some.lists(some.lists(some.integers(0, VOCAB - 1), min_size=2, max_size=4), max_size=9),
}


@jax.jit
def penalised(logit_BV, token_BS, length_B, seen_BV, drawn_BV, steering):
    full = steering.full
    logit_BV = penalties.repetition(logit_BV + controls.bias(steering, VOCAB), seen_BV, full.repetition_B)
    logit_BV = penalties.presence_frequency(logit_BV, drawn_BV, full.presence_B, full.frequency_B)
    logit_BV = penalties.no_repeat(logit_BV, token_BS, length_B, full.no_repeat_B)
    return penalties.ban_sequences(logit_BV, token_BS, length_B, full.ban_BEN)


def counted(rows: list[list[int]]) -> np.ndarray:
    return np.array([np.bincount(row, minlength=VOCAB) for row in rows], np.int32)


def compare(fields: tuple[str, ...], data) -> None:
    each = [rules.Rule(**{name: data.draw(numbers[name]) for name in fields}) for _ in range(ROWS)]
    noise = np.random.default_rng(data.draw(some.integers(0, 2**32 - 1)))
    token_BS = noise.integers(0, VOCAB - 2 * data.draw(some.booleans()), (ROWS, PROMPT + ROOM)).astype(np.int32)
    prompts = [int(noise.integers(1, PROMPT + 1)) for _ in range(ROWS)]
    lengths = [prompt + int(noise.integers(0, ROOM + 1)) for prompt in prompts]
    logit_BV = noise.normal(scale=3, size=(ROWS, VOCAB)).astype(np.float32)
    both = [row[:length].tolist() for row, length in zip(token_BS, lengths, strict=True)]
    drawn_BV = counted([row[prompt:] for row, prompt in zip(both, prompts, strict=True)])
    steering = controls.controls(each, vocab=VOCAB, limit=ROOM, family="full")
    found_BV = penalised(logit_BV, token_BS, np.array(lengths), counted(both) > 0, drawn_BV, controls_of(steering))
    for b, rule in enumerate(each):
        wanted_V = oracle.penalised(logit_BV[b], both[b][: prompts[b]], both[b][prompts[b] :], rule)
        np.testing.assert_allclose(found_BV[b], wanted_V, rtol=1e-5, atol=1e-5)
        if rule == rules.Rule():
            assert (np.asarray(found_BV[b]).view(np.int32) == logit_BV[b].view(np.int32)).all()


def controls_of(steering: controls.Controls) -> controls.Controls:
    """Nine sequences need another bucket than eight; one bucket compiles once."""
    ban_BEN = steering.full.ban_BEN
    wider_BEN = np.full((ROWS, *controls.SEQUENCES[1]), -1, np.int32)
    wider_BEN[:, : ban_BEN.shape[1], -ban_BEN.shape[2] :] = ban_BEN
    return steering.replace(full=steering.full.replace(ban_BEN=wider_BEN))


@CASES
@pytest.mark.parametrize("name", numbers)
def test_each_field_does_to_the_logits_what_loops_over_the_tokens_do(name, cases):
    @settings(max_examples=cases, deadline=None, derandomize=True)
    @given(some.data())
    def holds(data):
        compare((name,), data)

    holds()


@CASES
def test_all_fields_together_do_what_the_loops_do_in_their_order(cases):
    @settings(max_examples=cases, deadline=None, derandomize=True)
    @given(some.data())
    def holds(data):
        compare(tuple(numbers), data)

    holds()


def test_neutral_numbers_change_no_bit():
    logit_BV = jnp.asarray([[-0.0, 0.0, -jnp.inf, 1e-30, jnp.nan]])
    one_B, zero_B, tokens = jnp.ones(1), jnp.zeros(1), (jnp.array([[0, 1, 0]]), jnp.array([3]))
    found = [
        penalties.repetition(logit_BV, jnp.ones((1, 5), bool), one_B),
        penalties.presence_frequency(logit_BV, jnp.ones((1, 5), int), zero_B, zero_B),
        penalties.no_repeat(logit_BV, *tokens, jnp.array([0])),
        penalties.ban_sequences(logit_BV, *tokens, jnp.full((1, 8, 8), -1)),
    ]
    for logit in found:
        assert (np.asarray(logit).view(np.int32) == np.asarray(logit_BV).view(np.int32)).all()


def test_what_lies_behind_the_tokens_so_far_bans_nothing():
    logit_BV = jnp.zeros((1, 7))
    for junk in (0, 6, 2**30, -5):
        found_BV = penalties.no_repeat(logit_BV, jnp.array([[0, 1, 2, 0, 1, junk, junk]]), jnp.array([5]), jnp.array([3]))
        assert np.flatnonzero(np.isinf(found_BV[0])).tolist() == [2]
