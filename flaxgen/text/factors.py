"""The automaton of all that stands somewhere in one of several rows of tokens, as a table over tokens, and which rows it stands in."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flaxgen.text import comb, tables

STATES = 1 << 15  # as many as a table's int16 can name


class Factors(NamedTuple):
    """table: accepts every run of tokens that stands in a row, the empty one too. holds_QP: whether row p holds the runs of state q.

    All runs that lead to one state stand in the same places (Blumer et al. 1985), so the rows of a state are exact. There are at most two
    states a token.
    """

    table: tables.Table
    holds_QP: np.ndarray


def factors(rows: Sequence[Sequence[int]]) -> Factors:
    """The automaton of the runs of several rows; ValueError where there are too many tokens.

    factors([[5, 6, 5], [6, 7]]) accepts 5 6 5, 6 5, 6 7, 7, …, and refuses 5 6 7, which stands in neither row.
    """
    tokens = sum(map(len, rows))
    if tokens > STATES // 2:
        raise ValueError(f"rows: got {tokens:,} tokens, wanted at most {STATES // 2:,} in all; leave some rows out, or cut them shorter")
    below, link = _automaton(rows)
    holds_QP = np.zeros((len(below), len(rows)), bool)
    holds_QP[0] = True
    for number, row in enumerate(rows):
        state = 0
        for token in row:
            state = up = below[state][token]
            while up > 0 and not holds_QP[up, number]:
                holds_QP[up, number] = True
                up = link[up]
    return Factors(_table(below), holds_QP)


def _automaton(rows: Sequence[Sequence[int]]) -> tuple[list[dict[int, int]], list[int]]:
    """(moves of each state, its suffix link): the suffix automaton of the rows, one token after another."""
    below: list[dict[int, int]] = [{}]
    link, length = [-1], [0]

    def state(moves: dict[int, int], long: int, suffix: int) -> int:
        below.append(moves)
        length.append(long)
        link.append(suffix)
        return len(below) - 1

    def parted(above: int, token: int) -> int:
        """The state of the run of `above` and the token alone: where longer runs share it, it is taken out."""
        target = below[above][token]
        if length[target] == length[above] + 1:
            return target
        copy = state(dict(below[target]), length[above] + 1, link[target])
        link[target] = copy
        while above >= 0 and below[above].get(token) == target:
            below[above][token] = copy
            above = link[above]
        return copy

    for row in rows:
        last = 0
        for token in row:
            if token in below[last]:
                last = parted(last, token)
                continue
            new, above = state({}, length[last] + 1, 0), last
            while above >= 0 and token not in below[above]:
                below[above][token] = new
                above = link[above]
            if above >= 0:
                link[new] = parted(above, token)
            last = new
    return below, link


def _table(below: list[dict[int, int]]) -> tables.Table:
    token_C = np.array(sorted({token for moves in below for token in moves}), np.int64)
    class_V = np.zeros(int(token_C.max(initial=-1)) + 1, np.int16)
    class_V[token_C] = np.arange(1, len(token_C) + 1)
    order = sorted((q, token, target) for q, moves in enumerate(below) for token, target in moves.items())
    source_E, token_E, target_E = np.array(order, np.int64).reshape(-1, 3).T
    found = _packed(source_E, class_V[token_E].astype(np.int64), target_E, (len(below), len(token_C) + 1))
    kinds = np.int32, np.int16, np.int16
    return tables.Table(class_V, *(x.astype(kind) for x, kind in zip(found, kinds, strict=True)), np.zeros(len(below), np.int32))


def _packed(row_E: np.ndarray, column_E: np.ndarray, value_E: np.ndarray, shape: tuple[int, int]) -> comb.Comb:
    """A comb whose rows of one entry, nearly all of them, stand behind the others side by side."""
    alone_E = np.bincount(row_E, minlength=shape[0])[row_E] == 1
    found = comb.packed(*(x[~alone_E] for x in (row_E, column_E, value_E)), shape)
    end = max(len(found.owner_L), shape[1])
    base_Q = found.base_Q.copy()
    base_Q[row_E[alone_E]] = end + np.arange(alone_E.sum()) - column_E[alone_E]
    gap = np.full(end - len(found.owner_L), -1, np.int64)
    owner_L, value_L = (np.concatenate([x_L, gap, x_E[alone_E]]) for x_L, x_E in ((found.owner_L, row_E), (found.value_L, value_E)))
    return comb.Comb(base_Q, owner_L, value_L)
