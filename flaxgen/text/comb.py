"""Sparse tables as combs: rows lie over one another so that the teeth of one stand in the gaps of others (Tarjan and Yao 1979).

The cell of row q and column c is at base_Q[q] + c; it holds something if it is owned by q.
"""

from typing import NamedTuple

import numpy as np

PLAIN = 1 << 16  # cells; up to here rows lie side by side
_WINDOW, _CLOSE_LOOK = 4096, 8  # cells in which a row looks for its place; teeth tried at all places at once before single places


class Comb(NamedTuple):
    base_Q: np.ndarray
    owner_L: np.ndarray  # -1 where nobody's
    value_L: np.ndarray


def packed(row_E: np.ndarray, column_E: np.ndarray, value_E: np.ndarray, shape: tuple[int, int]) -> Comb:
    """The comb of entries, ordered by row, of a table of this shape."""
    rows, columns = shape
    base_Q = np.arange(rows) * columns if rows * columns <= PLAIN else _bases(row_E, column_E, shape)
    at_E = base_Q[row_E] + column_E
    owner_L = np.full(rows * columns if rows * columns <= PLAIN else at_E.max(initial=-1) + 1, -1, np.int64)
    value_L = np.full_like(owner_L, -1)
    owner_L[at_E], value_L[at_E] = row_E, value_E
    return Comb(base_Q, owner_L, value_L)


def _bases(row_E: np.ndarray, column_E: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Where each row lies: the longest first, each at the first place of a window that has room for it, or behind all others."""
    begin_Q = np.searchsorted(row_E, np.arange(shape[0] + 1))
    free_L = np.ones(len(row_E) + shape[1] + _WINDOW, bool)
    base_Q = np.zeros(shape[0], np.int64)
    low = end = 0  # the window's first cell; the first cell behind all others
    for q in np.argsort(-np.diff(begin_Q), kind="stable").tolist():
        column_N = column_E[begin_Q[q] : begin_Q[q + 1]]
        if not len(column_N):
            break
        place = _fit(free_L, np.flatnonzero(free_L[low : low + _WINDOW]) + low - column_N[0], column_N)
        if place is None:
            place = max(end - int(column_N[0]), 0)
            low += _WINDOW // 4
        base_Q[q] = place
        end = max(end, place + int(column_N[-1]) + 1)
        if end + shape[1] + _WINDOW > len(free_L):
            free_L = np.concatenate([free_L, np.ones(len(free_L), bool)])
        free_L[place + column_N] = False
        low = min(low, end)
    return base_Q


def _fit(free_L: np.ndarray, place_N: np.ndarray, column_N: np.ndarray) -> int | None:
    place_N = place_N[(place_N >= 0) & (place_N + column_N[-1] < len(free_L))]
    for column in column_N[1:_CLOSE_LOOK]:
        place_N = place_N[free_L[place_N + column]]
    for place in place_N[:64].tolist():
        if free_L[place + column_N].all():
            return place
    return None
