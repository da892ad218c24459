"""Choosing a token: which are kept, how often each is drawn, and that both ways of drawing agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as some

from flaxgen import controls, rules, sampling
from tests import oracle

SPEC = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
ROWS, VOCAB = 3, 401
CASES = pytest.mark.parametrize("cases", [60, pytest.param(1000, marks=pytest.mark.nightly)])
choose = jax.jit(sampling.choose)

filters = {
    "temperature": some.sampled_from([0.0, 0.3, 0.7, 1.0, 1.7]),
    "top_k": some.sampled_from([0, 1, 5, 40, 256, 257, 300, 5000]),
    "top_p": some.sampled_from([0.0, 0.2, 0.7, 0.93, 1.0]),
    "top_p_below": some.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]),
    "min_p": some.sampled_from([0.0, 0.01, 0.1, 0.6, 1.0]),
    "typical_p": some.sampled_from([0.1, 0.5, 0.9, 0.97, 1.0]),
}


def steering(rows, vocab, family=None, **rule) -> controls.Controls:
    return controls.controls(rules.spread(rules.Rule(**rule), rows), vocab=vocab, limit=9, family=family)


def drawn(logit_V, draws=400, **rule) -> np.ndarray:
    logit_BV = jnp.broadcast_to(jnp.asarray(logit_V)[None], (draws, len(logit_V)))
    keys = jax.random.split(jax.random.key(0), draws)
    return np.asarray(choose(logit_BV, keys, steering(draws, len(logit_V), "full", **rule)))


@pytest.mark.parametrize(
    ("p", "kept", "below"), [(0.7, {0, 1}, {0}), (0.81, {0, 1, 2}, {0, 1}), (0.94, {0, 1, 2}, {0, 1}), (0.96, {0, 1, 2, 3}, {0, 1, 2})]
)
def test_both_conventions_of_top_p_keep_the_published_sets(p, kept, below):
    assert set(drawn(SPEC, top_p=p)) == kept
    assert set(drawn(SPEC, top_p_below=p)) == below


def test_each_filter_sees_the_probabilities_renormalised_over_what_was_kept_before():
    # Of .5 .3 .15 the second reaches .8 / .95 = .842 of the mass, so p = .83 is crossed by it and p = .85 by the third.
    assert set(drawn(SPEC, top_k=3, top_p=0.83)) == {0, 1}
    assert set(drawn(SPEC, top_k=3, top_p=0.85)) == {0, 1, 2}
    # Of .5 .3 the first reaches .625 of the mass.
    assert set(drawn(SPEC, top_p=0.7, top_p_below=0.6)) == set(drawn(SPEC, top_p=0.7, top_p_below=0.9)) - {1} == {0}
    assert set(drawn(SPEC, top_k=1)) == {0}


def test_min_p_and_typical_p_keep_what_their_papers_say():
    assert set(drawn(SPEC, min_p=0.29)) == {0, 1, 2}
    assert set(drawn(SPEC, min_p=0.31)) == {0, 1}
    # The entropy is 1.14; the surprises .69 1.20 1.90 3.00 lie .45 .06 .75 1.85 from it.
    assert set(drawn(SPEC, typical_p=0.29)) == {1}
    assert set(drawn(SPEC, typical_p=0.31)) == {0, 1}
    assert set(drawn(SPEC, typical_p=0.81)) == {0, 1, 2}


def test_temperature_zero_is_the_argmax_and_a_tiny_top_p_keeps_one():
    logit_V = np.random.default_rng(0).normal(size=VOCAB).astype(np.float32)
    for rule in ({"temperature": 0}, {"top_p": 0}, {"top_p_below": 0}, {"top_k": 300, "top_p": 0}, {"min_p": 1}):
        assert set(drawn(logit_V, draws=ROWS, **rule)) == {logit_V.argmax()}


def case(fields, data) -> tuple[np.ndarray, list[rules.Rule], list[set[int]]]:
    """Random logits, rules and what the oracle keeps, a row each; a decision nearer than rounding is no case."""
    each = [rules.spread(rules.Rule(**{name: data.draw(filters[name]) for name in fields}), 1)[0] for _ in range(ROWS)]
    noise = np.random.default_rng(data.draw(some.integers(0, 2**32 - 1)))
    logit_BV = data.draw(some.sampled_from([0.1, 1.0, 3.0, 9.0])) * noise.normal(size=(ROWS, VOCAB))
    logit_BV[noise.random((ROWS, VOCAB)) < data.draw(some.sampled_from([0.0, 0.1, 0.99]))] = -np.inf
    logit_BV[:, 7] = 0
    logit_BV = logit_BV.astype(np.float32)
    wanted = [oracle.kept(logit_V, rule) for logit_V, rule in zip(logit_BV, each, strict=True)]
    assume(min(margin for _, margin in wanted) > 1e-5)
    return logit_BV, each, [ids for ids, _ in wanted]


@jax.jit
def kept(logit_BV, steering):
    scaled_BV = logit_BV / jnp.maximum(steering.temperature_B, sampling.SMALLEST_TEMPERATURE)[:, None]
    return sampling.wide(scaled_BV, steering), sampling.narrow(scaled_BV, steering)


def check_kept(fields, data) -> None:
    logit_BV, each, wanted = case(fields, data)
    steering = controls.controls(each, vocab=VOCAB, limit=9, family="full")
    wide_BV, (kept_BW, _, id_BW, settled_B) = jax.device_get(kept(logit_BV, steering))
    token_B = np.asarray(choose(logit_BV, jax.random.split(jax.random.key(data.draw(some.integers(0, 99))), ROWS), steering))
    for b, ids in enumerate(wanted):
        assert token_B[b] in ids
        if each[b].temperature > 0:
            assert set(np.flatnonzero(wide_BV[b])) == ids
            assert set(id_BW[b][kept_BW[b]]) == ids or not settled_B[b]


@CASES
@pytest.mark.parametrize(
    "names", [*((name,) for name in filters), ("top_k", "top_p"), ("top_p", "top_p_below"), ("top_p", "min_p")], ids=str
)
def test_each_filter_keeps_what_a_sort_and_a_loop_keep(names, cases):
    @settings(max_examples=cases, deadline=None, derandomize=True)
    @given(some.data())
    def holds(data):
        check_kept(names, data)

    holds()


@CASES
def test_all_filters_together_keep_what_the_loops_keep_one_after_the_other(cases):
    @settings(max_examples=cases, deadline=None, derandomize=True)
    @given(some.data())
    def holds(data):
        check_kept(tuple(filters), data)

    holds()


@jax.jit
def both_ways(logit_BV, keys, steering):
    scaled_BV = logit_BV / jnp.maximum(steering.temperature_B, sampling.SMALLEST_TEMPERATURE)[:, None]
    greedy_or_settled_B = sampling.narrow(scaled_BV, steering)[3] | (steering.temperature_B == 0)
    return sampling._sample_wide(scaled_BV, keys, steering), greedy_or_settled_B


@CASES
def test_the_narrow_and_the_wide_way_draw_the_same_tokens(cases):
    settled = []

    @settings(max_examples=cases, deadline=None, derandomize=True)
    @given(some.data())
    def holds(data):
        logit_BV, each, _ = case(tuple(filters), data)
        keys = jax.random.split(jax.random.key(data.draw(some.integers(0, 99))), ROWS)
        wishes = controls.controls(each, vocab=VOCAB, limit=9, family="full")
        wide_B, settled_B = both_ways(logit_BV, keys, wishes)
        settled.extend(settled_B.tolist())
        warm_B = wishes.temperature_B > 0
        assert (choose(logit_BV, keys, wishes)[warm_B] == wide_B[warm_B]).all()

    holds()
    assert len(settled) > 0 and set(settled) == {True, False}


@CASES
def test_neutral_numbers_of_the_full_family_draw_the_tokens_of_the_plain_one(cases):
    @settings(max_examples=cases, deadline=None, derandomize=True)
    @given(some.data())
    def holds(data):
        logit_BV, each, _ = case(("temperature", "top_k", "top_p", "top_p_below"), data)
        keys = jax.random.split(jax.random.key(data.draw(some.integers(0, 99))), ROWS)
        plain_B, full_B = (choose(logit_BV, keys, controls.controls(each, vocab=VOCAB, limit=9, family=f)) for f in ("plain", "full"))
        assert plain_B.tolist() == full_B.tolist()

    holds()


LAWS = [
    {},
    {"temperature": 0.5},
    {"top_k": 3},
    {"top_p": 0.9},
    {"top_p_below": 0.9},
    {"min_p": 0.2},
    {"typical_p": 0.7},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.97, "top_p_below": 0.96, "min_p": 0.02, "typical_p": 0.95},
    {"repetition_penalty": 1.4},
    {"presence_penalty": 0.8},
    {"frequency_penalty": 0.4},
    {"no_repeat_ngram": 1},
    {"ban": [[0, 1]]},
    {"logit_bias": {2: 1.5, 3: -np.inf}},
]


def surprise(seen_V: np.ndarray, share_V: np.ndarray) -> float:
    """The p-value of Pearson's chi-square; tokens expected fewer than 20 times are one."""
    wanted_V = seen_V.sum() * share_V
    assert (seen_V[share_V == 0] == 0).all()
    often_V = wanted_V >= 20
    seen, wanted = np.append(seen_V[often_V], seen_V[~often_V].sum()), np.append(wanted_V[often_V], wanted_V[~often_V].sum())
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    return float(scipy.stats.chi2.sf(((seen - wanted) ** 2 / wanted).sum(), max(len(seen) - 1, 1)))


