"""Level (平) and oblique (仄): the tones in which a Chinese character can be read.

Two tables come with flaxgen: `mandarin`, where tones 1 and 2 are level, 3 and 4 oblique; and `pingshui`, the rhyme book by which regulated
verse is written, where every character of the old entering tone is oblique. Both hold simplified and traditional forms. A neutral tone is
neither.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Literal, get_args

LEVEL, OBLIQUE = "平", "仄"
Book = Literal["mandarin", "pingshui"]


@functools.cache
def load(book: Book = "mandarin") -> Mapping[str, str]:
    """Character -> "平", "仄", or "平仄" where it has readings of both; a character that is not there has no known tone."""
    if book not in get_args(Book):
        raise ValueError(f"tones by {book!r}: wanted one of {', '.join(map(repr, get_args(Book)))}")
    path = importlib.resources.files("flaxgen") / "bundled" / "tones" / f"{book}.json"
    return {character: tones for tones, characters in json.loads(path.read_text(encoding="utf-8")).items() for character in characters}


def against(tones: str) -> str:
    """The tone that stands against one of `tones`: "" where they leave it open, being both or unknown."""
    return {LEVEL: OBLIQUE, OBLIQUE: LEVEL}.get(tones, "")
