"""One tensor from SOURCE's layout through ours to TARGET's, in flat pieces of bounded size; buffers are reused.

Fresh memory costs more than the arithmetic here: touching new pages is slower than transposing into old ones.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from convert.formats.table import Layout
from convert.source import Source
from flaxgen import errors
from flaxgen.models import int8

STRIP = 2 << 20
KEPT = 8
BLOCK = 16  # rows copied at a time when turning: 64 bytes of float32, a cache line (measured: 3.1 GB/s, against 0.5 for a plain .T)


@dataclasses.dataclass(frozen=True)
class Part:
    """One of our tensors, rows `start` to `start + shape[0]` of what a foreign variable holds in our layout."""

    path: str
    name: str
    layout: Layout
    shape: tuple[int, ...]
    start: int
    whole: bool


@dataclasses.dataclass(frozen=True)
class Output:
    """One tensor of TARGET: our parts joined along their first axis, then laid out."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    layout: Layout
    parts: tuple[Part, ...]
    role: Literal["whole", "numbers", "scales"] = "whole"  # of int8, `numbers` and then `scales`

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def coded(output: Output) -> list[Output]:
    """The two outputs that hold this one in int8."""
    numbers = dataclasses.replace(output, dtype=np.dtype(np.int8), role="numbers")
    scales = dataclasses.replace(output, name=f"{output.name}_scale", dtype=np.dtype(np.float32), shape=output.shape[:-1], role="scales")
    return [numbers, scales]


Room = Callable[[np.dtype, int], np.ndarray]  # where a piece is put: one of the given buffers, or one that stays inside


class Press:
    """Turns parts of a source into pieces of outputs; holds one source variable, and the last few pieces that it gave."""

    def __init__(self, source: Source):
        self.source = source
        self._buffers: dict[str, np.ndarray] = {}
        self._held: str | None = None
        self._given = 0
        self._scales: list[np.ndarray] = []

    def pieces(self, output: Output) -> Iterator[np.ndarray]:
        """The output's elements in flat pieces of its dtype, in C order. A piece is overwritten when KEPT more were given."""
        if output.role == "numbers":
            yield from self._numbers(output)
            return
        if output.role == "scales":
            yield np.concatenate(self._scales)
            return
        if output.layout == "same":
            for part in output.parts:
                yield from self._rounded(part, output.dtype, self._next)
            return
        inside = math.prod(output.parts[0].shape[1:])
        joined, done = self._buffer("joined", output.dtype, math.prod(output.shape)), 0
        for part in output.parts:
            for piece in self._rounded(part, output.dtype, self._scratch):
                joined[done : done + len(piece)] = piece
                done += len(piece)
        yield from self._strips(joined.reshape(-1, inside), 0, inside, self._next)

    def _numbers(self, output: Output) -> Iterator[np.ndarray]:
        """A flaxgen tensor in int8, some rows at a time; their scales are kept for the output that comes next."""
        (part,) = output.parts
        whole, done = self._buffer("joined", np.dtype(np.float32), math.prod(output.shape)), 0
        for piece in self._rounded(part, whole.dtype, self._scratch):
            whole[done : done + len(piece)] = piece
            done += len(piece)
        rows, self._scales = whole.reshape(len(whole) // output.shape[-1], output.shape[-1]), []
        step = max(STRIP // (4 * output.shape[-1]), 1)
        for start in range(0, len(rows), step):
            try:
                number_FD, scale_F = int8.code(rows[start : start + step])
            except ValueError as error:
                raise errors.Mismatch(f"tensor {part.name!r}: {error}; or choose another --dtype") from error
            self._scales.append(scale_F)
            given = self._next(output.dtype, number_FD.size)
            given[...] = number_FD.reshape(-1)
            yield given

    def _rounded(self, part: Part, dtype: np.dtype, room: Room) -> Iterator[np.ndarray]:
        """A part in our C order, rounded to the nearest even of dtype; a number that would become infinite is refused."""
        stored = self.source.variables[part.name].dtype
        for piece in self._ours(part, room if stored == dtype else self._strip):
            if stored == dtype and part.layout != "same":
                yield piece  # a strip, which lies in `room` already
                continue
            given = room(dtype, len(piece))
            with np.errstate(over="ignore", invalid="ignore"):
                given[...] = piece
            if dtype.itemsize <= stored.itemsize and stored != dtype and _overflows(piece, given):
                raise errors.Mismatch(f"tensor {part.name!r} holds numbers too large for {dtype}; choose another --dtype")
            yield given

    def _ours(self, part: Part, room: Room) -> Iterator[np.ndarray]:
        """A part's elements in our C order, still in the source's dtype."""
        if part.layout == "same" and part.whole:
            yield from self.source.chunks(part.name)
            return
        flat = self._load(part.name)
        if part.layout == "same":
            inside = math.prod(part.shape[1:])
            yield flat[part.start * inside : (part.start + part.shape[0]) * inside]
            return
        yield from self._strips(flat.reshape(part.shape[1], -1), part.start, part.start + part.shape[0], room)

    def _strips(self, matrix: np.ndarray, start: int, stop: int, room: Room) -> Iterator[np.ndarray]:
        """Columns `start` to `stop` of a matrix as rows, some at a time."""
        rows = len(matrix)
        step = max(STRIP // (rows * matrix.dtype.itemsize) // BLOCK, 1) * BLOCK
        for first in range(start, stop, step):
            count = min(step, stop - first)
            strip = room(matrix.dtype, count * rows)
            out = strip.reshape(count, rows)
            for row in range(0, rows, BLOCK):
                out[:, row : row + BLOCK] = matrix[row : row + BLOCK, first : first + count].T
            yield strip

    def _load(self, name: str) -> np.ndarray:
        """A whole source variable, flat; the last one is kept, as three of our tensors may come from one."""
        variable = self.source.variables[name]
        flat = self._buffer("source", variable.dtype, math.prod(variable.shape))
        if self._held != name:
            self._held = None
            self.source.read_into(name, flat)
            self._held = name
        return flat

    def _next(self, dtype: np.dtype, count: int) -> np.ndarray:
        self._given = (self._given + 1) % KEPT
        return self._buffer(f"given {self._given}", dtype, count)

    def _strip(self, dtype: np.dtype, count: int) -> np.ndarray:
        return self._buffer("strip", dtype, count)

    def _scratch(self, dtype: np.dtype, count: int) -> np.ndarray:
        return self._buffer("scratch", dtype, count)

    def _buffer(self, key: str, dtype: np.dtype, count: int) -> np.ndarray:
        size = count * dtype.itemsize
        if key not in self._buffers or len(self._buffers[key]) < size:
            self._buffers[key] = np.empty(size, np.uint8)
        return self._buffers[key][:size].view(dtype)


def _overflows(piece: np.ndarray, rounded: np.ndarray) -> bool:
    return bool(np.isinf(rounded).any()) and bool((np.isinf(rounded) & np.isfinite(piece)).any())


def peak(source: Source, outputs: list[Output], chunk: int) -> int:
    """An upper bound of the buffers' bytes: the largest variable held whole, the largest joined matrix, the strips."""
    parts = [part for output in outputs for part in output.parts if not (part.layout == "same" and part.whole)]
    held = max((source.variables[part.name].size for part in parts), default=0)
    joined = max((output.size for output in outputs if output.layout != "same"), default=0)
    joined = max([joined, *(4 * output.size for output in outputs if output.role == "numbers")])
    return held + joined + (KEPT + 2) * max(STRIP, chunk) + chunk
