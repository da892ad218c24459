"""The sizes of a small classifier of images, readable without importing jax."""

import dataclasses
from typing import ClassVar, Literal, get_args

from flaxgen.models.config import block_name

Change = Literal["same", "down"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Convolutions, a mean over the image, and a softmax: what is measured with where no Inception weights are at hand.

    size: height and width of an image in pixels. channels: of an image. classes: labels of the softmax.
    blocks: (filters, "same") or (filters, "down"), which halves height and width, of each convolution; the last gives the features.
    dropout: of the features.
    """

    architecture: ClassVar[str] = "classifier"

    size: int
    channels: int
    classes: int
    blocks: tuple[tuple[int, Change], ...]
    dropout: float = 0.0

    def __post_init__(self):
        for name, least in (("size", 1), ("channels", 1), ("classes", 2)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"config field {name!r} is {value!r}; wanted a whole number of at least {least}")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"config field 'dropout' is {self.dropout!r}; wanted a number from 0.0 up to 1.0")
        if not isinstance(self.blocks, list | tuple) or not self.blocks or not all(map(_is_block, self.blocks)):
            raise ValueError(f'config field \'blocks\' is {self.blocks!r}; wanted pairs such as (64, "same") or (64, "down"), at least one')
        object.__setattr__(self, "blocks", tuple((filters, change) for filters, change in self.blocks))
        downs = sum(change == "down" for _, change in self.blocks)
        if self.size < 2**downs:
            raise ValueError(f"config field 'blocks' halves {self.size} pixels {downs} times; wanted fewer that go down, or a larger size")

    @property
    def layers(self) -> int:
        return len(self.blocks)

    @property
    def features(self) -> int:
        return self.blocks[-1][0]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path below "params" -> shape of every parameter, in forward order; kernels are (height, width, in, out), the last (out, in)."""
        tree: dict[str, tuple[int, ...]] = {}
        before = self.channels
        for block, (filters, _) in zip(map(block_name, range(self.layers)), self.blocks, strict=True):
            tree |= {f"{block}/kernel": (3, 3, before, filters), f"{block}/bias": (filters,)}
            before = filters
        return tree | {"out/kernel": (self.classes, before), "out/bias": (self.classes,)}


def _is_block(block) -> bool:
    if not isinstance(block, list | tuple) or len(block) != 2:
        return False
    return type(block[0]) is int and block[0] > 0 and block[1] in get_args(Change)
