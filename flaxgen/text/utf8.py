"""Automata over characters as automata over the bytes of UTF-8 (RFC 3629)."""

import functools
import itertools

import numpy as np

from flaxgen.text import minimal
from flaxgen.text.automaton import UNITS, Automaton, of_moves

Labelled = tuple[tuple[int, int, int], ...]  # intervals: first, last, label

# First and last character, continuation bytes, and what is added to the first byte. Surrogates have no spelling.
_LENGTHS = ((0x0, 0x7F, 0, 0x0), (0x80, 0x7FF, 1, 0xC0), (0x800, 0xD7FF, 2, 0xE0), (0xE000, 0xFFFF, 2, 0xE0), (0x10000, 0x10FFFF, 3, 0xF0))
_CONTINUES = 0x80


def in_bytes(found: Automaton, most: int) -> Automaton | None:
    """The automaton of the same texts as bytes; None where it would have more than `most` states before any are merged."""
    accepting = found.accepting_Q.tolist()
    edges: list[tuple[int, int, int]] = []
    for q in range(len(accepting)):
        target_I = found.next_QC[q][found.class_I]
        targets = np.unique(target_I[target_I >= 0])
        # States with other targets but the same cut between them share their tree.
        label_I = np.where(target_I >= 0, np.searchsorted(targets, target_I), -1)
        changes = [0, *(np.flatnonzero(np.diff(label_I)) + 1).tolist(), len(label_I)]
        bounds = [*found.bound_I.tolist(), UNITS]
        member = tuple((bounds[i], bounds[j] - 1, int(label_I[i])) for i, j in itertools.pairwise(changes) if label_I[i] >= 0)
        _lay(tree(member), q, targets.tolist(), accepting, edges)
        if len(accepting) > most:
            return None
    edge_EX = np.array(edges, np.int64).reshape(-1, 3)
    return of_moves(np.arange(256), np.arange(256), minimal.Moves(np.array(accepting, bool), *edge_EX.T))


def _lay(root: tuple, state: int, targets: list[int], accepting: list[bool], edges: list[tuple[int, int, int]]) -> None:
    """Adds the states and moves of a tree below a state."""
    place, waiting = {root: state}, [root]
    for node in waiting:  # grows
        for low, high, below in node:
            if isinstance(below, int):
                target = targets[below]
            elif below in place:
                target = place[below]
            else:
                target = place[below] = len(accepting)
                accepting.append(False)
                waiting.append(below)
            edges += [(place[node], byte, target) for byte in range(low, high + 1)]


@functools.lru_cache(maxsize=1 << 10)
def tree(member: Labelled) -> tuple:
    """A node: tuples of first byte, last byte and what lies below, which is a node or, under the last byte, the characters' label.

    tree(((0x41, 0x5A, 0), (0xE9, 0xE9, 1)))  ->  ((0x41, 0x5A, 0), (0xC3, 0xC3, ((0xA9, 0xA9, 1),)))
    """
    node: tuple = ()
    for low, high, more, mark in _LENGTHS:
        node += _node(tuple((max(a, low), min(b, high), label) for a, b, label in member if a <= high and b >= low), more, mark)
    return node


@functools.lru_cache(maxsize=1 << 14)
def _node(member: Labelled, more: int, mark: int) -> tuple:
    """The node of numbers of 6 * more bits below a first byte, which is the mark plus what lies above them."""
    if not more:
        return tuple((mark + low, mark + high, label) for low, high, label in member)
    width = 1 << 6 * more
    below: dict[int, list[tuple[int, int, int]]] = {}
    for low, high, label in member:
        for top in range(low // width, high // width + 1):
            below.setdefault(top, []).append((max(low - top * width, 0), min(high - top * width, width - 1), label))
    found: list[tuple] = []
    for top, inside in below.items():
        inner = _node(tuple(inside), more - 1, _CONTINUES)
        if found and found[-1][1] == mark + top - 1 and found[-1][2] == inner:
            found[-1] = (found[-1][0], mark + top, inner)
        else:
            found.append((mark + top, mark + top, inner))
    return tuple(found)
