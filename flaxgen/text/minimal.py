"""Automata made small: states that lead nowhere are left out, states with one future merged, symbols with one effect put in one class."""

import itertools
from typing import NamedTuple

import numpy as np


class Moves(NamedTuple):
    """A deterministic automaton as a list of moves; it starts in state 0, and refuses what is not listed."""

    accepting_Q: np.ndarray  # bool
    source_E: np.ndarray
    symbol_E: np.ndarray
    target_E: np.ndarray

    def ordered(self) -> "Moves":
        """The same with its moves by source, then by symbol."""
        step_E = np.diff(self.source_E)
        if np.all((step_E > 0) | (step_E == 0) & (np.diff(self.symbol_E) > 0)):
            return self
        order_E = order(self.symbol_E)
        return self.take(order_E[order(self.source_E[order_E])])

    def take(self, at_E: np.ndarray) -> "Moves":
        return Moves(self.accepting_Q, self.source_E[at_E], self.symbol_E[at_E], self.target_E[at_E])

    def from_each(self) -> np.ndarray:
        """Where the moves of each state begin, and where the last ones end; for ordered moves."""
        return np.searchsorted(self.source_E, np.arange(len(self.accepting_Q) + 1))


class Small(NamedTuple):
    """The least automaton of a language: class_S of each symbol, and its ordered moves, whose symbols are those classes."""

    class_S: np.ndarray
    moves: Moves

    @property
    def size(self) -> tuple[int, int]:
        """How many states and classes there are."""
        return len(self.moves.accepting_Q), int(self.class_S.max(initial=-1)) + 1

    def dense(self) -> np.ndarray:
        """next_QC: the state after a class, -1 where it is refused."""
        next_QC = np.full(self.size, -1, np.int32)
        next_QC[self.moves.source_E, self.moves.symbol_E] = self.moves.target_E
        return next_QC


def order(key_E: np.ndarray) -> np.ndarray:
    """A stable order; numbers below 2^16 are sorted digit by digit, some ten times as fast."""
    small = key_E.max(initial=0) < 1 << 16
    return np.argsort(key_E.astype(np.uint16) if small else key_E, kind="stable")


def small(moves: Moves, symbols: int) -> Small:
    """The least automaton; classes stand in the order of their first symbols, states in the order of their first originals."""
    class_S, moves = _classes(moves.ordered(), symbols)
    again_C, moves = _classes(_merged(moves), int(class_S.max(initial=-1)) + 1)
    return Small(again_C[class_S], moves.ordered())


def trimmed(moves: Moves) -> Moves:
    """Without the states that nothing reaches and those from which nothing is accepted; without any state if that leaves no start."""
    states = len(moves.accepting_Q)
    pairs_E = np.unique(moves.source_E.astype(np.int64) * states + moves.target_E)
    source_E, target_E = pairs_E // max(states, 1), pairs_E % max(states, 1)
    kept_Q = _reached(np.arange(states) == 0, source_E, target_E)
    order_E = order(target_E)
    kept_Q &= _reached(moves.accepting_Q, target_E[order_E], source_E[order_E])
    if not kept_Q[:1].any():
        kept_Q[:] = False
    place_Q = np.cumsum(kept_Q) - 1
    moves = moves.take(np.flatnonzero(kept_Q[moves.source_E] & kept_Q[moves.target_E]))
    return Moves(moves.accepting_Q[kept_Q], place_Q[moves.source_E], moves.symbol_E, place_Q[moves.target_E])


