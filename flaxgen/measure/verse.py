"""Does it scan, and is it new: lines of one length, and what stands in the corpus already."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

STOPS = "，。？！；：、"
_line = re.compile(f"[^{STOPS}\\s]+")
_title = re.compile("^[^《》]{0,4}《[^《》]*》")


def lines(text: str) -> list[str]:
    """The lines of verse between stops; a leading title 《…》 is none."""
    return _line.findall(_title.sub("", text))


def regular(poems: Iterable[Sequence[str]], lengths: Sequence[int] = (5, 7)) -> float:
    """Share of lines as long as the first line of their poem, over poems (lists of lines) whose first line has one of `lengths`.

    The first lines do not count: 床前明月光 / 疑是地上霜 / 举头望月 gives 1 of 2.
    """
    hits = total = 0
    for first, *rest in poems:
        if len(first) in lengths:
            hits += sum(len(line) == len(first) for line in rest)
            total += len(rest)
    if not total:
        raise ValueError(f"no poem has a second line after a first of length {' or '.join(map(str, lengths))}")
    return hits / total


def grams(poems: Iterable[Sequence[str]], size: int = 4) -> np.ndarray:
    """Every run of `size` characters inside a line, as whole numbers, sorted."""
    found = [_numbers(line, size) for poem in poems for line in poem if len(line) >= size]
    return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)


def known(poems: Iterable[Sequence[str]], corpus: np.ndarray, size: int = 4) -> float:
    """Share of the poems' runs of `size` characters that stand in `corpus` (from `grams`): 1 is copied, 0 shares nothing."""
    mine = grams(poems, size)
    if not len(mine) or not len(corpus):
        raise ValueError(f"no line of {size} characters in the poems or the corpus; wanted some in both")
    place = np.minimum(np.searchsorted(corpus, mine), len(corpus) - 1)
    return float((corpus[place] == mine).mean())


def repeated(poems: Iterable[Sequence[str]], size: int = 4) -> float:
    """Share of runs of `size` characters that stood in the same poem before."""
    again = total = 0
    for poem in poems:
        mine = grams([poem], size)
        again += len(mine) - len(np.unique(mine))
        total += len(mine)
    if not total:
        raise ValueError(f"no line of {size} characters in the poems")
    return again / total


def _numbers(line: str, size: int) -> np.ndarray:
    """The runs of a line in base 2^15 over code points folded to 15 bits: CJK ideographs below U+A000 stay apart."""
    code = np.asarray([ord(character) for character in line], np.int64) & 0x7FFF
    powers = (1 << 15) ** np.arange(size, dtype=np.int64)
    return np.lib.stride_tricks.sliding_window_view(code, size) @ powers
