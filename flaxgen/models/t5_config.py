"""The sizes and historical choices of a T5, readable without importing jax."""

import dataclasses
import reprlib
from typing import ClassVar, Literal, get_args

from flaxgen.models.config import block_name

Activation = Literal["relu", "gated_gelu"]
Head = Literal["tied", "own"]
CHOICES = {"activation": Activation, "head": Head}
ENDLESS = 2**31 - 2


@dataclasses.dataclass(frozen=True)
class Config:
    """What makes one encoder-decoder different from another (Raffel et al. 2020; Xue et al. 2021 for mT5).

    head_width: of one head; heads * head_width may differ from `width`.
    decoder_layers: by default as many as `layers`, those of the encoder.
    activation: "relu" is T5 1.0; "gated_gelu" is T5 1.1 and mT5, gelu(x W_0) * (x W_1) with the tanh approximation (Shazeer 2020).
    head: "tied" is T5 1.0, logits by the token embedding of hidden / sqrt(width); "own" is T5 1.1 and mT5, a kernel of its own.
    buckets, distance: distances fall into so many buckets, and from `distance` on into the last.
    start: the token that stands before every answer.

    `dataclasses.replace` keeps what was filled in: say decoder_layers=None again where `layers` changes.
    """

    architecture: ClassVar[str] = "t5"
    positions: ClassVar[int] = ENDLESS  # distances end in the last bucket: no text is too long for the model
    application: ClassVar[str] = "lm"  # of the decoder

    vocab: int
    width: int
    layers: int
    heads: int
    head_width: int
    hidden: int
    activation: Activation
    head: Head
    decoder_layers: int | None = None
    buckets: int = 32
    distance: int = 128
    epsilon: float = 1e-6
    dropout: float = 0.1
    start: int = 0

    def __post_init__(self):
        if self.decoder_layers is None:
            object.__setattr__(self, "decoder_layers", self.layers)
        for name in ("vocab", "width", "layers", "heads", "head_width", "hidden", "decoder_layers", "buckets", "distance"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"config field {name!r} is {reprlib.repr(value)}; wanted a positive whole number")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"config field {name!r} is {reprlib.repr(getattr(self, name))}; wanted one of {', '.join(get_args(choices))}"
                )
        for name in ("epsilon", "dropout"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < 1:
                raise ValueError(f"config field {name!r} is {reprlib.repr(value)}; wanted a number from 0 up to 1")
        if self.buckets % 2 or not 4 <= self.buckets <= 256:
            raise ValueError(
                f"config field 'buckets' is {reprlib.repr(self.buckets)}; wanted an even number (both directions) from 4 to 256"
            )
        if not self.buckets // 2 < self.distance <= 2**16:
            raise ValueError(
                f"config field 'distance' is {reprlib.repr(self.distance)}; wanted more than half the {self.buckets} buckets, up to {2**16}"
            )
        if type(self.start) is not int or not 0 <= self.start < self.vocab:
            raise ValueError(f"config field 'start' is {reprlib.repr(self.start)}; wanted a token id from 0 to {self.vocab - 1}")

    @property
    def inner(self) -> int:
        """The width of all heads together."""
        return self.heads * self.head_width

    @property
    def stored_layers(self) -> int:
        """The most layers that encoder or decoder has."""
        return max(self.layers, self.decoder_layers)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Path below "params" -> shape of every parameter, in the order of the forward pass; kernels are (out, in)."""
        tree = {"embed/token/embedding": (self.vocab, self.width)}
        for side, layers in (("encoder", self.layers), ("decoder", self.decoder_layers)):
            tree[f"{side}/relative/embedding"] = (self.buckets, self.heads)
            for layer in range(layers):
                tree |= self._block(f"{side}/{block_name(layer)}", ("attend", "cross") if side == "decoder" else ("attend",))
            tree[f"{side}/norm/scale"] = (self.width,)
        return tree | ({"head/kernel": (self.vocab, self.width)} if self.head == "own" else {})

    def _block(self, block: str, attentions: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        inner, tree = self.inner, {}
        for number, name in enumerate(attentions):
            tree[f"{block}/norm_{number}/scale"] = (self.width,)
            tree |= {f"{block}/{name}/{part}/kernel": (inner, self.width) for part in "qkv"}
            tree[f"{block}/{name}/o/kernel"] = (self.width, inner)
        tree[f"{block}/norm_{len(attentions)}/scale"] = (self.width,)
        for part in ("gate", "up") if self.activation == "gated_gelu" else ("up",):
            tree[f"{block}/mlp/{part}/kernel"] = (self.hidden, self.width)
        return tree | {f"{block}/mlp/down/kernel": (self.width, self.hidden)}
