"""An automaton over the units of a text and a tokenizer make one over tokens.

Tokens that act alike are one symbol from the start: of 50,257 tokens, [0-9]{4} tells a few apart. Symbol 0 is for tokens that give no text.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from flaxgen.text import bytepair, minimal, spacing, wordpiece
from flaxgen.text.automaton import Automaton

STATES, MOVES = 1 << 15, 1 << 24  # before anything is merged
_BLOCK = 1 << 21  # moves made at once


class TooLarge(Exception):
    """More states or moves than there may be; says what and how many."""


class Spelled(NamedTuple):
    """The units of all tokens one after another, where those of each begin and the last ones end, and which tokens give no text."""

    unit_U: np.ndarray
    begin_V: np.ndarray
    silent_V: np.ndarray


def spelled(text) -> Spelled:
    """What a tokenizer's tokens say: bytes of a BytePair, characters of a WordPiece."""
    if text.kind == "bytepair":
        parts: Sequence = text.shown
        unit_U = np.frombuffer(b"".join(parts), np.uint8)
    else:
        parts = ["" if joint is None else joint.text for joint in text.joints]
        unit_U = np.frombuffer("".join(parts).encode("utf-32-le", "surrogatepass"), "<u4")
    size_V = np.array([len(part) for part in parts], np.int64)
    return Spelled(unit_U.astype(np.int64), np.concatenate([[0], np.cumsum(size_V)]), size_V == 0)


def of_bytes(automaton: Automaton, text: bytepair.BytePair, found: Spelled, refused: Collection[int]) -> tuple[minimal.Moves, np.ndarray]:
    """(moves, symbol_V) of byte strings one after another; `refused` tokens and those without text are symbol 0."""
    string_V, strings = _strings(automaton, found, refused)
    source_E, string_E, target_E = _walks(automaton.next_QC, strings)
    return minimal.Moves(automaton.accepting_Q, source_E, string_E + 1, target_E), string_V + 1


