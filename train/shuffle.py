"""Orders drawn from a key without a table: the place of any row of any epoch, computed alone."""

import functools

import numpy as np


def shuffle(place_B: np.ndarray, count: int, *key: int) -> np.ndarray:
    """What stands at places of an endless row of permutations of range(count), one an epoch, each drawn from (key, epoch)."""
    epoch_B = place_B // count
    found_B = np.empty(place_B.shape, np.int64)
    for epoch in np.unique(epoch_B):
        mine_B = epoch_B == epoch
        found_B[mine_B] = permute(place_B[mine_B] % count, count, *key, int(epoch))
    return found_B


def permute(place_B: np.ndarray, count: int, *key: int) -> np.ndarray:
    """A permutation of range(count) at the places asked for, without a table: a four-round Feistel network, walked until it is in range."""
    half = max(1, (int(count - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)

    def rounds(value_B):
        left_B, right_B = value_B >> np.uint64(half), value_B & mask
        for round_key in _round_keys(*key):
            mixed_B = (right_B + round_key) * np.uint64(0x9E3779B97F4A7C15)
            mixed_B = (mixed_B ^ (mixed_B >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left_B, right_B = right_B, left_B ^ ((mixed_B >> np.uint64(32)) & mask)
        return (left_B << np.uint64(half)) | right_B

    value_B = rounds(np.asarray(place_B, np.uint64))
    while (outside_B := value_B >= count).any():
        value_B = np.where(outside_B, rounds(value_B), value_B)
    return value_B.astype(np.int64)


@functools.lru_cache(256)
def _round_keys(*key: int) -> tuple[np.uint64, ...]:
    return tuple(np.random.default_rng(key).integers(1 << 63, size=4, dtype=np.uint64))
