"""A flaxgen folder in int8 read as what its numbers stand for, in float32."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from convert.source import Source
from flaxgen import errors, tensors
from flaxgen.models import int8

STRIP = 2 << 20
SCALE = "_scale"


@dataclasses.dataclass(frozen=True)
class Widened(Source):
    """A source whose int8 tensors are multiplied by their scales as they are read; the scales are no variables of their own."""

    numbers: dict[str, tensors.Entry]
    scales: dict[str, tensors.Entry]

    def chunks(self, name: str) -> Iterator[np.ndarray]:
        if name not in self.numbers:
            yield from super().chunks(name)
            return
        number_FD, scale_F = tensors.read(self.numbers[name]), tensors.read(self.scales[name])
        step = max(STRIP // (4 * math.prod(number_FD.shape[1:])), 1)
        for start in range(0, len(number_FD), step):
            yield int8.decode(number_FD[start : start + step], scale_F[start : start + step]).reshape(-1)

    def read_into(self, name: str, flat: np.ndarray) -> None:
        if name not in self.numbers:
            super().read_into(name, flat)
            return
        done = 0
        for piece in self.chunks(name):
            flat[done : done + len(piece)] = piece
            done += len(piece)


def widened(source: Source) -> Source:
    """The source itself, or a Widened one where its config.json says int8."""
    if source.kind != "safetensors" or (source.json("config.json") or {}).get("weights") != "int8":
        return source
    kinds = source.variables
    numbers = {name: entry for name, entry in kinds.items() if entry.dtype == np.int8}
    scales = {name: kinds[name + SCALE] for name in numbers if name + SCALE in kinds}
    wrong = [f"tensor {name + SCALE!r} is missing" for name in numbers if name not in scales]
    for name, entry in numbers.items():
        if not entry.shape or math.prod(entry.shape) == 0:
            wrong.append(f"tensor {name!r} has shape {list(entry.shape)}")
        elif name in scales and (scales[name].dtype != np.float32 or scales[name].shape != entry.shape[:-1]):
            found = f"{scales[name].dtype} {list(scales[name].shape)}"
            wrong.append(f"tensor {name + SCALE!r} is {found}, wanted float32 {list(entry.shape[:-1])}")
    if wrong:
        raise errors.Mismatch(errors.listing(f"{source.path}: int8 tensors and their scales do not agree", wrong, "Save the model anew"))
    held = {name + SCALE for name in scales}
    variables = {
        name: dataclasses.replace(entry, dtype=np.dtype(np.float32)) if name in numbers else entry
        for name, entry in kinds.items()
        if name not in held
    }
    return Widened(source.kind, source.path, source.folder, variables, numbers, scales)
