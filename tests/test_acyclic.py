"""Graphs without cycles: the function that is zero for them, learning one from data, and how well it is found."""

import jax
import numpy as np
import pytest

from flaxgen import acyclic

RING_DD = 0.5 * np.roll(np.eye(3), 1, axis=1)
CHAIN_DD = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])


def test_h_has_the_values_of_two_cycles_and_is_zero_without_any():
    np.testing.assert_allclose(acyclic.h(np.array([[0.0, 1.0], [1.0, 0.0]])), 1.08616127, rtol=1e-6)
    line_DD = np.where(np.arange(3)[:, None] == 2, 0, RING_DD)
    np.testing.assert_allclose(acyclic.h(np.stack([RING_DD, 1e-3 * RING_DD, line_DD])), [0.0078135173, 0.25**3 * 1e-18 / 2, 0], rtol=1e-6)
    graph_DD = acyclic.random_graph(0, 3, 3)
    assert acyclic.h(np.stack([graph_DD, 100 * graph_DD, graph_DD.T])).tolist() == [0, 0, 0]


def test_the_gradient_of_h_is_its_derivative():
    w_DD = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    np.testing.assert_allclose(acyclic.h_and_slope(w_DD)[1], jax.grad(acyclic.h)(w_DD), rtol=1e-4)


def demonstration(seed):
    true_DD = acyclic.random_graph(seed, 20, 20)
    return true_DD, acyclic.samples(1000 + seed, true_DD, 100)


def test_a_graph_is_learned_from_samples_and_the_rounds_are_told():
    true_DD = acyclic.random_graph(1, 5, 5)
    told = []
    found_DD = acyclic.learn(acyclic.samples(1, true_DD, 300), tolerance=1e-2, watch=lambda *facts: told.append(facts))
    assert acyclic.accuracy(true_DD, found_DD) == {"fdr": 0, "tpr": 1, "fpr": 0, "shd": 0, "edges": 5}
    assert np.abs(found_DD - true_DD).max() < 0.4
    assert [round for round, _, _ in told] == list(range(len(told))) and told[-1][1] <= 1e-2 < told[-2][1]


@pytest.mark.nightly
def test_the_published_procedure_finds_every_edge_of_the_demonstration():
    true_DD, x_BD = demonstration(1)
    found_DD = acyclic.learn(x_BD)
    assert acyclic.accuracy(true_DD, found_DD)["shd"] == acyclic.accuracy(true_DD, acyclic.refine(x_BD, found_DD))["shd"] == 0


def test_the_demonstration_is_found_to_the_last_edge_by_an_early_end_and_refining():
    true_DD, x_BD = demonstration(1)
    assert acyclic.accuracy(true_DD, acyclic.refine(x_BD, acyclic.learn(x_BD, tolerance=1e-2)))["shd"] == 0


@pytest.mark.nightly
def test_of_thirty_demonstrations_most_are_found_whole():
    """20 of the graphs 0 to 9 and 20 to 39, where the published procedure alone finds 12; of most others the samples speak for another."""
    missed = []
    for seed in (*range(10), *range(20, 40)):
        true_DD, x_BD = demonstration(seed)
        missed.append(acyclic.accuracy(true_DD, acyclic.refine(x_BD, acyclic.learn(x_BD, tolerance=1e-2)))["shd"])
    assert missed.count(0) >= 18 and max(missed) <= 2


def test_refining_adds_drops_and_turns_edges_and_fits_the_weights():
    true_DD, x_BD = demonstration(1)
    wrong_DD = true_DD.copy()
    gone, turned = np.argwhere(true_DD)[[0, 7]]
    wrong_DD[tuple(gone)] = wrong_DD[tuple(turned)] = 0
    wrong_DD[tuple(turned[::-1])] = 0.1
    apart = next((one, other) for one, other in np.argwhere(true_DD == 0) if one < other and not true_DD[other, one])
    wrong_DD[apart] = 0.1
    assert acyclic.is_acyclic(wrong_DD) and acyclic.accuracy(true_DD, wrong_DD)["shd"] == 3
    refined_DD = acyclic.refine(x_BD, wrong_DD)
    assert acyclic.accuracy(true_DD, refined_DD)["shd"] == 0
    for node in range(20):
        given = true_DD[:, node] != 0
        centred_BD = x_BD - x_BD.mean(0)
        wanted = np.linalg.lstsq(centred_BD[:, given], centred_BD[:, node])[0]
        np.testing.assert_allclose(refined_DD[given, node], wanted, rtol=1e-6)
    wrong_DD[tuple(turned)] = 0.05
    for begun_DD in (wrong_DD, np.zeros((20, 20))):  # the first has a cycle of two
        np.testing.assert_allclose(acyclic.refine(x_BD, begun_DD), refined_DD, rtol=1e-6)
    np.testing.assert_array_equal(acyclic.refine(np.ones((5, 3)), RING_DD), 0)
    assert not acyclic.refine(x_BD[:, :1], np.zeros((1, 1))).any()


