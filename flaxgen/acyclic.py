"""Graphs without cycles, learned from data by h(W) = tr exp(W o W) - D (NOTEARS: Zheng et al. 2018, arXiv 1803.01422).

`learn` is the published procedure; `refine` mends the edges that its penalty and its threshold lose.

W[i, j] is the weight of the edge from node i to node j; o multiplies element by element. h is zero where the graph has no cycle and
positive elsewhere: the trace of (W o W)^k sums the products of squared weights along all closed walks of k steps.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.sparse.csgraph

from flaxgen.nn import exponential
from flaxgen.protocols import Array


def h(w_DD: Array) -> Array:
    """tr exp(W o W) - D of one matrix or of each of a batch; 0 where it is a graph without cycles."""
    return h_and_slope(w_DD)[0]


@jax.jit
def h_and_slope(w_DD: Array) -> tuple[Array, Array]:
    """h and its gradient exp(W o W)' o 2 W.

    With S = W o W, exp(S) = I + S phi(S) and h = tr S phi(S): sums of what is not negative, which keep their digits where h is small.
    """
    w_DD, _ = exponential.checked("w", w_DD)
    square_DD = w_DD * w_DD
    phi_DD = exponential.phi(square_DD)
    unit_DD = jnp.broadcast_to(jnp.eye(w_DD.shape[-1], dtype=w_DD.dtype), w_DD.shape)
    power_DD = unit_DD + jnp.matmul(square_DD, phi_DD, precision="highest")
    return (square_DD.mT * phi_DD).sum((-2, -1)), power_DD.mT * 2 * w_DD


def learn(
    x_BD: np.ndarray,
    *,
    penalty: float = 0.1,
    threshold: float = 0.3,
    tolerance: float = 1e-8,
    rounds: int = 100,
    watch: Callable[[int, float, float], None] = lambda round, cycles, weight: None,
) -> np.ndarray:
    """The weights w_DD, in float64, of the graph by which every column of x is a sum of others and noise; 0 where there is no edge.

    Least squares, and `penalty` times the sum of magnitudes, under h(W) = 0 by the augmented Lagrangian: L-BFGS-B, the weight of h^2 ten
    times as large while h does not fall to a quarter, until h is at most `tolerance`. Edges lighter than `threshold` are dropped at last.
    Computed in float64, whatever the default, since h falls to 1e-8. `watch` is told the round, h, and the weight of h^2. What is left can
    have a cycle where `tolerance` is large. scipy's OpenBLAS waits with all its threads at every step: three quarters of the time, or more
    on a busy machine, unless the environment says OPENBLAS_NUM_THREADS=1.
    """
    x_BD = _table(x_BD)
    for name, value in (("penalty", penalty), ("threshold", threshold), ("tolerance", tolerance)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name}={value}: want a number of at least 0")
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: want at least 1")
    size = x_BD.shape[1]
    x_BD = x_BD - x_BD.mean(0, keepdims=True)
    # Positive and negative parts lie side by side, so that the penalty is smooth; no node is its own cause.
    bounds = [(0, 0 if row == column else None) for _ in "+-" for row in range(size) for column in range(size)]
    parts, weight, multiplier, cycles = np.zeros(2 * size * size), 1.0, 0.0, np.inf
    with jax.enable_x64(True):
        moment_DD = jnp.asarray(x_BD.T @ x_BD / len(x_BD))
        for round in range(rounds):
            while weight < 1e16:
                loss = functools.partial(_loss, moment_DD=moment_DD, penalty=penalty, weight=weight, multiplier=multiplier)
                found = scipy.optimize.minimize(loss, parts, method="L-BFGS-B", jac=True, bounds=bounds).x
                left = float(h_and_slope(_joined(found, size))[0])
                if left <= 0.25 * cycles:
                    break
                weight *= 10
            parts, cycles = found, left
            multiplier += weight * cycles
            watch(round, cycles, weight)
            if cycles <= tolerance or weight >= 1e16:
                break
    w_DD = _joined(parts, size)
    return np.where(np.abs(w_DD) < threshold, 0, w_DD)


def refine(x_BD: np.ndarray, w_DD: np.ndarray) -> np.ndarray:
    """The graph without cycles that greedy search finds from that of w_DD, with weights by least squares, which no penalty shrinks.

    It begins without the lightest edges of w_DD if there is a cycle, so `learn` may stop early: with tolerance=.01, in a tenth of the time.
    The one edge that lowers the extended Bayesian information criterion most (Chen and Chen 2008) is added, dropped or turned, until none
    does: B D log |X - X W|^2 + edges (log B + 2 log D). That is for noise of one variance in all nodes, by which directions are known
    (Peters and Buhlmann 2014); the least squares of `learn` suppose it too.
    """
    x_BD, w_DD = _table(x_BD), _graph("w", w_DD)
    (rows, size), edge_DD = x_BD.shape, w_DD != 0
    if len(w_DD) != size:
        raise ValueError(f"w of shape {w_DD.shape} and x of shape {x_BD.shape}: want a node for every column of x")
    while not is_acyclic(edge_DD):
        edge_DD &= np.abs(w_DD) > np.abs(w_DD[edge_DD]).min()
    moment_DD = np.cov(x_BD.T, bias=True).reshape(size, size)
    price = (np.log(rows) + 2 * np.log(size)) / (rows * size)
    fits = [_fitted(moment_DD, node, edge_DD[:, node]) for node in range(size)]
    change_DD = np.transpose([_changes(moment_DD, node, edge_DD[:, node]) for node in range(size)])
    while True:
        flip_DD, turn_DD = _gains(edge_DD, change_DD / max(sum(left for _, left in fits), np.finfo(float).tiny), price)
        turned = turn_DD.min() < flip_DD.min()
        gain_DD = turn_DD if turned else flip_DD
        if gain_DD.min() > -1e-9:
            break
        one, other = np.unravel_index(gain_DD.argmin(), gain_DD.shape)
        edge_DD[one, other] ^= True
        edge_DD[other, one] ^= turned
        for node in (one, other):
            fits[node] = _fitted(moment_DD, node, edge_DD[:, node])
            change_DD[:, node] = _changes(moment_DD, node, edge_DD[:, node])
    found_DD = np.zeros((size, size))
    for node, (weights, _) in enumerate(fits):
        found_DD[edge_DD[:, node], node] = weights
    return found_DD


def random_graph(seed: int, nodes: int, edges: int) -> np.ndarray:
    """A graph without cycles (Erdos and Renyi), w_DD float64: `edges` weights, each of magnitude .5 to 2 and of either sign."""
    most = nodes * (nodes - 1) // 2
    if nodes < 1 or not 0 <= edges <= most:
        raise ValueError(f"edges={edges} among nodes={nodes}: want at least 1 node, and 0 to {most} edges among so many")
    noise = np.random.default_rng(seed)
    w_DD = np.zeros((nodes, nodes))
    chosen = noise.choice(most, edges, replace=False)
    later, earlier = (index[chosen] for index in np.tril_indices(nodes, -1))
    w_DD[later, earlier] = noise.uniform(0.5, 2, edges) * noise.choice([-1, 1], edges)
    order = noise.permutation(nodes)
    return w_DD[order][:, order]


def samples(seed: int, w_DD: np.ndarray, rows: int) -> np.ndarray:
    """x_BD with x = x W + noise of variance 1, Gaussian, for a graph without cycles."""
    w_DD = _graph("w", w_DD)
    if not is_acyclic(w_DD):
        raise ValueError("w has a cycle: want a graph without one, whose nodes can be drawn one after the other")
    if rows < 1:
        raise ValueError(f"rows={rows}: want at least 1")
    noise_BD = np.random.default_rng(seed).normal(size=(rows, len(w_DD)))
    return np.linalg.solve((np.eye(len(w_DD)) - w_DD).T, noise_BD.T).T


def is_acyclic(w_DD: np.ndarray) -> bool:
    """Whether the edges, wherever W is not 0, close no cycle: every node is alone in its strong component and is not its own cause."""
    w_DD = _graph("w", w_DD)
    parts, _ = scipy.sparse.csgraph.connected_components(w_DD != 0, directed=True, connection="strong")
    return parts == len(w_DD) and not w_DD.diagonal().any()


def accuracy(true_DD: np.ndarray, found_DD: np.ndarray) -> dict[str, float]:
    """How well edges are found: fdr, tpr, fpr, shd (structural Hamming distance: added, missing and turned edges) and their number, edges.

    fdr: the share of edges found that are turned or wrong; fpr: their number against that of pairs without an edge; tpr: the share of true
    edges that are found, in their direction.
    """
    true_DD, found_DD = _graph("true", true_DD) != 0, _graph("found", found_DD) != 0
    if true_DD.shape != found_DD.shape:
        raise ValueError(f"true of shape {true_DD.shape} and found of shape {found_DD.shape}: want the same nodes")
    if not is_acyclic(found_DD):
        raise ValueError("found has a cycle: want a graph without one; a larger threshold drops more edges")
    true, found, right = true_DD.sum(), found_DD.sum(), (true_DD & found_DD).sum()
    turned = (found_DD & ~true_DD & true_DD.T).sum()
    size = len(true_DD)
    pairs = size * (size - 1) // 2 - true
    pairs_apart = ((true_DD | true_DD.T) != (found_DD | found_DD.T)).sum() // 2
    return {
        "fdr": float((found - right) / max(found, 1)),
        "tpr": float(right / max(true, 1)),
        "fpr": float((found - right) / max(pairs, 1)),
        "shd": int(pairs_apart + turned),
        "edges": int(found),
    }


def _loss(parts: np.ndarray, **given: Array | float) -> tuple[float, np.ndarray]:
    value, slope = _lagrangian(parts, **given)
    return float(value), np.asarray(slope)


@jax.jit
def _lagrangian(parts: Array, moment_DD: Array, penalty: float, weight: float, multiplier: float) -> tuple[Array, Array]:
    """|X - X W|^2 / 2n + weight h^2 / 2 + multiplier h + penalty |W|_1 of the positive and negative parts of W, and its gradient."""
    w_DD = _joined(parts, len(moment_DD))
    rest_DD = jnp.eye(len(moment_DD)) - w_DD
    pull_DD = moment_DD @ rest_DD
    cycles, slope_DD = h_and_slope(w_DD)
    loss = 0.5 * (rest_DD * pull_DD).sum() + 0.5 * weight * cycles**2 + multiplier * cycles + penalty * parts.sum()
    smooth = ((weight * cycles + multiplier) * slope_DD - pull_DD).ravel()
    return loss, jnp.concatenate([penalty + smooth, penalty - smooth])


def _joined(parts: Array, size: int) -> Array:
    return (parts[: size * size] - parts[size * size :]).reshape(size, size)


def _fitted(moment_DD: np.ndarray, node: int, parent_D: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights of a node's parents, and the mean square that they leave of it."""
    weights = np.linalg.lstsq(moment_DD[np.ix_(parent_D, parent_D)], moment_DD[parent_D, node])[0]
    return weights, max(moment_DD[node, node] - weights @ moment_DD[parent_D, node], 0.0)


