"""Graphs without cycles: the measure of cycles, and graphs that are found again from their samples."""

import numpy as np
import pytest

from flaxgen import acyclic

RING = np.roll(np.eye(3), 1, axis=1)


@pytest.mark.parametrize(
    ("w_DD", "value"),
    [(np.array([[0, 1], [1, 0]]), 1.08616127), (0.5 * RING, 0.0078135173), (np.triu(np.ones((4, 4)), 1), 0.0)],
    ids=["two nodes", "a ring of three", "no cycle"],
)
def test_h_counts_cycles(w_DD, value):
    assert float(acyclic.h(w_DD.astype(np.float32))) == pytest.approx(value, rel=1e-5, abs=1e-7)


def test_the_slope_of_h_is_its_derivative():
    w_DD = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32) / 2
    slope_DD, step = np.asarray(acyclic.h_and_slope(w_DD)[1]), 1e-2
    for place in ((0, 1), (2, 3), (3, 3)):
        up, down = w_DD.copy(), w_DD.copy()
        up[place] += step
        down[place] -= step
        assert float(acyclic.h(up) - acyclic.h(down)) / 2 / step == pytest.approx(slope_DD[place], rel=1e-2, abs=1e-3)


def test_a_small_graph_is_found_again():
    w_DD = acyclic.random_graph(1, 4, 3)
    found_DD = acyclic.learn(acyclic.samples(1, w_DD, 300))
    assert acyclic.accuracy(w_DD, found_DD) == {"fdr": 0.0, "tpr": 1.0, "fpr": 0.0, "shd": 0, "edges": 3}


@pytest.mark.nightly
def test_the_demonstration_of_twenty_nodes_is_found_again():
    """20 nodes, 20 edges, 100 samples; by the seed one or two edges may be missing or turned."""
    w_DD = acyclic.random_graph(4, 20, 20)
    assert acyclic.accuracy(w_DD, acyclic.learn(acyclic.samples(4, w_DD, 100)))["shd"] == 0


def test_a_turned_edge_counts_once():
    true_DD = np.triu(np.ones((3, 3)), 1)
    found_DD = true_DD.copy()
    found_DD[0, 1], found_DD[1, 0] = 0, 1
    assert acyclic.accuracy(true_DD, found_DD)["shd"] == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: acyclic.learn(np.zeros(3)), "x of shape (3,): want (B, D)"),
        (lambda: acyclic.learn(np.full((4, 2), np.nan)), "x holds 8 numbers that are not finite"),
        (lambda: acyclic.learn(np.zeros((4, 2)), penalty=-1), "penalty=-1"),
        (lambda: acyclic.samples(0, RING, 5), "w has a cycle"),
        (lambda: acyclic.random_graph(0, 3, 9), "edges=9 among nodes=3"),
        (lambda: acyclic.accuracy(np.eye(3), RING), "found has a cycle"),
    ],
)
def test_what_is_no_graph_or_no_table_is_refused(call, words):
    with pytest.raises(ValueError) as caught:
        call()
    assert words in str(caught.value)
