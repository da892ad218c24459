"""An interpolated trigram over token ids: what a model of one character must beat."""

import dataclasses

import numpy as np

ROUNDS = 40  # of EM; the weights of the fourth decimal stand still after about 20


@dataclasses.dataclass(frozen=True)
class Trigram:
    """p(w | u v) = a3 n(uvw)/n(uv) + a2 n(vw)/n(v) + a1 n(w)/n + a0 / vocab, the weights a depending on how often uv and v were seen.

    Jelinek and Mercer 1980. A text begins with two start symbols, whose id is `vocab`; grams are sorted whole numbers with their counts.
    """

    vocab: int
    grams: tuple[tuple[np.ndarray, np.ndarray], ...]  # of one, two and three tokens
    weight: np.ndarray  # (buckets, 4), rows sum to 1

    @classmethod
    def fit(cls, train: list[list[int]], dev: list[list[int]], *, vocab: int) -> "Trigram":
        """Counts from `train`, weights by EM on `dev`, which must hold other texts."""
        grams = tuple(np.unique(gram, return_counts=True) for gram in _grams(train, vocab))
        blank = cls(vocab, grams, np.full((_BUCKETS, 4), 0.25))
        chance_NC, bucket_N = blank._parts(dev)
        weight = blank.weight.copy()
        for _ in range(ROUNDS):
            share_NC = chance_NC * weight[bucket_N]
            share_NC /= share_NC.sum(axis=1, keepdims=True)
            sums = np.full((_BUCKETS, 4), 1e-3)
            np.add.at(sums, bucket_N, share_NC)
            weight = sums / sums.sum(axis=1, keepdims=True)
        return cls(vocab, grams, weight)

    def log_prob(self, texts: list[list[int]]) -> np.ndarray:
        """Natural logarithms of all tokens of all texts, one after the other, the first token of each text left out."""
        chance_NC, bucket_N = self._parts(texts)
        first = np.concatenate([np.arange(len(text)) == 0 for text in texts])
        return np.log((chance_NC * self.weight[bucket_N]).sum(axis=1))[~first]

    def _parts(self, texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """The four probabilities of every token, and the bucket of its context."""
        base = self.vocab + 1
        one_N, two_N, three_N = _grams(texts, self.vocab)
        seen = [_look(table, gram_N) for table, gram_N in zip(self.grams, (one_N, two_N, three_N), strict=True)]
        single_N, double_N = _context(self.grams[1], base, two_N // base), _context(self.grams[2], base, three_N // base)
        one = seen[0] / self.grams[0][1].sum()
        # After a context that was never seen the shorter one speaks, so that the chances of all tokens still sum to 1.
        two = np.where(single_N > 0, seen[1] / np.maximum(single_N, 1), one)
        three = np.where(double_N > 0, seen[2] / np.maximum(double_N, 1), two)
        chance_NC = np.stack([np.full(len(one), 1 / self.vocab), one, two, three], axis=1)
        return chance_NC, _bucket(double_N) * 4 + _bucket(single_N) // 3


_BUCKETS = 10 * 4


def _bucket(count_N: np.ndarray) -> np.ndarray:
    """0 for none, then 1 + log2, up to 9."""
    return np.minimum(np.where(count_N > 0, 1 + np.log2(np.maximum(count_N, 1)), 0), 9).astype(int)


def _grams(texts: list[list[int]], vocab: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every token the numbers w, v w and u v w in base vocab + 1."""
    base = vocab + 1
    padded = [np.asarray([vocab, vocab, *text], np.int64) for text in texts]
    if not padded:
        raise ValueError("no texts; wanted at least one")
    third = np.concatenate([row[2:] for row in padded])
    second = np.concatenate([row[1:-1] for row in padded])
    first = np.concatenate([row[:-2] for row in padded])
    return third, second * base + third, (first * base + second) * base + third


def _look(table: tuple[np.ndarray, np.ndarray], gram_N: np.ndarray) -> np.ndarray:
    keys, counts = table
    place = np.minimum(np.searchsorted(keys, gram_N), len(keys) - 1)
    return np.where(keys[place] == gram_N, counts[place], 0)


def _context(table: tuple[np.ndarray, np.ndarray], base: int, context_N: np.ndarray) -> np.ndarray:
    """How often each context stands before any token."""
    keys, counts = table
    total = np.concatenate([[0], np.cumsum(counts)])
    return total[np.searchsorted(keys, (context_N + 1) * base)] - total[np.searchsorted(keys, context_N * base)]
