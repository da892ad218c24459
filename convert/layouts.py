"""One tensor from SOURCE's layout through ours to TARGET's, in flat pieces of bounded size; buffers are reused.

Fresh memory costs more than the arithmetic here: touching new pages is slower than transposing into old ones.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from convert.formats.table import Layout
from convert.source import Source
from flaxgen import errors

STRIP = 2 << 20
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

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Press:
    """Turns parts of a source into pieces of outputs; holds one source variable and one strip at a time."""

    def __init__(self, source: Source):
        self.source = source
        self._buffers: dict[str, np.ndarray] = {}
        self._held: str | None = None

    def pieces(self, output: Output) -> Iterator[np.ndarray]:
        """The output's elements in flat pieces of its dtype, in C order. Each piece is overwritten by the next."""
        if output.layout == "same":
            for part in output.parts:
                yield from self._cast(self._ours(part), output, part)
            return
        inside = math.prod(output.parts[0].shape[1:])
        joined = self._buffer("joined", output.dtype, sum(part.shape[0] for part in output.parts) * inside)
        done = 0
        for part in output.parts:
            for piece in self._cast(self._ours(part), output, part):
                joined[done : done + len(piece)] = piece
                done += len(piece)
        yield from self._strips(joined.reshape(-1, inside), 0, inside, "turned")

    def _ours(self, part: Part) -> Iterator[np.ndarray]:
        """A part's elements in our C order, still in the source's dtype."""
        if part.layout == "same" and part.whole:
            yield from self.source.chunks(part.name)
            return
        flat = self._load(part.name)
        if part.layout == "same":
            inside = math.prod(part.shape[1:])
            yield flat[part.start * inside : (part.start + part.shape[0]) * inside]
            return
        matrix = flat.reshape(part.shape[1], -1)
        yield from self._strips(matrix, part.start, part.start + part.shape[0], "ours")

    def _strips(self, matrix: np.ndarray, start: int, stop: int, key: str) -> Iterator[np.ndarray]:
        """Columns `start` to `stop` of a matrix as rows, some at a time."""
        rows = len(matrix)
        step = max(STRIP // (rows * matrix.dtype.itemsize) // BLOCK, 1) * BLOCK
        strip = self._buffer(key, matrix.dtype, min(step, stop - start) * rows)
        for first in range(start, stop, step):
            count = min(step, stop - first)
            out = strip[: count * rows].reshape(count, rows)
            for row in range(0, rows, BLOCK):
                out[:, row : row + BLOCK] = matrix[row : row + BLOCK, first : first + count].T
            yield out.reshape(-1)

    def _load(self, name: str) -> np.ndarray:
        """A whole source variable, flat; the last one is kept, as three of our tensors may come from one."""
        variable = self.source.variables[name]
        flat = self._buffer("source", variable.dtype, math.prod(variable.shape))
        if self._held != name:
            self._held = None
            done = 0
            for piece in self.source.chunks(name):
                flat[done : done + len(piece)] = piece
                done += len(piece)
            self._held = name
        return flat

    def _cast(self, pieces: Iterator[np.ndarray], output: Output, part: Part) -> Iterator[np.ndarray]:
        """Pieces rounded to the nearest even of the output's dtype; a number that would become infinite is refused."""
        for piece in pieces:
            if piece.dtype == output.dtype:
                yield piece
                continue
            rounded = self._buffer("cast", output.dtype, len(piece))
            with np.errstate(over="ignore", invalid="ignore"):
                rounded[...] = piece
            if output.dtype.itemsize <= piece.dtype.itemsize and _overflows(piece, rounded):
                raise errors.Mismatch(f"tensor {part.name!r} holds numbers too large for {output.dtype}; choose another --dtype")
            yield rounded

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
    return held + joined + 2 * STRIP + 2 * chunk
