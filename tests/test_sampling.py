"""Choosing a token: which are kept, how often each is drawn, and that both ways of drawing agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import controls, rules, sampling

SPEC = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def steering(rows, vocab, family=None, **rule) -> controls.Controls:
    return controls.controls(rules.spread(rules.Rule(**rule), rows), vocab=vocab, limit=9, family=family)


def drawn(logit_V, draws=2000, **rule) -> np.ndarray:
    logit_BV = jnp.broadcast_to(jnp.asarray(logit_V)[None], (draws, len(logit_V)))
    keys = jax.random.split(jax.random.key(0), draws)
    return np.asarray(jax.jit(sampling.choose)(logit_BV, keys, steering(draws, len(logit_V), **rule)))


@pytest.mark.parametrize(
    ("p", "kept", "below"), [(0.7, {0, 1}, {0}), (0.81, {0, 1, 2}, {0, 1}), (0.94, {0, 1, 2}, {0, 1}), (0.96, {0, 1, 2, 3}, {0, 1, 2})]
)
def test_both_conventions_of_top_p_keep_the_published_sets(p, kept, below):
    assert set(drawn(SPEC, top_p=p)) == kept
    assert set(drawn(SPEC, top_p_below=p)) == below


def test_top_k_comes_before_top_p_which_sees_renormalised_probabilities():
    # Of .5 .3 .15 the second reaches .8 / .95 = .842 of the mass, so p = .83 is crossed by it and p = .85 by the third.
    assert set(drawn(SPEC, top_k=3, top_p=0.83)) == {0, 1}
    assert set(drawn(SPEC, top_k=3, top_p=0.85)) == {0, 1, 2}
    assert set(drawn(SPEC, top_k=1)) == {0}


def test_temperature_zero_is_the_argmax_and_a_tiny_top_p_keeps_one():
    logit_V = np.random.default_rng(0).normal(size=777).astype(np.float32)
    assert set(drawn(logit_V, draws=5, temperature=0)) == {logit_V.argmax()}
    assert set(drawn(logit_V, draws=50, top_p=0)) == {logit_V.argmax()}
    assert set(drawn(logit_V, draws=50, top_p_below=0)) == {logit_V.argmax()}


@pytest.mark.parametrize("rule", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.9}])
def test_draws_follow_the_softmax(rule):
    draws = 20_000
    weight_V = np.exp(SPEC / rule.get("temperature", 1))
    if rule.get("top_k") or rule.get("top_p"):
        weight_V[3] = 0
    wanted_V = draws * weight_V / weight_V.sum()
    seen_V = np.bincount(drawn(SPEC, draws, **rule), minlength=4)
    chi_square = sum((s - w) ** 2 / w for s, w in zip(seen_V, wanted_V, strict=True) if w)
    assert chi_square < 21.1  # the 1e-4 tail of three degrees of freedom
    assert (seen_V[wanted_V == 0] == 0).all()


@pytest.mark.parametrize(
    "rule", [{}, {"top_p": 0.9}, {"top_p_below": 0.9}, {"top_k": 300, "top_p": 0.99}, {"top_k": 40, "top_p_below": 0.7}]
)
def test_the_narrow_and_the_wide_way_draw_the_same_tokens(rule, monkeypatch):
    logit_V = (3 * np.random.default_rng(1).normal(size=400)).astype(np.float32)
    found = {}
    for window in (256, 400):  # a window of the whole vocabulary settles every row
        monkeypatch.setattr(sampling, "WINDOW", window)
        jax.clear_caches()
        found[window] = drawn(logit_V, 300, **rule)
    jax.clear_caches()
    assert (found[256] == found[400]).all()


@pytest.mark.parametrize("rule", [{"top_p": 0.95}, {"top_p_below": 0.95}, {"top_k": 301}, {"top_k": 300, "top_p": 0.9}])
def test_the_wide_way_keeps_what_a_sort_keeps(rule):
    logit_V = (0.3 * np.random.default_rng(2).normal(size=401)).astype(np.float32)
    order = np.argsort(-logit_V)[: rule.get("top_k", 401)]
    share = np.exp(logit_V[order].astype(np.float64))
    reached = np.cumsum(share / share.sum())
    kept = order
    if "top_p" in rule:
        kept = order[: int(np.searchsorted(reached, rule["top_p"])) + 1]
    if "top_p_below" in rule:
        kept = order[reached < rule["top_p_below"]]
    seen = set(drawn(logit_V, 4000, **rule))
    assert seen <= set(kept)
    assert len(seen) > 0.95 * len(kept)


def test_rows_follow_their_own_rules_whatever_their_neighbours_do():
    logit_BV = jnp.asarray(np.random.default_rng(3).normal(size=(4, 500)).astype(np.float32))
    keys = jax.random.split(jax.random.key(5), 4)
    rule = rules.Rule(temperature=[0, 1, 0.7, 1], top_p=[1, 0.5, 1, 0.9], top_k=[0, 0, 20, 300])
    each = rules.spread(rule, 4)
    together = sampling.choose(logit_BV, keys, controls.controls(each, vocab=500, limit=9))
    for row in range(4):
        alone = controls.controls(each[row : row + 1], vocab=500, limit=9)
        assert sampling.choose(logit_BV[row : row + 1], keys[row : row + 1], alone)[0] == together[row]


def test_the_log_probability_is_that_of_the_softmax_and_nan_shows():
    logit_BV = jnp.asarray([[1.0, 2, 3], [0, jnp.nan, 1]])
    found = sampling.log_probability(logit_BV, jnp.array([1, 0]))
    np.testing.assert_allclose(found[0], 2 - np.log(np.exp([1, 2, 3]).sum()), rtol=1e-6)
    assert jnp.isnan(found[1])