WIDE = [{}, {"top_k": 290, "min_p": 0.002}, {"temperature": 1.5, "typical_p": 0.9}]


@pytest.mark.parametrize("draws", [10_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(("vocab", "laws"), [(11, LAWS), (300, WIDE)])
def test_draws_follow_the_softmax_over_what_is_kept(vocab, laws, draws):
    logit_V = np.random.default_rng(vocab).normal(size=vocab).astype(np.float32)
    prompt, answer = [2, 0], [1, 0, 1, 0]
    rows = 1000
    for number, fields in enumerate(laws):
        rule = rules.Rule(**fields)
        steered_V = oracle.penalised(logit_V, prompt, answer, rule)
        wishes = steering(rows, vocab, "full", **{name: value for name, value in fields.items() if name in filters})
        logit_BV = jnp.broadcast_to(jnp.asarray(steered_V, jnp.float32)[None], (rows, vocab))
        seen_V = np.zeros(vocab)
        for turn in range(draws // rows):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(number), turn), rows)
            seen_V += np.bincount(choose(logit_BV, keys, wishes), minlength=vocab)
        assert surprise(seen_V, oracle.probabilities(steered_V, rule)) > 1e-4, fields


def test_rows_follow_their_own_rules_whatever_their_neighbours_do():
    logit_BV = jnp.asarray(np.random.default_rng(3).normal(size=(ROWS, VOCAB)).astype(np.float32))
    keys = jax.random.split(jax.random.key(5), ROWS)
    each = rules.spread(rules.Rule(temperature=[0, 0.7, 1], top_p=[1, 1, 0.9], top_k=[0, 20, 300], typical_p=[1, 0.5, 0.9]), ROWS)
    together = choose(logit_BV, keys, controls.controls(each, vocab=VOCAB, limit=9))
    for row in range(ROWS):
        alone = controls.controls(each[row : row + 1], vocab=VOCAB, limit=9, family="full")
        assert choose(logit_BV[row : row + 1], keys[row : row + 1], alone)[0] == together[row]


@pytest.mark.parametrize("family", ["plain", "full"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_without_a_finite_likeliest_token_has_no_token_and_its_log_probability_is_nan(temperature, family):
    keys, wishes = jax.random.split(jax.random.key(0), ROWS), steering(ROWS, VOCAB, family, temperature=temperature)
    for wrong in (-np.inf, np.nan, np.inf):
        logit_BV = np.zeros((ROWS, VOCAB), np.float32)
        logit_BV[0] = wrong
        logit_BV[1, 9] = wrong
        token_B = choose(logit_BV, keys, wishes)
        bad_B = np.array([True, wrong != -np.inf, False])
        assert ((token_B == -1) == bad_B).all()
        assert (jnp.isnan(sampling.log_probability(jnp.zeros((ROWS, VOCAB)), token_B)) == bad_B).all()


def test_the_log_probability_is_that_of_the_softmax_and_nan_shows():
    logit_BV = jnp.asarray([[1.0, 2, 3], [0, jnp.nan, 1], [-jnp.inf, -jnp.inf, -jnp.inf]])
    found = sampling.log_probability(logit_BV, jnp.array([1, 0, 0]))
    np.testing.assert_allclose(found[0], 2 - np.log(np.exp([1, 2, 3]).sum()), rtol=1e-6)
    assert jnp.isnan(found[1:]).all()
