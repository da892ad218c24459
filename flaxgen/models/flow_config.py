"""The sizes of a flow on images, readable without importing jax."""

import dataclasses
from typing import ClassVar, Literal, get_args

from flaxgen.models.config import block_name

Coupling = Literal["exponential", "low-rank", "affine", "additive"]
Mixing = Literal["exponential", "plu", "standard"]
FULL = 24  # channels up to which the matrix of an exponential coupling is a full one, as published


@dataclasses.dataclass(frozen=True)
class Config:
    """Levels of flow steps; every level halves the image's sides, and all but the last hand half of their channels to the code.

    size: height and width of the image, divisible by 2 once for every level.
    flows: steps a level. A step is a scale and shift of every activation, a mixing of the channels, and a coupling.
    coupling: what a step does to half of its channels, given the other half (Xiao & Liu 2020): "exponential" multiplies each pixel's c
        channels by exp(S), S a c x c matrix up to c = 24 and a product of rank `rank` beyond; "low-rank" takes the product always;
        "affine" multiplies each channel by a number; "additive" only shifts.
    mixing: the 1 x 1 convolution is exp(W), a product of permutation, lower and upper triangle, or any matrix.
    hidden, blocks: width and residual blocks of the network that reads the other half.
    bits: an image has 2^bits levels a channel; of 8-bit images the lower bits are dropped.
    least: when scales are fitted to the first images, an activation of a smaller deviation counts as having this one. It keeps pixels
        that are constant in them, such as a black margin, from a scale of hundreds; the published 1e-8 does not.
    """

    architecture: ClassVar[str] = "flow"

    size: int
    channels: int = 3
    flows: tuple[int, ...] = (8, 4, 2)
    hidden: int = 128
    blocks: int = 8
    coupling: Coupling = "exponential"
    mixing: Mixing = "exponential"
    rank: int = 3
    bits: int = 8
    least: float = 1e-8

    def __post_init__(self):
        for name, choice in (("coupling", Coupling), ("mixing", Mixing)):
            if getattr(self, name) not in get_args(choice):
                raise ValueError(f"config field {name!r} is {getattr(self, name)!r}; wanted one of {', '.join(get_args(choice))}")
        for name in ("size", "channels", "hidden", "rank"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"config field {name!r} is {getattr(self, name)!r}; wanted a positive whole number")
        if type(self.blocks) is not int or self.blocks < 0:
            raise ValueError(f"config field 'blocks' is {self.blocks!r}; wanted a whole number of at least 0")
        if type(self.least) not in (int, float) or not 0 < self.least < float("inf"):
            raise ValueError(f"config field 'least' is {self.least!r}; wanted a finite number above 0")
        if type(self.bits) is not int or not 1 <= self.bits <= 8:
            raise ValueError(f"config field 'bits' is {self.bits!r}; wanted a whole number from 1 to 8")
        if not isinstance(self.flows, list | tuple) or not self.flows or any(type(count) is not int or count < 1 for count in self.flows):
            raise ValueError(f"config field 'flows' is {self.flows!r}; wanted the number of steps of every level, such as (8, 4, 2)")
        object.__setattr__(self, "flows", tuple(self.flows))
        if self.size % 2 ** len(self.flows):
            raise ValueError(
                f"config field 'size' is {self.size}; wanted a multiple of {2 ** len(self.flows)}, as each of the {len(self.flows)} levels "
                "halves it. Take fewer levels, or pad the images"
            )

    @property
    def layers(self) -> int:
        """Flow steps of all levels."""
        return sum(self.flows)

    @property
    def dimensions(self) -> int:
        """Numbers of an image, and of its code."""
        return self.size * self.size * self.channels

    def levels(self) -> list[tuple[int, int]]:
        """(size, channels) of the images within every level."""
        sizes = [(self.size // 2, 4 * self.channels)]
        while len(sizes) < len(self.flows):
            size, channels = sizes[-1]
            sizes.append((size // 2, 2 * channels))
        return sizes

    def outputs(self, moved: int) -> int:
        """Numbers a pixel that a coupling wants to know to move `moved` channels."""
        return moved * {"exponential": moved + 1, "low-rank": 2 * self.rank + 1, "affine": 2, "additive": 1}[self.kind(moved)]

    def kind(self, moved: int) -> Coupling:
        """What a coupling of `moved` channels is."""
        return "low-rank" if self.coupling == "exponential" and moved > FULL else self.coupling

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path below "params" -> shape of every parameter, in the order of the forward pass; kernels of nets are (Y, X, in, out)."""
        tree = {}
        places = [place for place, count in zip(self.levels(), self.flows, strict=True) for _ in range(count)]
        for step, (size, channels) in enumerate(places):
            tree |= {f"{block_name(step)}/{path}": shape for path, shape in self._step(size, channels).items()}
        return tree

    def _step(self, size: int, channels: int) -> dict[str, tuple[int, ...]]:
        moved, hidden = channels // 2, self.hidden
        tree = {f"normalise/{name}": (size, size, channels) for name in ("scale", "shift")} | {"mix/kernel": (channels, channels)}
        if self.mixing == "plu":
            tree["mix/order"] = (channels,)
        convs = [("enter", 3, channels - moved)]
        for block in range(self.blocks):
            convs += [(f"{block_name(block)}/{name}", taps, hidden) for name, taps in (("first", 3), ("second", 1), ("third", 3))]
        for name, taps, width in convs:
            tree |= {f"couple/net/{name}/kernel": (taps, taps, width, hidden)}
            tree |= {f"couple/net/{name}/{each}": (hidden,) for each in ("scale", "shift")}
        tree |= {"couple/net/kernel": (3, 3, hidden, self.outputs(moved)), "couple/net/bias": (self.outputs(moved),)}
        return tree | ({} if self.coupling == "additive" else {f"couple/{name}": () for name in ("scale", "shift", "rescale", "reshift")})


PUBLISHED = {
    "cifar10": Config(32),
    "imagenet32": Config(32),
    "imagenet64": Config(64, blocks=10),
    "cifar10-affine": Config(32, hidden=132, coupling="affine"),
}
