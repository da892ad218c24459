"""The n best assignments against all there are."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxgen import assignment


def all_of_them(score_GV: np.ndarray, distinct: bool) -> list[tuple[float, tuple[int, ...]]]:
    groups, items = score_GV.shape
    ways = itertools.permutations(range(items), groups) if distinct else itertools.product(range(items), repeat=groups)
    found = [(sum(score_GV[g, item] for g, item in enumerate(way)), way) for way in ways]
    return sorted((one for one in found if one[0] > -np.inf), key=lambda one: -one[0])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.booleans(), st.floats(0, 0.6))
def test_the_n_best_are_those_of_all_there_are(seed, groups, items, count, distinct, forbidden):
    rng = np.random.default_rng(seed)
    score_GV = np.where(rng.random((groups, items)) < forbidden, -np.inf, rng.normal(size=(groups, items)))
    wanted, got = all_of_them(score_GV, distinct)[:count], assignment.best(score_GV, count, distinct=distinct)
    assert [tuple(way) for _, way in got] == [way for _, way in wanted]
    np.testing.assert_allclose([total for total, _ in got], [total for total, _ in wanted], atol=1e-12)


def test_equal_scores_give_each_way_once():
    ways = [tuple(way) for _, way in assignment.best(np.zeros((2, 3)), 100, distinct=True)]
    assert sorted(ways) == sorted(itertools.permutations(range(3), 2))


@pytest.mark.parametrize("distinct", [True, False])
def test_what_cannot_be_is_an_empty_list(distinct):
    assert assignment.best(np.full((1, 3), -np.inf), 2, distinct=distinct) == []
    assert assignment.best(np.zeros((3, 2)), 2, distinct=True) == []