def distance(moves: Moves, never: int) -> np.ndarray:
    """How many moves each state is from acceptance at least; `never` where none leads there."""
    states = len(moves.accepting_Q)
    pairs_E = np.unique(moves.target_E.astype(np.int64) * states + moves.source_E)
    found_Q = np.full(states, never, np.int64)
    for steps, level in enumerate(_levels(moves.accepting_Q, pairs_E // states, pairs_E % states)):
        found_Q[level] = steps
    return found_Q


def _reached(first_Q: np.ndarray, source_E: np.ndarray, target_E: np.ndarray) -> np.ndarray:
    reached_Q = np.zeros(len(first_Q), bool)
    for level in _levels(first_Q, source_E, target_E):
        reached_Q[level] = True
    return reached_Q


def _levels(first_Q: np.ndarray, source_E: np.ndarray, target_E: np.ndarray):
    """The states at 0, 1, 2, … moves from the first ones; moves ordered by source."""
    begin_Q = np.searchsorted(source_E, np.arange(len(first_Q) + 1))
    seen_Q, level = first_Q.copy(), np.flatnonzero(first_Q)
    while level.size:
        yield level
        found = np.unique(target_E[spans(begin_Q[level], begin_Q[level + 1])[1]])
        level = found[~seen_Q[found]]
        seen_Q[level] = True


def spans(first_N: np.ndarray, stop_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(which, place): all places of several ranges one after another, and which range each belongs to."""
    count_N = stop_N - first_N
    which = np.repeat(np.arange(len(count_N)), count_N)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(count_N) - count_N - first_N, count_N)


def _classes(moves: Moves, symbols: int) -> tuple[np.ndarray, Moves]:
    """Symbols that move alike from every state in one class; the moves are the classes' then."""
    order_E = order(moves.symbol_E)
    begin_S = np.searchsorted(moves.symbol_E[order_E], np.arange(symbols + 1)).tolist()
    pair_E = moves.source_E[order_E].astype(np.int64) * len(moves.accepting_Q) + moves.target_E[order_E]
    known: dict[bytes, int] = {}
    class_S, first = np.zeros(symbols, np.int64), np.zeros(symbols, bool)
    for symbol, (begin, end) in enumerate(itertools.pairwise(begin_S)):
        effect = pair_E[begin:end].tobytes()
        first[symbol] = effect not in known
        class_S[symbol] = known.setdefault(effect, len(known))
    moves = moves.take(np.flatnonzero(first[moves.symbol_E]))
    return class_S, moves._replace(symbol_E=class_S[moves.symbol_E])


def _merged(moves: Moves) -> Moves:
    """States that accept the same futures as one (Moore 1956): blocks are split until all states of a block move into the same blocks.

    A state is looked at again only when a state that it moves to has got another block, so a long chain costs no more than its length.
    """
    begin_Q = moves.from_each().tolist()
    block_Q = np.zeros(len(moves.accepting_Q), np.int64)
    known: dict[tuple, int] = {}
    for q, (begin, end) in enumerate(itertools.pairwise(begin_Q)):
        block_Q[q] = known.setdefault((bool(moves.accepting_Q[q]), moves.symbol_E[begin:end].tobytes()), len(known))
    size = np.bincount(block_Q, minlength=len(known)).tolist()
    order_E = order(moves.target_E)
    into_Q = np.searchsorted(moves.target_E[order_E], np.arange(len(block_Q) + 1))
    waiting = np.arange(len(block_Q))
    while waiting.size:
        moved: list[int] = []
        waiting = waiting[np.argsort(block_Q[waiting], kind="stable")]
        for part in np.split(waiting, np.flatnonzero(np.diff(block_Q[waiting])) + 1):
            groups: dict[bytes, list[int]] = {}
            for q in part.tolist():
                groups.setdefault(block_Q[moves.target_E[begin_Q[q] : begin_Q[q + 1]]].tobytes(), []).append(q)
            block, parts = int(block_Q[part[0]]), sorted(groups.values(), key=len)
            if len(part) == size[block]:
                parts.pop()  # nobody stays behind, so the largest part keeps the name
            for group in parts:
                block_Q[group] = len(size)
                size[block] -= len(group)
                size.append(len(group))
                moved += group
        moved_N = np.array(moved, np.int64)
        waiting = np.unique(moves.source_E[order_E[spans(into_Q[moved_N], into_Q[moved_N + 1])[1]]])
    return _renamed(moves, block_Q)


def _renamed(moves: Moves, block_Q: np.ndarray) -> Moves:
    _, first, inverse_Q = np.unique(block_Q, return_index=True, return_inverse=True)
    earliest = np.argsort(first)
    rank = np.empty_like(earliest)
    rank[earliest] = np.arange(len(earliest))
    kept = np.zeros(len(block_Q), bool)
    kept[first] = True
    state_Q = rank[inverse_Q]
    moves = moves.take(np.flatnonzero(kept[moves.source_E]))
    return Moves(moves.accepting_Q[first[earliest]], state_Q[moves.source_E], moves.symbol_E, state_Q[moves.target_E])
