"""The n best ways to give every group one item: exactly, whether or not two groups may have the same item."""

import heapq
import itertools

import numpy as np
import scipy.optimize

Answer = tuple[float, list[int]]


def best(score_GV: np.ndarray, count: int, *, distinct: bool) -> list[Answer]:
    """(total, item of each group) of the `count` best, the best first; fewer where there are no more.

    score_GV: -inf where a group cannot have an item. distinct: no two groups have the same item. What is left after an answer is parted by
    the first group that differs from it (Murty 1968), and each part solved as a linear assignment.

    best([[-1, -2], [-1, -3]], 2, distinct=True)  ->  [(-3, [1, 0]), (-4, [0, 1])]
    """
    score_GV = np.asarray(score_GV, np.float64)
    # A group needs no worse item than this: enough better ones are left by the other groups, even for the last of the `count`.
    room = min(len(score_GV) - 1 + count if distinct else count, score_GV.shape[1])
    keep_V = np.unique(np.argpartition(-score_GV, room - 1, axis=1)[:, :room])
    score_GV = score_GV[:, keep_V]
    order = itertools.count()
    waiting: list = []

    def consider(head: list[int], banned: frozenset[int]) -> None:
        """Pushes the best answer that begins with `head` and goes on with none of `banned`."""
        tail = _solve(score_GV[len(head) :], head if distinct else [], banned, distinct)
        if tail is not None:
            total = sum(score_GV[group, item] for group, item in enumerate(head + tail))
            heapq.heappush(waiting, (-total, next(order), head + tail, len(head), banned))

    consider([], frozenset())
    found: list[Answer] = []
    while waiting and len(found) < count:
        loss, _, items, fixed, banned = heapq.heappop(waiting)
        found.append((-loss, keep_V[items].tolist()))
        for group in range(fixed, len(items)):
            consider(items[:group], frozenset({items[group]}) | (banned if group == fixed else frozenset()))
    return found


def _solve(score_GV: np.ndarray, taken: list[int], banned: frozenset[int], distinct: bool) -> list[int] | None:
    """The best items of these groups, none of them `taken`, the first not `banned`; None where there are none."""
    score_GV = score_GV.copy()
    score_GV[:, taken] = -np.inf
    score_GV[0, list(banned)] = -np.inf
    if not np.isfinite(score_GV).any(axis=1).all():
        return None
    if not distinct:
        return score_GV.argmax(axis=1).tolist()
    if score_GV.shape[0] > score_GV.shape[1]:
        return None
    try:
        return scipy.optimize.linear_sum_assignment(-score_GV)[1].tolist()
    except ValueError:  # infeasible
        return None
