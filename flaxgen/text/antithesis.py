"""What the lower line of a couplet owes the upper one (对仗): where it pauses, repeats itself and opposes its tones.

Lines are texts of characters of Chinese, cut into clauses by punctuation, which stands at the same places in both. Places count from 0.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import get_args

from flaxgen.text import characters, tones
from flaxgen.text.tones import Book


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a lower line has to obey, besides never having the upper line's character at the same place.

    tones: at every beat but the last of the line, the tone opposes the upper line's. ends: the line ends level (平) where the upper one
    ends oblique (仄), as it should; and oblique where the upper one has a level reading only. repeats: characters are equal at two places
    of the lower line just where they are in the upper line. fresh: no character of the upper line stands anywhere in the lower one.
    book: what says the tones. A character of both tones, or of none known, asks nothing of the one below, except at the end of the line,
    where `ends` asks for a level one all the same; in the lower line it fits where one of its readings does.
    """

    tones: bool = True
    ends: bool = True
    repeats: bool = True
    fresh: bool = True
    book: Book = "mandarin"

    def __post_init__(self):
        for name in ("tones", "ends", "repeats", "fresh"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted True or False")
        if self.book not in get_args(Book):
            raise ValueError(f"book={self.book!r}: wanted one of {', '.join(map(repr, get_args(Book)))}")


ARTICLE = Rules(tones=False, ends=False, repeats=False, fresh=False)


def is_open(character: str) -> bool:
    """Whether the lower line answers it with a character of its own; punctuation it repeats."""
    return not characters.is_punctuation(character)


def clauses(line: str) -> list[tuple[int, int]]:
    """(start, stop) of what lies between punctuation.

    clauses("春到，花开")  ->  [(0, 2), (3, 5)]
    """
    cuts = [-1, *(place for place, one in enumerate(line) if not is_open(one)), len(line)]
    return [(left + 1, right) for left, right in itertools.pairwise(cuts) if right > left + 1]


def beats(line: str) -> list[int]:
    """The places where tones oppose: every second one of a clause (二四六分明), and its last."""
    return [place for start, stop in clauses(line) for place in range(start, stop) if (place - start) % 2 or place == stop - 1]


def wanted(upper: str, rules: Rules, table: Mapping[str, str]) -> dict[int, str]:
    """Place -> the tone in which the lower line's character has to be readable there, for the places where one is asked for."""
    found, places = {}, beats(upper)
    if rules.tones:
        found = {place: tones.against(table.get(upper[place], "")) for place in places[:-1]}
    if rules.ends and places:
        found[places[-1]] = tones.against(table.get(upper[places[-1]], "")) or tones.LEVEL
    return {place: tone for place, tone in found.items() if tone}
