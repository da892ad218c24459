"""The sizes of an energy model of images, readable without importing jax."""

import dataclasses
from typing import ClassVar, Literal, get_args

from flaxgen.models.config import block_name

Activation = Literal["leaky", "swish"]
Last = Literal["relu", "same"]
Norm = Literal["spectral", "none"]
Change = Literal["same", "down"]


@dataclasses.dataclass(frozen=True)
class Config:
    """A residual network from an image to one number (Du and Mordatch 2019, arXiv 1903.08689).

    size: height and width of an image in pixels. channels: of an image. stem: filters of the first convolution.
    blocks: (filters, "same") or (filters, "down"), which halves height and width, of each residual block.
    squeeze: side of the squares of pixels that are one pixel to the first convolution. classes: 0, or of labels for gains and biases.
    activation: "leaky" is max(x, x / 5). last: of the sum over pixels, "relu" or the activation once more.
    dropout: between the two convolutions of a block. norm: of the kernels in training, see flaxgen.nn.spectral; a saved model has it
    divided out.
    """

    architecture: ClassVar[str] = "energy"

    size: int
    channels: int
    stem: int
    blocks: tuple[tuple[int, Change], ...]
    squeeze: int = 1
    classes: int = 0
    activation: Activation = "leaky"
    last: Last = "relu"
    dropout: float = 0.0
    norm: Norm = "spectral"

    def __post_init__(self):
        for name, least in (("size", 1), ("channels", 1), ("stem", 1), ("squeeze", 1), ("classes", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"config field {name!r} is {value!r}; wanted a whole number of at least {least}")
        for name, choices in (("activation", Activation), ("last", Last), ("norm", Norm)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"config field {name!r} is {getattr(self, name)!r}; wanted one of {', '.join(get_args(choices))}")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"config field 'dropout' is {self.dropout!r}; wanted a number from 0.0 up to 1.0")
        if not isinstance(self.blocks, list | tuple) or not self.blocks or not all(map(_is_block, self.blocks)):
            raise ValueError(f'config field \'blocks\' is {self.blocks!r}; wanted pairs such as (64, "same") or (64, "down"), at least one')
        object.__setattr__(self, "blocks", tuple((filters, change) for filters, change in self.blocks))
        if self.size % self.squeeze:
            raise ValueError(f"config field 'squeeze' is {self.squeeze}; wanted a number that divides the size {self.size}")
        downs = sum(change == "down" for _, change in self.blocks)
        if self.size // self.squeeze < 2**downs:
            raise ValueError(
                f"config field 'blocks' halves {self.size // self.squeeze} pixels {downs} times; wanted fewer \"down\", or a larger size"
            )

    @property
    def layers(self) -> int:
        return len(self.blocks)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path below "params" -> shape of every parameter, in the order of the forward pass; kernels are (height, width, in, out)."""
        rows = (self.classes,) if self.classes else ()
        tree: dict[str, tuple[int, ...]] = {"stem/kernel": (3, 3, self.channels * self.squeeze**2, self.stem)}
        before = self.stem
        for block, (filters, _) in zip(map(block_name, range(self.layers)), self.blocks, strict=True):
            tree |= {f"{block}/bias_0": (*rows, before), f"{block}/conv_0/kernel": (3, 3, before, filters)}
            tree |= {f"{block}/bias_1": (*rows, filters), f"{block}/conv_1/kernel": (3, 3, filters, filters)}
            tree[f"{block}/gain"] = (*rows, filters)
            if self.classes:
                tree[f"{block}/shared_gain"] = (filters,)
            if filters != before:
                tree[f"{block}/bypass/kernel"] = (3, 3, before, filters)
            before = filters
        return tree | {"out/kernel": (1, before), "out/bias": (1,)}

    def normalised(self) -> dict[str, Literal["full", "lower"]]:
        """The kernels that spectral normalisation takes, and how (flaxgen.nn.spectral); none where the norm is "none"."""
        if self.norm == "none":
            return {}
        kernels = [path for path in self.shapes() if path.endswith("/kernel") and path != "out/kernel"]
        return {path: "lower" if path.endswith("conv_1/kernel") else "full" for path in kernels}


def _is_block(block) -> bool:
    if not isinstance(block, list | tuple) or len(block) != 2:
        return False
    return type(block[0]) is int and block[0] > 0 and block[1] in get_args(Change)


def published(name: Literal["32", "32-large", "32-wider"], *, classes: int = 0, filters: int | None = None, channels: int = 3) -> Config:
    """The networks of ebm_code_release for 32 by 32 images: ResNet32, ResNet32Large and ResNet32Wider.

    filters: of the first blocks, 128, 128 and 256 where none are given (Wider: 192 on CIFAR-10, 256 on ImageNet). Dropout is Large's alone:
    Wider has a place for it that train.py leaves switched off.
    """
    if name not in ("32", "32-large", "32-wider"):
        raise ValueError(f"network {name!r}: wanted one of 32, 32-large, 32-wider")
    f = filters or (256 if name == "32-wider" else 128)
    if name == "32":
        blocks = ((f, "down"), (f, "same"), (2 * f, "down"), (2 * f, "same"), (2 * f, "down"), (2 * f, "same"))
        return Config(32, channels, f, blocks, classes=classes)
    blocks = ((f, "down"), (f, "same"), (f, "same"), (2 * f, "down"), (2 * f, "same"), (2 * f, "same"))
    blocks += ((4 * f, "down"), (4 * f, "same"), (4 * f, "same"))
    if name == "32-wider":
        return Config(32, channels, 128, blocks, classes=classes)
    return Config(32, channels, f, blocks, classes=classes, dropout=0.5, last="same" if classes else "relu")
