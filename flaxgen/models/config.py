"""The sizes and historical choices of a Transformer, readable without importing jax."""

import dataclasses
from typing import Literal, get_args

Wiring = Literal["pre", "between"]
Activation = Literal["gelu", "gelu_tanh"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What makes one Transformer different from another.

    wiring: where the layer norms stand. "pre" is GPT-2: h = x + A(n0(x)); x = h + F(n1(h)), and a final norm.
        "between" is GPT2_ML: the embedding is normed; h = x + A(x); x = n1(h + F(n0(h))), and no final norm.
    activation: "gelu" is the erf form, "gelu_tanh" the tanh approximation of OpenAI's GPT-2.
    """

    vocab: int
    positions: int
    width: int
    layers: int
    heads: int
    hidden: int
    wiring: Wiring
    activation: Activation
    epsilon: float = 1e-5
    dropout: float = 0.1
    init_range: float = 0.02

    def __post_init__(self):
        for name in ("vocab", "positions", "width", "layers", "heads", "hidden"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"config field {name!r} is {value!r}; wanted a positive whole number")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads; choose heads that divide the width")
        for name, choices in (("wiring", get_args(Wiring)), ("activation", get_args(Activation))):
            if getattr(self, name) not in choices:
                raise ValueError(f"config field {name!r} is {getattr(self, name)!r}; wanted one of {', '.join(choices)}")
        for name, low, high in (("epsilon", 0.0, 1.0), ("dropout", 0.0, 1.0), ("init_range", 0.0, 10.0)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not low <= value < high:
                raise ValueError(f"config field {name!r} is {value!r}; wanted a number from {low} up to {high}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def block_name(layer: int) -> str:
    return f"block_{layer:02d}"


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Path below "params" -> shape of every parameter, in the order of the forward pass; kernels are (out, in)."""
    width, hidden = config.width, config.hidden

    def norm(path):
        return {f"{path}/scale": (width,), f"{path}/bias": (width,)}

    def dense(path, out, inside):
        return {f"{path}/kernel": (out, inside), f"{path}/bias": (out,)}

    tree = {"embed/token/embedding": (config.vocab, width), "embed/position/embedding": (config.positions, width)}
    if config.wiring == "between":
        tree |= norm("embed/norm")
    for layer in range(config.layers):
        block = block_name(layer)
        for part in "qkvo":
            tree |= dense(f"{block}/attend/{part}", width, width)
        tree |= norm(f"{block}/norm_0") | norm(f"{block}/norm_1")
        tree |= dense(f"{block}/mlp/up", hidden, width) | dense(f"{block}/mlp/down", width, hidden)
    if config.wiring == "pre":
        tree |= norm("norm")
    return tree