def _changes(moment_DD: np.ndarray, node: int, parent_D: np.ndarray) -> list[float]:
    """By how much the mean square left of a node changes if the edge from each other node is added or dropped."""
    flips, left = np.eye(len(moment_DD), dtype=bool), _fitted(moment_DD, node, parent_D)[1]
    return [0.0 if other == node else _fitted(moment_DD, node, parent_D ^ flip_D)[1] - left for other, flip_D in enumerate(flips)]


def _gains(edge_DD: np.ndarray, change_DD: np.ndarray, price: float) -> tuple[np.ndarray, np.ndarray]:
    """By how much the criterion rises if an edge is added or dropped, and if it is turned; inf where that cannot be without a cycle.

    change_DD: what adding or dropping it changes the sum of squares by, which is 1 now.
    """
    path_DD = np.isfinite(scipy.sparse.csgraph.shortest_path(edge_DD, unweighted=True))
    ways_DD = edge_DD.astype(int) @ path_DD  # children of i from which there is a path to j, j among them
    flip_DD, turn_DD = (np.log(np.maximum(1 + each_DD, np.finfo(float).tiny)) for each_DD in (change_DD, change_DD + change_DD.T))
    flip_DD = np.where(edge_DD, flip_DD - price, np.where(path_DD.T, np.inf, flip_DD + price))
    return flip_DD, np.where(edge_DD & (ways_DD == 1), turn_DD, np.inf)


def _table(x_BD: np.ndarray) -> np.ndarray:
    x_BD = np.asarray(x_BD)
    if x_BD.dtype.kind not in "biuf":
        raise ValueError(f"x holds {x_BD.dtype}: want real numbers, a row for every sample")
    x_BD = x_BD.astype(np.float64)
    if x_BD.ndim != 2 or x_BD.shape[0] < 2 or x_BD.shape[1] < 1:
        raise ValueError(f"x of shape {x_BD.shape}: want (B, D), at least 2 rows of samples and a column for every node")
    if not np.isfinite(x_BD).all():
        raise ValueError(f"x holds {np.count_nonzero(~np.isfinite(x_BD))} numbers that are not finite: drop or fill them")
    return x_BD


def _graph(name: str, w_DD: np.ndarray) -> np.ndarray:
    w_DD = np.asarray(w_DD)
    if w_DD.ndim != 2 or w_DD.shape[0] != w_DD.shape[1] or not len(w_DD):
        raise ValueError(f"{name} of shape {w_DD.shape}: want a square matrix (D, D), a row and a column for every node")
    if not np.isfinite(w_DD).all():
        raise ValueError(f"{name} holds numbers that are not finite: want the weight of every edge, 0 where there is none")
    return w_DD
