"""The sizes of an energy of points, readable without importing jax."""

import dataclasses
import math
from typing import ClassVar

from flaxgen.models.config import block_name


@dataclasses.dataclass(frozen=True)
class Config:
    """A perceptron from a point to one number, and a bowl around it that keeps points from running away.

    width: numbers of a point. hidden: units of each hidden layer. bowl: the standard deviation of the Gaussian whose energy
    |x|² / (2 bowl²) is added, so that exp(-U) can be integrated; None for none.
    """

    architecture: ClassVar[str] = "field"

    width: int = 2
    hidden: tuple[int, ...] = (64, 64)
    bowl: float | None = None

    def __post_init__(self):
        if type(self.width) is not int or self.width < 1:
            raise ValueError(f"config field 'width' is {self.width!r}; wanted a positive whole number")
        if not isinstance(self.hidden, list | tuple) or not all(type(units) is int and units > 0 for units in self.hidden):
            raise ValueError(f"config field 'hidden' is {self.hidden!r}; wanted the units of each hidden layer, such as (64, 64)")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if self.bowl is not None and (type(self.bowl) not in (int, float) or not 0 < self.bowl < math.inf):
            raise ValueError(f"config field 'bowl' is {self.bowl!r}; wanted a positive number, or None")

    @property
    def layers(self) -> int:
        return len(self.hidden)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path below "params" -> shape of every parameter, in the order of the forward pass; kernels are (out, in)."""
        tree: dict[str, tuple[int, ...]] = {}
        before = self.width
        for block, units in zip(map(block_name, range(self.layers)), self.hidden, strict=True):
            tree |= {f"{block}/kernel": (units, before), f"{block}/bias": (units,)}
            before = units
        return tree | {"out/kernel": (1, before)}