def test_graphs_are_drawn_with_as_many_edges_as_asked_for_and_never_a_cycle():
    for seed in range(20):
        w_DD = acyclic.random_graph(seed, 7, 9)
        assert np.count_nonzero(w_DD) == 9 and acyclic.is_acyclic(w_DD)
        assert ((np.abs(w_DD[w_DD != 0]) >= 0.5) & (np.abs(w_DD[w_DD != 0]) <= 2)).all()
    assert np.count_nonzero(acyclic.random_graph(0, 4, 6)) == 6 and not acyclic.random_graph(0, 1, 0).any()
    np.testing.assert_array_equal(acyclic.random_graph(3, 7, 9), acyclic.random_graph(3, 7, 9))
    assert not acyclic.is_acyclic(RING_DD) and not acyclic.is_acyclic(np.eye(2)) and acyclic.is_acyclic(np.zeros((2, 2)))


def test_samples_follow_the_weights():
    w_DD = np.zeros((3, 3))
    w_DD[0, 2], w_DD[2, 1] = 1.5, -0.8
    x_BD = acyclic.samples(0, w_DD, 20_000)
    np.testing.assert_allclose(np.cov((x_BD - x_BD @ w_DD).T), np.eye(3), atol=0.05)
    np.testing.assert_allclose(np.cov(x_BD.T)[1, 1], 1 + 0.8**2 * (1 + 1.5**2), rtol=0.05)


@pytest.mark.parametrize(
    ("edges", "wanted"),
    [
        ([(0, 1), (0, 2), (1, 2), (2, 3)], {"fdr": 0, "tpr": 1, "fpr": 0, "shd": 0, "edges": 4}),
        ([(0, 1), (0, 2)], {"fdr": 0, "tpr": 0.5, "fpr": 0, "shd": 2, "edges": 2}),
        ([(0, 1), (0, 2), (2, 1), (3, 1)], {"fdr": 0.5, "tpr": 0.5, "fpr": 1, "shd": 3, "edges": 4}),
        ([], {"fdr": 0, "tpr": 0, "fpr": 0, "shd": 4, "edges": 0}),
    ],
    ids=["all", "two missing", "one turned, one missing, one wrong", "none"],
)
def test_missing_added_and_turned_edges_count_once_each(edges, wanted):
    found_DD = np.zeros((4, 4))
    for edge in edges:
        found_DD[edge] = 0.7
    assert acyclic.accuracy(CHAIN_DD, found_DD) == wanted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: acyclic.learn(np.ones(3)), r"x of shape \(3,\): want \(B, D\)"),
        (lambda: acyclic.learn(np.ones((1, 3))), "at least 2 rows"),
        (lambda: acyclic.learn(np.array([[1, np.nan], [0, 1]])), "x holds 1 numbers that are not finite"),
        (lambda: acyclic.learn(np.ones((4, 3)), penalty=-1), "penalty=-1: want a number of at least 0"),
        (lambda: acyclic.learn(np.ones((4, 3)), tolerance=np.nan), "tolerance=nan"),
        (lambda: acyclic.learn(np.ones((4, 3)), rounds=0), "rounds=0: want at least 1"),
        (lambda: acyclic.learn(np.ones((4, 3), complex)), "x holds complex128: want real numbers"),
        (lambda: acyclic.refine(np.ones((4, 3)), CHAIN_DD), r"w of shape \(4, 4\) and x of shape \(4, 3\): want a node for every column"),
        (lambda: acyclic.random_graph(0, 4, 7), "edges=7 among nodes=4: want at least 1 node, and 0 to 6 edges"),
        (lambda: acyclic.samples(0, RING_DD, 5), "w has a cycle"),
        (lambda: acyclic.samples(0, CHAIN_DD, -1), "rows=-1"),
        (lambda: acyclic.is_acyclic(np.ones((2, 3))), r"w of shape \(2, 3\): want a square matrix"),
        (lambda: acyclic.accuracy(CHAIN_DD, RING_DD), "want the same nodes"),
        (lambda: acyclic.accuracy(RING_DD, RING_DD), "found has a cycle"),
        (lambda: acyclic.accuracy(CHAIN_DD, CHAIN_DD * np.inf), "found holds numbers that are not finite"),
        (lambda: acyclic.h(np.ones((2, 3))), r"w of shape \(2, 3\): want square matrices"),
    ],
)
def test_what_cannot_be_a_graph_or_data_is_refused(call, message):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        call()
