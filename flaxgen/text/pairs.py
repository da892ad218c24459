"""A byte-pair vocabulary from a corpus (Sennrich et al. 2016), in GPT-2's spelling of bytes."""

import collections
import heapq
from collections.abc import Iterable

import numpy as np

from flaxgen.text import bytepair

END = "<|endoftext|>"
_BREAK, _GONE = -1, -2  # between two words; the right half of what was merged


def byte_pairs(texts: Iterable[str], *, size: int, least: int = 2) -> bytepair.BytePair:
    """A tokenizer of at most `size` tokens: the 256 bytes, what merging frequent pairs makes, and <|endoftext|>, which ends a text.

    Again and again the pair of neighbours that stands most often within a word is merged, of equally frequent ones the pair made first;
    pairs seen fewer than `least` times are left alone. So the same texts in any order give the same vocabulary, and it is that of the
    trainer of HF tokenizers.
    """
    letters = sorted(bytepair.alphabet())  # GPT-2's own order
    if size <= len(letters):
        raise ValueError(f"size: got {size}, wanted at least {len(letters) + 1}, for the bytes and {END}; allow more")
    if least < 1:
        raise ValueError(f"least: got {least}, wanted 1 or more; a pair that never stands cannot be merged")
    place = {letter: i for i, letter in enumerate(letters)}
    tokens, merges = [*letters], []
    table = Table(_words(texts), np.asarray([place[letter] for letter in bytepair.alphabet()], np.int32))
    while len(tokens) < size - 1 and (pair := table.best(least)):
        left, right = (tokens[i] for i in pair)
        made = place.setdefault(left + right, len(tokens))
        if made == len(tokens):  # else another pair has made this string before
            tokens.append(left + right)
        merges.append((left, right))
        table.merge(pair, made)
    return bytepair.BytePair((*tokens, END), tuple(merges), end=(len(tokens),))


def _words(texts: Iterable[str]) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text: character {error.start} is half a character (a lone surrogate); repair or drop that text") from None
        counts.update(bytepair._words.findall(text))
    return counts


class Table:
    """All distinct words as one chain of symbols, with the count and the places of every pair of neighbours.

    It changes as pairs are merged: a place keeps its number, the left half of a merged pair becomes the new symbol and the right half
    drops out of the chain. `after_N` and `before_N` are the chain, `times_N` says how often the word at a place stands in the corpus.
    """

    def __init__(self, words: collections.Counter[str], symbol_of_byte: np.ndarray):
        data = ["", *words]
        joined = np.frombuffer("\0".join(data).encode() + b"\0", np.uint8)
        lengths = np.asarray([len(word.encode()) + 1 for word in data])
        self.symbol_N = symbol_of_byte[joined]
        self.symbol_N[np.cumsum(lengths) - 1] = _BREAK
        self.times_N = np.repeat(np.asarray([0, *words.values()], np.int64), lengths)
        self.after_N = np.arange(1, len(joined) + 1, dtype=np.int32)
        self.before_N = np.arange(-1, len(joined) - 1, dtype=np.int32)
        self.after_N[-1] = 0  # the last break is never a left half, but it is asked
        self.counts: dict[int, int] = {}
        self.places: dict[int, list[np.ndarray]] = {}
        self.merged: set[int] = set()
        self.waiting: list[tuple[int, int]] = []
        self._add(np.arange(len(joined), dtype=np.int32))

    def best(self, least: int) -> tuple[int, int] | None:
        """The pair that stands most often and at least `least` times, of equal ones the first; None where there is none."""
        while self.waiting:
            count, key = heapq.heappop(self.waiting)
            now = self.counts.get(key, 0)
            if key in self.merged or now < least:
                continue
            if now == -count:
                return key >> 32, key & 0xFFFFFFFF
            heapq.heappush(self.waiting, (-now, key))  # it has become rarer since it was put here
        return None

    def merge(self, pair: tuple[int, int], made: int) -> None:
        """Makes one symbol, `made`, of every such pair."""
        key = pair[0] << 32 | pair[1]
        left_N = self._standing(pair, np.concatenate(self.places.pop(key)))
        self.merged.add(key)
        right_N = self.after_N[left_N]
        self._drop(np.unique(np.concatenate([self.before_N[left_N], left_N, right_N])))
        after_N = self.after_N[right_N]
        self.symbol_N[left_N], self.symbol_N[right_N] = made, _GONE
        self.after_N[left_N], self.before_N[after_N] = after_N, left_N
        self._add(np.unique(np.concatenate([self.before_N[left_N], left_N])))

    def _standing(self, pair: tuple[int, int], place_N: np.ndarray) -> np.ndarray:
        """The places where the pair still stands; in a run such as a a a a only every other one, from the left."""
        left, right = pair
        place_N = place_N[(self.symbol_N[place_N] == left) & (self.symbol_N[self.after_N[place_N]] == right)]
        if left != right:
            return place_N
        place_N = np.sort(place_N)
        index_N = np.arange(len(place_N))
        opens_N = np.ones(len(place_N), bool)
        opens_N[1:] = self.after_N[place_N[:-1]] != place_N[1:]
        return place_N[(index_N - np.maximum.accumulate(np.where(opens_N, index_N, 0))) % 2 == 0]

    def _add(self, place_N: np.ndarray) -> None:
        """Counts the pairs that begin at these places, and remembers where they stand."""
        key_N, place_N = self._keys(place_N)
        order_N = np.argsort(key_N, kind="stable")
        key_N, place_N = key_N[order_N], place_N[order_N]
        start_P = np.flatnonzero(np.diff(key_N, prepend=-1))
        if not len(start_P):
            return
        sums = np.add.reduceat(self.times_N[place_N], start_P).tolist()
        for key, count, here_N in zip(key_N[start_P].tolist(), sums, np.split(place_N, start_P[1:]), strict=True):
            self.counts[key] = self.counts.get(key, 0) + count
            self.places.setdefault(key, []).append(here_N)
            heapq.heappush(self.waiting, (-self.counts[key], key))

    def _drop(self, place_N: np.ndarray) -> None:
        """Takes back the pairs that begin at these places."""
        key_N, place_N = self._keys(place_N)
        key_P, pair_N = np.unique(key_N, return_inverse=True)
        sums = np.bincount(pair_N, weights=self.times_N[place_N])  # float64 is exact to 2^53
        for key, count in zip(key_P.tolist(), sums.tolist(), strict=True):
            self.counts[key] -= int(count)

    def _keys(self, place_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(key_N, place_N) of the pairs that begin at those of the places where one does."""
        left_N, right_N = self.symbol_N[place_N], self.symbol_N[self.after_N[place_N]]
        whole_N = (left_N >= 0) & (right_N >= 0)
        return left_N[whole_N].astype(np.int64) << 32 | right_N[whole_N], place_N[whole_N]
