"""Automata over the units of a text, its characters or its UTF-8 bytes: of a list of texts, and of the texts that hold one of a list."""

import collections
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from flaxgen.text import minimal

Units = Literal["characters", "bytes"]
UNITS = 0x110000


class Automaton(NamedTuple):
    """A deterministic automaton that starts in state 0. Units fall into classes by the interval they lie in.

    bound_I: the first unit of each interval, from 0 on; class_I: its class. next_QC: the state after a class, -1 where it is refused.
    """

    bound_I: np.ndarray
    class_I: np.ndarray
    next_QC: np.ndarray
    accepting_Q: np.ndarray

    def classes(self, unit_U: np.ndarray) -> np.ndarray:
        return self.class_I[np.searchsorted(self.bound_I, unit_U, side="right") - 1]

    def walk(self, state: int, unit_U: Sequence[int]) -> int:
        """The state after several units, -1 where they are refused."""
        for c in self.classes(np.asarray(unit_U, np.int64)).tolist():
            state = int(self.next_QC[state, c]) if state >= 0 else -1
        return state


def of_moves(bound_I: np.ndarray, class_I: np.ndarray, moves: minimal.Moves, *, trim: bool = True) -> Automaton:
    """The least automaton of these moves over classes of units."""
    found = minimal.small(minimal.trimmed(moves) if trim else moves, int(class_I.max()) + 1)
    return Automaton(bound_I, found.class_S[class_I], found.dense(), found.moves.accepting_Q)


def units(text: str, kind: Units) -> list[int]:
    return list(text.encode("utf-8", "surrogatepass")) if kind == "bytes" else [ord(c) for c in text]


def listed(texts: Sequence[str], kind: Units) -> Automaton:
    """Accepts these texts and no other."""
    child, accepting = _trie([units(text, kind) for text in texts])
    bound_I, class_I, class_of = _alphabet({unit for below in child for unit in below})
    edges = [(q, class_of[unit], target) for q, below in enumerate(child) for unit, target in below.items()]
    return of_moves(bound_I, class_I, _moves(accepting, edges))


def holding(texts: Sequence[str], kind: Units) -> Automaton:
    """Accepts what holds one of these texts somewhere, and refuses nothing: an accepting state goes to itself (Aho and Corasick 1975)."""
    child, accepting = _trie([units(text, kind) for text in texts])
    bound_I, class_I, class_of = _alphabet({unit for below in child for unit in below})
    go: list[dict[int, int]] = [{} for _ in child]
    fallback = [0] * len(child)
    queue = collections.deque([0])
    while queue:
        q = queue.popleft()
        accepting[q] |= accepting[fallback[q]]
        go[q] = dict(go[fallback[q]]) if q else {}
        for unit, target in child[q].items():
            fallback[target] = go[q].get(unit, 0)
            go[q][unit] = target
            queue.append(target)
    edges = [
        (q, c, q if accepting[q] else go[q].get(unit, 0)) for q in range(len(go)) for unit, c in [*class_of.items(), (None, len(class_of))]
    ]
    return of_moves(bound_I, class_I, _moves(accepting, edges), trim=False)


def _trie(texts: Sequence[Sequence[int]]) -> tuple[list[dict[int, int]], list[bool]]:
    child: list[dict[int, int]] = [{}]
    accepting = [False]
    for text in texts:
        q = 0
        for unit in text:
            if unit not in child[q]:
                child[q][unit] = len(child)
                child.append({})
                accepting.append(False)
            q = child[q][unit]
        accepting[q] = True
    return child, accepting


def _alphabet(found: set[int]) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Intervals, their classes, and the class of each unit found; all others share the last one."""
    class_of = {unit: c for c, unit in enumerate(sorted(found))}
    bound_I = np.unique([0, *found, *(unit + 1 for unit in found)])
    return bound_I, np.array([class_of.get(unit, len(class_of)) for unit in bound_I.tolist()]), class_of


def _moves(accepting: Sequence[bool], edges: Sequence[tuple[int, int, int]]) -> minimal.Moves:
    edge_EX = np.array(edges, np.int64).reshape(-1, 3)
    return minimal.Moves(np.array(accepting, bool), *edge_EX.T)
