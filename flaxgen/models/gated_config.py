"""The sizes of a tagger of texts whose two sides have equal length, readable without importing jax."""

import dataclasses
from typing import ClassVar, Literal, get_args

from flaxgen.models.config import block_name

Kind = Literal["gated", "bilstm"]


@dataclasses.dataclass(frozen=True)
class Config:
    """A stack of layers between an embedding and one softmax a place.

    vocab: rows of embedding and softmax, id 0 (unknown) among them.
    kind: "gated" is Su's couplet writer (kexue.fm 6270): x sigmoid(g) + h sigmoid(-g), [g, h] a convolution of x over `taps` places.
        "bilstm" is its baseline, an LSTM of `units` in each direction and a dense layer back to the width: two of 128 units take as many
        numbers as six convolutions of three taps, to 0.13 %.
    dropout: after the embedding.
    """

    architecture: ClassVar[str] = "gated"

    vocab: int
    kind: Kind = "gated"
    width: int = 128
    layers: int | None = None
    taps: int | None = None
    units: int | None = None
    dropout: float = 0.25

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise ValueError(f"config field 'kind' is {self.kind!r}; wanted one of {', '.join(get_args(Kind))}")
        ours = {"layers": 6, "taps": 3} if self.kind == "gated" else {"layers": 2, "units": 128}
        for name in ("layers", "taps", "units"):
            if getattr(self, name) is None and name in ours:
                object.__setattr__(self, name, ours[name])
            elif getattr(self, name) is not None and name not in ours:
                raise ValueError(f"config field {name!r} is {getattr(self, name)!r}, but {self.kind!r} has none; leave it out")
        for name in ("vocab", "width", *ours):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"config field {name!r} is {value!r}; wanted a positive whole number")
        if self.kind == "gated" and self.taps % 2 == 0:
            raise ValueError(f"config field 'taps' is {self.taps}; wanted an odd number, as many places to the left as to the right")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"config field 'dropout' is {self.dropout!r}; wanted a number from 0.0 up to 1.0")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path below "params" -> shape of every parameter, in the order of the forward pass; kernels are (out, in), or (taps, out, in)."""
        width, tree = self.width, {"embed/token/embedding": (self.vocab, self.width)}
        for block in map(block_name, range(self.layers)):
            if self.kind == "gated":
                tree |= {f"{block}/conv/kernel": (self.taps, 2 * width, width), f"{block}/conv/bias": (2 * width,)}
                continue
            for way in ("forward", "backward"):
                tree |= {f"{block}/{way}/input/kernel": (4 * self.units, width), f"{block}/{way}/input/bias": (4 * self.units,)}
                tree[f"{block}/{way}/kernel"] = (4 * self.units, self.units)
            tree |= {f"{block}/map/kernel": (width, 2 * self.units), f"{block}/map/bias": (width,)}
        return tree | {"out/kernel": (self.vocab, width), "out/bias": (self.vocab,)}
