"""Where tokens stand in the text they were cut from, in characters."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from flaxgen.text import characters, wordpiece


class Piece(NamedTuple):
    """A token and the characters of the text that it stands for, text[start:end]."""

    id: int
    start: int
    end: int


def pieces(text: wordpiece.WordPiece, string: str) -> list[Piece]:
    """The tokens that `text.encode(string)` gives, in their places.

    "Café是" gives `cafe` at 0 to 4 and `是` at 4 to 5. Where folding characters one by one and together makes texts of unequal length, all
    tokens of that chunk, which stands between blanks or ideographs, have its place.
    """
    found: list[Piece] = []
    at = 0
    for chunk in characters.chunks(string):
        at = string.index(chunk, at)
        found += _of_chunk(text, chunk, at)
        at += len(chunk)
    return found


def place(row: Sequence[int], run: Sequence[int]) -> int | None:
    """Where a run of tokens first stands in a row, None where it does not."""
    run = list(run)
    return next((i for i in range(len(row) - len(run) + 1) if list(row[i : i + len(run)]) == run), None)


def _of_chunk(text: wordpiece.WordPiece, chunk: str, at: int) -> list[Piece]:
    ids, words = text.encode(chunk), characters.words(chunk, text.case)
    place_F = [i for i, character in enumerate(chunk) for _ in _folded(character, text.case)]
    if len(place_F) != sum(map(len, words)):
        return [Piece(i, at, at + len(chunk)) for i in ids]
    found, left, begin = [], iter(ids), 0
    for word in words:
        turn, end = begin, begin + len(word)
        while turn < end:
            token = text.tokens[i := next(left)]
            long = end - turn if token == wordpiece.UNKNOWN else len(token.removeprefix("##") if turn > begin else token)
            found.append(Piece(i, at + place_F[turn], at + place_F[turn + long - 1] + 1))
            turn += long
        begin = end
    return found


def _folded(character: str, case: str) -> str:
    """What one character becomes by itself."""
    if characters.is_dropped(character):
        return ""
    if case == "keep":
        return character
    return "".join(c for c in unicodedata.normalize("NFD", character.lower()) if unicodedata.category(c) != "Mn")
