"""Constraints and stop strings as tables over tokens, which the device walks while it draws.

A table says for every state and class of tokens what state comes next. It is exact: whatever tokens it lets through decode to a text that
matches, and every sequence of tokens that does is let through, however it cuts the text.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from flaxgen.text import automaton, comb, minimal, product, regular
from flaxgen.text import stop as stops

BUDGET = (1 << 14, 1 << 13, 1 << 21)  # states, classes of tokens, and cells
NEVER = 2**31 - 1
# Of tables that a tokenizer remembers; the largest have 8 MB.
_KEPT, _KEPT_BYTES = 64, 1 << 25


class Table(NamedTuple):
    """An automaton over tokens that starts in state 0, its moves in a comb (text.comb).

    class_V: the class of each token (int16); class 0 is for tokens without text, and for ids past the vocabulary. The move of state q by
    class c is in cell base_Q[q] + c: to next_L, where owner_L is q (int32, int16, int16); without such a cell it is refused.
    left_Q: how many tokens a state is from acceptance at least, NEVER where it cannot be reached (int32); 0 where the text matches, or
    where a stop string stands in it.
    """

    class_V: np.ndarray
    base_Q: np.ndarray
    owner_L: np.ndarray
    next_L: np.ndarray
    left_Q: np.ndarray

    def after(self, state: int, token: int) -> int:
        """The state after a token, -1 where it is refused."""
        cell = int(self.base_Q[state]) + (int(self.class_V[token]) if token < len(self.class_V) else 0)
        return int(self.next_L[cell]) if cell < len(self.owner_L) and self.owner_L[cell] == state else -1


def constraint(
    text,
    *,
    regex: str | None = None,
    choices: Sequence[str] | None = None,
    banned: Collection[int] = (),
    budget: tuple[int, int, int] = BUDGET,
) -> Table:
    """The table of the answers that match a pattern whole, as `re.fullmatch` does, or are one of several texts.

    text: the tokenizer; an answer is what its `decode` gives, as if nothing stood before it. banned: ids that no answer may hold; control
    tokens and whatever gives no text are left out anyway. budget: the most states and classes of tokens there may be. ValueError where
    no answer matches, where only the empty one does, or where the table would be larger.
    """
    if (regex is None) == (choices is None):
        raise ValueError(f"constraint: got regex={regex!r} and choices={choices!r}, wanted one of the two")
    if choices is not None:
        choices = checked(choices)
    key = ("constraint", regex, choices, frozenset(banned), budget)
    return _remembered(text, key, lambda: _constraint(text, regex, choices, key[3], budget))


def stop(text, strings: Sequence[str], *, after: Collection[int] = ()) -> Table:
    """The table that says when one of several texts stands in the answer; it refuses nothing, and ends there.

    after: the ids before the answer: a WordPiece answer begins with a blank or not according to them, and a BytePair one may begin within
    a character. Text that is held back counts once it is given out.
    """
    strings = stops.checked(strings)
    return _remembered(text, ("stop", strings, _start(text, after)), lambda: _stop(text, strings, _start(text, after)))


def unwritable(text, strings: Sequence[str]) -> tuple[str, ...]:
    """Those of several stop strings that no tokens of this vocabulary write, whatever stands before them."""
    strings = stops.checked(strings)
    if text.kind == "bytepair":
        return ()  # it has a token for every byte

    def found() -> tuple[str, ...]:
        return tuple(string for string in strings if _stop(text, (string,), _first(text)).left_Q[0] == NEVER)

    return _remembered(text, ("unwritable", strings), found)


def _constraint(text, regex: str | None, choices: tuple[str, ...] | None, banned: Collection[int], budget: tuple[int, int, int]) -> Table:
    units: automaton.Units = "bytes" if text.kind == "bytepair" else "characters"
    name = f"regex {regex!r:.90}" if choices is None else f"choices, {len(choices):,} texts"
    found = regular.compiled(regex, units) if choices is None else automaton.listed(choices, units)
    try:
        moves, symbol_V = _product(text, found, banned, _first(text))
        moves = minimal.trimmed(moves)
        if not len(moves.source_E):
            raise ValueError(_unwritable(name, text, bool(len(moves.accepting_Q)), banned))
        return _table(moves, symbol_V, budget)
    except product.TooLarge as error:
        advice = "use smaller repeat counts, or plainer classes, as [a-z] for \\w" if choices is None else "offer fewer or shorter ones"
        raise ValueError(f"{name}: {error}; {advice}") from None


def _stop(text, strings: tuple[str, ...], first: int | bytes) -> Table:
    found = automaton.holding(strings, "bytes" if text.kind == "bytepair" else "characters")
    if isinstance(first, bytes):
        found = _from(found, found.walk(0, [*first]))
    try:
        moves, symbol_V = _product(text, found, (), first)
        state_Q = np.arange(len(moves.accepting_Q))
        moves = minimal.Moves(
            moves.accepting_Q,
            np.concatenate([moves.source_E, state_Q]),
            np.concatenate([moves.symbol_E, np.zeros_like(state_Q)]),
            np.concatenate([moves.target_E, state_Q]),
        )
        return _table(moves.take(np.flatnonzero(~moves.accepting_Q[moves.source_E])), symbol_V, BUDGET)
    except product.TooLarge as error:
        raise ValueError(f"stop, {len(strings):,} texts: {error}; use fewer or shorter ones") from None


def _table(moves: minimal.Moves, symbol_V: np.ndarray, budget: tuple[int, int, int]) -> Table:
    small = minimal.small(moves, int(symbol_V.max(initial=0)) + 1)
    _check(small.size, budget[:2], ("states", "classes of tokens"))
    moves = small.moves
    found = comb.packed(moves.source_E, moves.symbol_E, moves.target_E, small.size)
    _check((*small.size, len(found.owner_L)), budget, ("states", "classes of tokens", "cells"))
    left_Q = minimal.distance(moves, NEVER)
    arrays = (small.class_S[symbol_V], np.int16), (found.base_Q, np.int32), (found.owner_L, np.int16), (found.value_L, np.int16)
    return Table(*(array.astype(kind) for array, kind in arrays), left_Q.astype(np.int32))


def _check(got: Sequence[int], most: Sequence[int], names: Sequence[str]) -> None:
    if any(a > b for a, b in zip(got, most, strict=True)):
        raise product.TooLarge(f"its table over this vocabulary has {_counted(got, names)}, wanted at most {_counted(most, names)}")


def _counted(numbers: Sequence[int], names: Sequence[str]) -> str:
    return ", ".join(f"{number:,} {name}" for number, name in zip(numbers, names, strict=True))


def _product(text, found: automaton.Automaton, refused: Collection[int], first) -> tuple[minimal.Moves, np.ndarray]:
    if not len(found.next_QC):
        return minimal.Moves(*(np.zeros(0, kind) for kind in (bool, int, int, int))), np.zeros(len(text), np.int64)
    spelled = _remembered(text, "spelled", lambda: product.spelled(text))
    if text.kind == "bytepair":
        return product.of_bytes(found, text, spelled, refused)
    return product.of_pieces(found, text, spelled, refused, _habits(text), first)


def _habits(text) -> product.Habits:
    return _remembered(text, "habits", lambda: product.Habits(text))


def _first(text) -> int | bytes:
    """How a text begins that stands alone."""
    return b"" if text.kind == "bytepair" else _habits(text).place[text.stream().memory]


def _start(text, after: Collection[int]) -> int | bytes:
    """What the answer takes over from the ids before it: the first bytes of a character, or what a stream remembers."""
    stream = text.stream(after)
    return stream.pending if text.kind == "bytepair" else _habits(text).place[stream.memory]


def _from(found: automaton.Automaton, state: int) -> automaton.Automaton:
    """The same automaton, begun in another state."""
    order_Q = np.argsort(np.arange(len(found.next_QC)) != state, kind="stable")
    rank_Q = np.argsort(order_Q)
    next_QC = found.next_QC[order_Q]
    return found._replace(next_QC=np.where(next_QC >= 0, rank_Q[next_QC], -1), accepting_Q=found.accepting_Q[order_Q])


def checked(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices, each once; ValueError for what cannot be one."""
    if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"choices: got {choices!r:.90}, wanted a list of texts")
    if not choices or "" in choices:
        what = "an empty text among them" if choices else "none"
        raise ValueError(f"choices: got {what}, wanted at least one text and no empty one; leave the field out, or the text")
    if any(map(stops.unpaired, choices)):
        raise ValueError(
            f"choices: got {choices!r:.90}, with half a surrogate pair, which is no character; wanted text that can be written"
        )
    return tuple(dict.fromkeys(choices))


def _unwritable(name: str, text, empty: bool, banned: Collection[int]) -> str:
    if empty:
        return f"{name}: only the empty text matches, wanted a pattern of at least one character that this vocabulary can write"
    reasons = [f"{len(banned)} tokens are banned"] if banned else []
    if text.kind == "wordpiece":
        reasons += ["it knows no capital letters"] * (text.case == "lower") + ["blanks stand only where its decoder puts them"]
    return f"{name}: no tokens of this vocabulary of {len(text):,} make a text that matches; " + "; ".join([*reasons, "change the pattern"])


def _remembered(text, key, make):
    """make(), kept with the tokenizer; the oldest tables are forgotten where they are many or large together."""
    kept = text.tables
    if (found := kept.get(key)) is not None:
        return found
    kept[key] = made = make()
    sizes = {other: _bytes(value) for other, value in kept.copy().items() if isinstance(other, tuple)}
    for other in [*sizes][:-1]:
        if len(sizes) > _KEPT or sum(sizes.values()) > _KEPT_BYTES:
            kept.pop(other, None)  # another thread may have been here
            del sizes[other]
    return made


def _bytes(kept) -> int:
    return sum(array.nbytes for array in kept) if isinstance(kept, Table) else 0
