"""The sizes and historical choices of a Transformer, readable without importing jax."""

import dataclasses
import reprlib
from typing import Any, ClassVar, Literal, get_args

Wiring = Literal["pre", "between", "post"]
Activation = Literal["gelu", "gelu_tanh", "relu"]
EmbeddingNorm = Literal["layer", "none"]
Position = Literal["learned", "rotary", "relative"]
Norm = Literal["layer", "bare"]
Sharing = Literal["none", "all"]
Output = Literal["tied", "mlm", "pool", "nsp", "discriminator"]
Application = Literal["lm", "encoder", "unilm"]
CHOICES = {
    "wiring": Wiring,
    "activation": Activation,
    "embedding_norm": EmbeddingNorm,
    "position": Position,
    "norm": Norm,
    "sharing": Sharing,
    "application": Application,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What makes one Transformer different from another.

    wiring: where the layer norms stand. "pre" is GPT-2: h = x + A(n0(x)); x = h + F(n1(h)), and a final norm.
        "between" is GPT2_ML: h = x + A(x); x = n1(h + F(n0(h))), and no final norm. "post" is BERT: h = n0(x + A(x)); x = n1(h + F(h)).
    activation: "gelu" is the erf form, "gelu_tanh" the tanh approximation of OpenAI's GPT-2.
    embedding_norm: by default a norm after the embedding in "between" and "post", none in "pre"; GPT is "post" without.
    segments: rows of the segment embedding; 0 for none.
    position: "learned" is a table of `positions` rows added to the tokens. "rotary" turns queries and keys (RoFormer, Su et al. 2021), and
        "relative" adds sines of distances up to 64 to keys and values (NEZHA, Wei et al. 2019): no table, `positions` is then what the
        model was trained with.
    embedding: width of the token embedding where a dense map follows it (ALBERT, ELECTRA); by default the model's width.
    norm: "bare" is RoFormer v2: x / rms(x) without parameters, and no dense layer has a bias.
    sharing: "all" is ALBERT: every layer has the parameters of the first.
    outputs: what can be read off it. "tied": logits by the token embedding alone; "mlm": dense, activation, norm, token embedding, bias;
        "pool": tanh of a dense layer on the first token; "nsp": two logits of it; "discriminator": one logit a token (ELECTRA).
    application: who sees whom by default. "lm": a token all before it. "encoder": all see all. "unilm": by segments, a token all of its own
        and earlier segments' beginnings (Dong et al. 2019); rank = 1 + cumulative sum of the segment numbers.
    """

    architecture: ClassVar[str] = "transformer"

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
    embedding_norm: EmbeddingNorm | None = None
    segments: int = 0
    position: Position = "learned"
    embedding: int | None = None
    norm: Norm = "layer"
    sharing: Sharing = "none"
    outputs: tuple[Output, ...] = ("tied",)
    application: Application = "lm"

    def __post_init__(self):
        if self.embedding_norm is None:
            object.__setattr__(self, "embedding_norm", "none" if self.wiring == "pre" else "layer")
        if self.embedding is None:
            object.__setattr__(self, "embedding", self.width)
        object.__setattr__(self, "outputs", tuple(self.outputs) if isinstance(self.outputs, list) else self.outputs)
        for name in ("vocab", "positions", "width", "layers", "heads", "hidden", "embedding"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"config field {name!r} is {reprlib.repr(value)}; wanted a positive whole number")
        if type(self.segments) is not int or self.segments < 0:
            raise ValueError(f"config field 'segments' is {reprlib.repr(self.segments)}; wanted a whole number from 0 up")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads; choose heads that divide the width")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"config field {name!r} is {reprlib.repr(getattr(self, name))}; wanted one of {', '.join(get_args(choices))}"
                )
        for name, low, high in (("epsilon", 0.0, 1.0), ("dropout", 0.0, 1.0), ("init_range", 0.0, 10.0)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not low <= value < high:
                raise ValueError(f"config field {name!r} is {reprlib.repr(value)}; wanted a number from {low} up to {high}")
        self._check_outputs()
        if self.position != "learned" and self.head_width % 2:
            raise ValueError(f"heads of width {self.head_width} with {self.position!r} positions; wanted an even width: half is sines")

    def _check_outputs(self):
        known = get_args(Output)
        if not isinstance(self.outputs, tuple) or self.outputs != tuple(name for name in known if name in self.outputs):
            raise ValueError(f"config field 'outputs' is {reprlib.repr(self.outputs)}; wanted some of {', '.join(known)}, in this order")
        if "tied" in self.outputs and "mlm" in self.outputs:
            raise ValueError("config field 'outputs' has both 'tied' and 'mlm'; a model has one way to its logits")
        if "nsp" in self.outputs and "pool" not in self.outputs:
            raise ValueError("config field 'outputs' has 'nsp' without 'pool', which it reads")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def speaks(self) -> bool:
        """Whether it has logits over the vocabulary."""
        return "tied" in self.outputs or "mlm" in self.outputs

    @property
    def stored_layers(self) -> int:
        return 1 if self.sharing == "all" else self.layers

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes(self)


def differences(found: Any, wanted: Any) -> str:
    """The fields in which two configs differ, and both values."""
    names = dict.fromkeys(field.name for config in (found, wanted) for field in dataclasses.fields(config))
    pairs = [(name, getattr(found, name, None), getattr(wanted, name, None)) for name in ("architecture", *names)]
    return ", ".join(f"{name} is {reprlib.repr(one)}, wanted {reprlib.repr(other)}" for name, one, other in pairs if one != other)


def block_name(layer: int) -> str:
    return f"block_{layer:02d}"


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Path below "params" -> shape of every parameter, in the order of the forward pass; kernels are (out, in)."""
    width, hidden, embedding = config.width, config.hidden, config.embedding
    bare = config.norm == "bare"

    def norm(path, size=width):
        return {} if bare else {f"{path}/scale": (size,), f"{path}/bias": (size,)}

    def dense(path, out, inside):
        return {f"{path}/kernel": (out, inside)} | ({} if bare else {f"{path}/bias": (out,)})

    tree = {"embed/token/embedding": (config.vocab, embedding)}
    if config.position == "learned":
        tree["embed/position/embedding"] = (config.positions, embedding)
    if config.segments:
        tree["embed/segment/embedding"] = (config.segments, embedding)
    if config.embedding_norm == "layer":
        tree |= norm("embed/norm", embedding)
    if embedding != width:
        tree |= dense("embed/map", width, embedding)
    for layer in range(config.stored_layers):
        block = block_name(layer)
        for part in "qkvo":
            tree |= dense(f"{block}/attend/{part}", width, width)
        tree |= norm(f"{block}/norm_0") | norm(f"{block}/norm_1")
        tree |= dense(f"{block}/mlp/up", hidden, width) | dense(f"{block}/mlp/down", width, hidden)
    if config.wiring == "pre":
        tree |= norm("norm")
    return tree | _heads(config, norm, dense)


def _heads(config: Config, norm, dense) -> dict[str, tuple[int, ...]]:
    width, tree = config.width, {}
    if "tied" in config.outputs and config.embedding != width:
        tree["map_out/kernel"] = (config.embedding, width)
    if "mlm" in config.outputs:
        tree |= dense("mlm/dense", config.embedding, width) | norm("mlm/norm", config.embedding) | {"mlm/bias": (config.vocab,)}
    if "pool" in config.outputs:
        tree |= dense("pool/dense", width, width)
    if "nsp" in config.outputs:
        tree |= dense("nsp/dense", 2, width)
    if "discriminator" in config.outputs:
        tree |= dense("discriminator/dense", width, width) | dense("discriminator/out", 1, width)
    return tree