def of_pieces(
    automaton: Automaton, text: wordpiece.WordPiece, found: Spelled, refused: Collection[int], habits: "Habits", first: int
) -> tuple[minimal.Moves, np.ndarray]:
    """(moves, symbol_V) of pieces as a stream joins them that begins with the memory `first`, a place among the habits' memories.

    A state is a state of the automaton after the text that is settled, and what the stream remembers. The text that it holds back
    counts for acceptance.
    """
    string_V, strings = _strings(automaton, found, refused)
    kinds = habits.leads_MH.shape[1]
    pair_G, symbol_V = np.unique(np.append(-1, np.where(string_V >= 0, string_V * kinds + habits.habit_V, -1)), return_inverse=True)
    string_G, habit_G = pair_G[1:] // kinds, pair_G[1:] % kinds
    after = _rows(automaton.next_QC, strings)
    lead = [functools.cache(functools.partial(automaton.walk, unit_U=[ord(c) for c in text])) for text in habits.leads]
    memories = len(habits.memories)

    def moves(q: int, memory: int) -> tuple[np.ndarray, np.ndarray]:
        """The groups of tokens that can come, and automaton state * memories + memory after each."""
        lead_G, own_G = habits.leads_MH[memory, habit_G], np.where(habits.held_MH[memory, habit_G], len(strings), string_G)
        state_G = np.full(len(string_G), -1, np.int64)
        for which in habits.used[memory]:
            reached = lead[which](q)
            if reached >= 0:
                state_G = np.where(lead_G == which, after(reached)[own_G], state_G)
        group_E = np.flatnonzero(state_G >= 0)
        return group_E, state_G[group_E] * memories + habits.next_MH[memory, habit_G[group_E]]

    place_N = np.full(len(automaton.accepting_Q) * memories, -1, np.int64)
    place_N[first], states, rows, total = 0, [first], [], 0
    for state in states:  # grows
        group_E, number_E = moves(*divmod(state, memories))
        new = np.unique(number_E[place_N[number_E] < 0])
        place_N[new] = np.arange(len(states), len(states) + len(new))
        states += new.tolist()
        rows.append((group_E + 1, place_N[number_E]))
        total += len(group_E)
        _check(len(states), total)
    ends = [automaton.walk(state // memories, [ord(c) for c in habits.rest[state % memories]]) for state in states]
    accepting_Q = np.array([end >= 0 and automaton.accepting_Q[end] for end in ends], bool)
    source_E = np.repeat(np.arange(len(rows)), [len(group_E) for group_E, _ in rows])
    return minimal.Moves(accepting_Q, source_E, *map(np.concatenate, zip(*rows, strict=True))), symbol_V[1:]


def _rows(next_QC: np.ndarray, strings: Sequence[bytes]) -> Callable[[int], np.ndarray]:
    """The state that each string leads to from a state; behind them all stands the state itself, for no string."""
    source_E, string_E, target_E = _walks(next_QC, strings)
    order_E = minimal.order(source_E)
    string_E, target_E = string_E[order_E], target_E[order_E]
    begin_Q = np.searchsorted(source_E[order_E], np.arange(len(next_QC) + 1))

    @functools.lru_cache(maxsize=1 << 8)
    def after(q: int) -> np.ndarray:
        state_S = np.full(len(strings) + 1, -1, np.int64)
        state_S[string_E[begin_Q[q] : begin_Q[q + 1]]] = target_E[begin_Q[q] : begin_Q[q + 1]]
        state_S[-1] = q
        return state_S

    return after


class Habits:
    """What streams of a WordPiece can remember, and how pieces of each habit move them: M memories, H habits of pieces.

    leads: texts that a stream puts before a piece, a blank mostly. leads_MH: which one; held_MH: whether the piece itself is held back
    then; next_MH: the memory after it. rest: what `finish` would add. habit_V: the habit of each token, 0 where it gives no text.
    """

    def __init__(self, text: wordpiece.WordPiece):
        known = {None: 0}
        sample = [len(text)]  # one token of each habit; past the vocabulary is a token without text
        self.habit_V = np.zeros(len(text), np.int64)
        for token, joint in enumerate(text.joints):
            if joint is not None:
                self.habit_V[token] = known.setdefault(spacing.habit(joint), len(known))
                if self.habit_V[token] == len(sample):
                    sample.append(token)
        leads, self.memories, self.rest = {"": 0}, [spacing.Memory()], []
        self.place = {self.memories[0]: 0}
        rows: list[list[tuple[int, bool, int]]] = []
        stream = text.stream()
        for memory in self.memories:  # grows
            rows.append([])
            for token in sample:
                stream.remember(memory)
                given, after = stream.push(token), stream.memory
                held = token < len(text) and after.held is not None
                lead = given if held or token == len(text) else given.removesuffix(text.joints[token].text)
                rows[-1].append((leads.setdefault(lead, len(leads)), held, self._number(after)))
            stream.remember(memory)
            self.rest.append(stream.finish())
            self._number(stream.memory)
        self.leads = [*leads]
        self.leads_MH, held_MH, self.next_MH = np.moveaxis(np.array(rows, np.int64), 2, 0)
        self.held_MH = held_MH.astype(bool)
        self.used = [np.unique(lead_H).tolist() for lead_H in self.leads_MH]

    def _number(self, memory: spacing.Memory) -> int:
        if memory not in self.place:
            self.place[memory] = len(self.memories)
            self.memories.append(memory)
        return self.place[memory]


def _check(states: int, moves: int) -> None:
    if states > STATES or moves > MOVES:
        raise TooLarge(
            f"before anything is merged, its table over this vocabulary has {states:,} states and {moves:,} moves and is not done, "
            f"wanted at most {STATES:,} and {MOVES:,}"
        )


def _strings(automaton: Automaton, found: Spelled, refused: Collection[int]) -> tuple[np.ndarray, list[bytes]]:
    """(string_V, strings): tokens as strings of unit classes, each string once (int16, as bytes); -1 for tokens that cannot come."""
    class_U = automaton.classes(found.unit_U).astype(np.int16)
    dead_C = (automaton.next_QC < 0).all(axis=0)
    dead_U = np.concatenate([[0], np.cumsum(dead_C[class_U])])
    live_V = ~found.silent_V & (dead_U[found.begin_V[1:]] == dead_U[found.begin_V[:-1]])
    live_V[[i for i in refused if i < len(live_V)]] = False
    data, begin = class_U.tobytes(), (found.begin_V * 2).tolist()
    known: dict[bytes, int] = {}
    string_V = np.full(len(live_V), -1, np.int64)
    string_V[live_V] = [known.setdefault(data[begin[i] : begin[i + 1]], len(known)) for i in np.flatnonzero(live_V).tolist()]
    return string_V, [*known]


def _walks(next_QC: np.ndarray, strings: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source, string, target) of every string that can be walked from every state, beginnings that strings share walked once."""
    levels = _levels(strings, next_QC.shape[1])
    widest = max((len(class_N) for class_N, _, _ in levels), default=1)
    step = max(1, _BLOCK // widest)
    made: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for low in range(0, len(next_QC), step):
        source = state = np.arange(low, min(low + step, len(next_QC)))
        node = np.zeros(len(source), np.int64)
        for class_N, begin_N, string_N in levels:
            which, node = minimal.spans(begin_N[node], begin_N[node + 1])
            state = next_QC[state[which], class_N[node]]
            alive = np.flatnonzero(state >= 0)
            source, state, node = source[which[alive]], state[alive], node[alive]
            done = np.flatnonzero(string_N[node] >= 0)
            made.append((source[done], string_N[node[done]], state[done]))
        _check(low, sum(len(source_E) for source_E, _, _ in made))
    if not made:
        return (np.zeros(0, np.int64),) * 3
    return tuple(np.concatenate(parts).astype(np.int64) for parts in zip(*made, strict=True))


def _levels(strings: Sequence[bytes], classes: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A trie level by level: the class that leads to each node, where the nodes below each one of the level above begin, and its string.

    A node has string -1 where none ends.
    """
    size_S = np.array([len(string) // 2 for string in strings], np.int64)
    class_U = np.frombuffer(b"".join(strings), np.int16).astype(np.int64)
    begin_S = np.cumsum(size_S) - size_S
    node_S = np.zeros(len(strings), np.int64)
    above, levels = 1, []
    for depth in range(size_S.max(initial=0)):
        at = np.flatnonzero(size_S > depth)
        key_N, node = np.unique(node_S[at] * classes + class_U[begin_S[at] + depth], return_inverse=True)
        node_S[at] = node
        string_N = np.full(len(key_N), -1, np.int64)
        ends = size_S[at] == depth + 1
        string_N[node[ends]] = at[ends]
        levels.append((key_N % classes, np.searchsorted(key_N // classes, np.arange(above + 1)), string_N))
        above = len(key_N)
    return levels
