"""The recipes by name, what may be set in them, and strict `key=value` overrides."""

import dataclasses

POETRY_PROMPTS = "床前明月光 今天天气不错 春江花月夜 《登高》 七绝《秋思》"


def setting(default, what: str):
    return dataclasses.field(default=default, metadata={"what": what})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a run depends on; run.json keeps it, and a resumed run takes it from there."""

    data: str = setting("", 'text to learn from: .jsonl with a field "text", or text with empty lines between documents')
    dev: str = setting("", "the same, not learnt from, for the perplexity in the log; empty for none")
    vocab: int = setting(6200, "largest vocabulary, one of characters, made from data")
    length: int = setting(192, "tokens a row, and the model's positions")
    batch: int = setting(11, "rows an update")
    width: int = setting(256, "of the model")
    layers: int = setting(4, "of the model")
    heads: int = setting(4, "of each layer")
    dropout: float = setting(0.0, "share of activations dropped; under two epochs nothing is learnt by heart")
    loop: str = setting("unroll", 'or "scan", which compiles a model of any depth in the same time')
    steps: int = setting(1000, "updates in all; the learning rate's cosine ends there")
    rate: float = setting(2e-3, "highest learning rate")
    warmup: int = setting(300, "updates until it is reached")
    decay: float = setting(0.1, "weight decay of kernels and embeddings")
    clip: float = setting(1.0, "largest gradient norm")
    seed: int = setting(0, "of parameters, dropout and the order of rows")
    every: int = setting(250, "updates between checkpoints")
    look: int = setting(500, "updates between samples, and between measurements on dev")
    prompts: str = setting("", "what is continued at each look, separated by blanks")

    def __post_init__(self):
        for name in ("vocab", "length", "batch", "width", "layers", "heads", "steps", "every", "look"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: wanted a whole number from 1 up")
        for name, low, high in (
            ("rate", 0, 1e38),
            ("warmup", 0, 2**31 - 1),
            ("decay", 0, 10),
            ("clip", 1e-9, 1e38),
            ("seed", 0, 2**31 - 1),
        ):
            if not low <= getattr(self, name) <= high:  # NaN is not
                raise ValueError(f"{name}={getattr(self, name)}: wanted a number from {low} to {high}")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} heads={self.heads}: wanted heads that divide the width")
        if self.loop not in ("unroll", "scan"):
            raise ValueError(f"loop={self.loop}: wanted unroll or scan")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: wanted a number from 0 up to 1")


def poetry(size: str = "full") -> Settings:
    """Verse of Tang and Song, prepared by `python -m train prepare-poetry`: the bundled model."""
    full = Settings(data="runs/verse/train.jsonl", dev="runs/verse/dev.jsonl", steps=8000, prompts=POETRY_PROMPTS)
    if size == "full":
        return full
    # Reads a small file of this checkout and ends within a minute on one core.
    return dataclasses.replace(
        full, data="train/tiny.jsonl", dev="", length=64, batch=8, width=48, layers=2, steps=100, rate=3e-3, warmup=10, every=50, look=50
    )


RECIPES = {"poetry": poetry}
MOVABLE = ("steps", "every", "look")  # what a resumed run may change; new steps stretch or shrink the rest of the cosine


def override(settings: Settings, given: dict[str, str]) -> Settings:
    """The settings with each `key=value` in its place; an unknown key or a value of another type is a ValueError naming the choices."""
    fields = {field.name: field.type for field in dataclasses.fields(Settings)}
    values = {}
    for key, word in given.items():
        if key not in fields:
            raise ValueError(f"unknown setting {key!r}; choose from {', '.join(fields)}")
        try:
            values[key] = fields[key](word)
        except ValueError:
            raise ValueError(f"{key}={word}: wanted {'a whole number' if fields[key] is int else 'a number'}") from None
    return dataclasses.replace(settings, **values)


def pairs(words: list[str]) -> dict[str, str]:
    """["a=1", "b=2"] as a dictionary; anything else is a ValueError."""
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not key=value; write for example steps=100")
    found = dict(word.split("=", 1) for word in words)
    if len(found) != len(words):
        raise ValueError(f"a setting stands twice in {' '.join(words)}; keep one of them")
    return found


def size(tiny: str) -> str:
    """The size that tiny=true or tiny=false asks for."""
    if tiny not in ("true", "false"):
        raise ValueError(f"tiny={tiny}: wanted true or false")
    return "tiny" if tiny == "true" else "full"


def table(settings: Settings) -> str:
    """One line a setting with its value and meaning, for --help."""
    shown = [(f"{field.name}={getattr(settings, field.name)}", field.metadata["what"]) for field in dataclasses.fields(settings)]
    return "\n".join(f"  {left:<30} {what}" for left, what in shown)
