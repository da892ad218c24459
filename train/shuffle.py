"""Orders drawn from a key without a table: what stands at any place of any epoch, computed alone."""

import functools

import numpy as np

ROUNDS = 4


def shuffle(place_B: np.ndarray, count: int, *key: int) -> np.ndarray:
    """What stands at places of an endless row of permutations of range(count), one an epoch, each drawn from (key, epoch).

    A permutation is a Feistel network over the next even number of bits, walked until it is in range (Black and Rogaway 2002).
    """
    epoch_B, offset_B = np.divmod(place_B, count)
    epochs, which_B = np.unique(epoch_B, return_inverse=True)
    key_4B = np.stack([_round_keys(*key, int(epoch)) for epoch in epochs], axis=1)[:, which_B]
    half = np.uint64(max(1, (int(count - 1).bit_length() + 1) // 2))
    found_B = _rounds(offset_B.astype(np.uint64), key_4B, half)
    outside = np.flatnonzero(found_B >= count)
    while len(outside):
        found_B[outside] = _rounds(found_B[outside], key_4B[:, outside], half)
        outside = outside[found_B[outside] >= count]
    return found_B.astype(np.int64)


def _rounds(value_B: np.ndarray, key_4B: np.ndarray, half: np.uint64) -> np.ndarray:
    """A permutation of all numbers of 2 * half bits. key_4B: one key a round."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left_B, right_B = value_B >> half, value_B & mask
    for key_B in key_4B:
        mixed_B = (right_B + key_B) * np.uint64(0x9E3779B97F4A7C15)
        mixed_B = (mixed_B ^ (mixed_B >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        left_B, right_B = right_B, left_B ^ ((mixed_B >> np.uint64(32)) & mask)
    return (left_B << half) | right_B


@functools.lru_cache(1024)
def _round_keys(*key: int) -> np.ndarray:
    return np.random.default_rng(key).integers(1 << 63, size=ROUNDS, dtype=np.uint64)
