"""UTF-8 as a tree: which bytes spell the characters of a set, by Pike and Thompson's table of lengths (RFC 3629)."""

import functools

END = ()

# First and last character, continuation bytes, and what is added to the first byte. Surrogates have no spelling.
_LENGTHS = ((0x0, 0x7F, 0, 0x0), (0x80, 0x7FF, 1, 0xC0), (0x800, 0xD7FF, 2, 0xE0), (0xE000, 0xFFFF, 2, 0xE0), (0x10000, 0x10FFFF, 3, 0xF0))
_CONTINUES = 0x80


def tree(member_I2: tuple[tuple[int, int], ...]) -> tuple:
    """A node: pairs of (intervals of bytes, the node below), END below the last byte. Subtrees that are equal are equal tuples.

    tree(((0x41, 0x5A), (0xE9, 0xE9)))  ->  ((((0x41, 0x5A),), END), (((0xC3, 0xC3),), ((((0xA9, 0xA9),), END),)))
    """
    node: dict[tuple, tuple] = {}
    for low, high, more, mark in _LENGTHS:
        inside = tuple((max(a, low), min(b, high)) for a, b in member_I2 if a <= high and b >= low)
        for byte_I2, below in _tree(inside, more, mark):
            node[below] = node.get(below, ()) + byte_I2
    return tuple((byte_I2, below) for below, byte_I2 in node.items())


@functools.lru_cache(maxsize=1 << 14)
def _tree(member_I2: tuple[tuple[int, int], ...], more: int, mark: int) -> tuple:
    """The node of numbers of 6 * more bits below a first byte, which is the mark plus what lies above them."""
    width = 1 << 6 * more
    below: dict[int, list[tuple[int, int]]] = {}
    for low, high in member_I2:
        for top in range(low // width, high // width + 1):
            below.setdefault(top, []).append((max(low - top * width, 0), min(high - top * width, width - 1)))
    groups: dict[tuple, list[int]] = {}
    for top, inside in below.items():
        groups.setdefault(_tree(tuple(inside), more - 1, _CONTINUES) if more else END, []).append(mark + top)
    return tuple((_runs(byte_N), node) for node, byte_N in groups.items())


def _runs(byte_N: list[int]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for byte in byte_N:
        if runs and runs[-1][1] == byte - 1:
            runs[-1] = (runs[-1][0], byte)
        else:
            runs.append((byte, byte))
    return tuple(runs)
