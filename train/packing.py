"""Documents into rows: several in a row where they fit best, or one a row.

A row is a list of pieces that stand one after the other in T + 1 places; what they leave free stays empty.
With T = 9, documents `abc` and `defg`, end `.`:

    packed   a b c . d e f g . -          single   a b c . - - - - - -
                                                   d e f g . - - - - -
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

WINDOW = 4096  # documents packed together: rows of verse, 193 wide, are 98.9 % full

Row = list[np.ndarray]
Rows = Literal["packed", "single"]


def rows(sequences: Iterable[np.ndarray], width: int, kind: Rows) -> Iterator[Row]:
    """The rows, each at most `width` tokens, of documents that are one array of ids each."""
    if kind not in ("packed", "single"):
        raise ValueError(f"rows={kind}: wanted packed or single")
    return packed(sequences, width) if kind == "packed" else single(sequences, width)


def packed(sequences: Iterable[np.ndarray], width: int) -> Iterator[Row]:
    """Among WINDOW documents the longest first, each into the row it fills best.

    A document wider than a row is cut. In its row a document stands at a random place, so that short ones begin rows too.
    """
    rng = np.random.default_rng(0)
    pieces = _cut(sequences, width)
    for window in iter(lambda: list(itertools.islice(pieces, WINDOW)), []):
        made: list[Row] = []
        free: list[tuple[int, int]] = []  # sorted (free places, row)
        for sequence in sorted(window, key=len, reverse=True):
            place = bisect.bisect_left(free, (len(sequence), -1))
            if place < len(free):
                left, row = free.pop(place)
            else:
                left, row = width, len(made)
                made.append([])
            made[row].append(sequence)
            bisect.insort(free, (left - len(sequence), row))
        for row in made:
            yield [row[place] for place in rng.permutation(len(row))]


def single(sequences: Iterable[np.ndarray], width: int) -> Iterator[Row]:
    """One document a row, as gpt2-ml has it: cut at width - 1 tokens (1,024 of 1,025).

    A document without a second token has nothing to predict and is left out.
    """
    for sequence in sequences:
        if min(len(sequence), width - 1) > 1:
            yield [sequence[: width - 1]]


def _cut(sequences: Iterable[np.ndarray], width: int) -> Iterator[np.ndarray]:
    for sequence in sequences:
        start = 0
        while len(sequence) - start > width:
            yield sequence[start : start + width]
            start += width - 1  # the last token stands again, as the first input: every token is a target once
        yield sequence[start:]
