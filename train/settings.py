"""What may be set in a run, by the kind of its task, and strict `key=value` overrides."""

import dataclasses
import re
from collections.abc import Iterator
from typing import ClassVar

OPENINGS = "openings"
LARGEST = 2**31 - 1
OF_NEW_MODELS = ("text", "width", "layers", "heads", "wiring", "init_range", "position", "attention", "head")  # what start= brings along


def setting(default, what: str, *, choices: tuple[str, ...] = (), least: float = 0, most: float = 1e38, movable: bool = False):
    return dataclasses.field(default=default, metadata={"what": what, "choices": choices, "range": (least, most), "movable": movable})


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every run depends on, whatever it learns; run.json keeps it, and a resumed run takes it from there.

    kind: names the module of train.kinds that knows the rest.
    """

    kind: ClassVar[str]

    data: str = setting("", "what to learn from")
    dev: str = setting("", "the same, not learnt from, for the score in the log; empty for none")
    # learning
    batch: int = setting(11, "rows an update, over all devices and all parts", least=1)
    accumulate: int = setting(1, "parts of a batch, one after the other (gradient accumulation)", least=1, movable=True)
    steps: int = setting(1000, "updates in all; the schedule ends there", least=1, movable=True)
    optimizer: str = setting("adamw", "", choices=("adamw", "adam", "adam-0", "adamax", "adafactor", "adafactor-gpt2-ml", "lion", "sgd"))
    rate: float = setting(2e-3, "highest learning rate")
    schedule: str = setting("cosine", "how the rate falls", choices=("cosine", "linear", "wsd", "halves", "constant", "gpt2-ml"))
    warmup: int = setting(300, "updates until the rate is highest", most=2**31 - 1)
    cooldown: int = setting(0, "updates over which schedule=wsd falls, or after each of which halves halves", most=2**31 - 1)
    decay: float = setting(0.1, "weight decay of kernels and embeddings", most=10)
    clip: float = setting(1.0, "largest gradient norm; 0 for none")
    ema: float = setting(0.0, "decay of a moving average of the weights, which is what is saved as a model; 0 for none", most=0.9999999)
    layer_rate: float = setting(1.0, "rate of a layer as a share of the rate of the layer above", least=1e-6, most=1)
    freeze: str = setting("", "regex of parameters that stay as they are, as 'embed|block_0[0-3]'")
    adversarial: str = setting("none", "of the token embedding: fgm (fast gradient) or penalty", choices=("none", "fgm", "penalty"))
    epsilon: float = setting(1.0, "strength of the adversary")
    seed: int = setting(0, "of parameters, dropout and the order of rows", most=2**31 - 1)
    # computing
    dtype: str = setting("float32", "of activations; what is trained stays float32", choices=("float32", "bfloat16"))
    mesh: str = setting("", "devices by axis, as data=2,fsdp=4,tensor=1; empty: all on data (of a CPU one)", movable=True)
    parallel: str = setting("mesh", "jit over the mesh, or pmap: a whole copy a device", choices=("mesh", "pmap"), movable=True)
    # keeping and watching
    every: int = setting(250, "updates between checkpoints", least=1, movable=True)
    keep: int = setting(2, "checkpoints kept, and the best on dev besides", least=1, movable=True)
    damaged: str = setting("older", "a damaged checkpoint: go on from an older one, or refuse", choices=("older", "refuse"), movable=True)
    look: int = setting(500, "updates between samples, and between measurements on dev", least=1, movable=True)
    note: int = setting(10, "updates between lines of log.jsonl", least=1, movable=True)
    tensorboard: str = setting("no", "the same for TensorBoard (wants tensorboardX)", choices=("no", "yes"), movable=True)
    profile: str = setting("", "updates to trace for TensorBoard's profiler, as 100:105", movable=True)
    patience: int = setting(
        5, "updates without a finite gradient, one after the other, that send a run back to its checkpoint", least=1, movable=True
    )
    steep: float = setting(0.0, "gradient norm beyond which an update counts as without a finite one; 0: none", movable=True)
    skip: int = setting(0, "batches left out besides the bad ones after going back", most=2**31 - 1, movable=True)
    rollbacks: int = setting(3, "times a run may go back before it ends", movable=True)
    lower: float = setting(1.0, "what the rate is multiplied by whenever the run goes back; 1: it stays", least=1e-6, most=1)
    watchdog: int = setting(
        1800, "seconds without an update after which all stacks are printed and the run ends", least=1, most=10**6, movable=True
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, choices, (least, most) = getattr(self, field.name), field.metadata["choices"], field.metadata["range"]
            if choices and value not in choices:
                raise ValueError(f"{field.name}={value}: wanted {' or '.join(choices)}")
            if field.type is int and least == 1 and value < 1:
                raise ValueError(f"{field.name}={value}: wanted a whole number from 1 up")
            most = min(most, LARGEST) if field.type is int else most
            if field.type in (int, float) and not least <= value <= most:  # NaN is not
                raise ValueError(f"{field.name}={value}: wanted a number from {least} to {most}")
        if self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} accumulate={self.accumulate}: wanted parts that divide the batch")
        if self.optimizer == "adafactor" and not self.clip:
            raise ValueError("optimizer=adafactor clip=0: its means overflow beside gradients of 1e5; give a clip=, as 1")
        window(self.profile)
        if self.schedule in ("wsd", "halves") and not self.cooldown:
            what = "falls over the last" if self.schedule == "wsd" else "halves the rate every"
            raise ValueError(f"schedule={self.schedule} {what} cooldown= updates; give cooldown=N")


@dataclasses.dataclass(frozen=True)
class Language(Settings):
    """A language model, and the text it learns."""

    kind: ClassVar[str] = "language"

    # data
    data: str = setting(
        "", "text to learn from: .txt, .jsonl, .tfrecord, a folder or a pattern; several with weights: a.jsonl*0.7 b.txt*0.3"
    )
    dev: str = setting("", "the same, not learnt from, for the perplexity in the log; empty for none")
    start: str = setting("", "a flaxgen folder whose weights and vocabulary training goes on from; empty for a new model")
    foreign: str = setting("refuse", "a text of another language than start= knows, or rebuild: a new model", choices=("refuse", "rebuild"))
    text: str = setting("", "a flaxgen folder or vocab.txt whose vocabulary a new model takes; empty: one is made from data")
    vocab: int = setting(6200, "largest vocabulary made from data; 0: as the data want")
    rows: str = setting("packed", "several documents a row, or single: one, cut at its end", choices=("packed", "single"))
    neighbours: str = setting("hidden", "documents of one row do not see each other, or seen: they do", choices=("hidden", "seen"))
    shortest: int = setting(0, "documents of so few tokens are left out")
    ends: str = setting("token", "each document ends with a token, or none, as in GPT2_ML's data", choices=("token", "none"))
    # model
    length: int = setting(192, "tokens a row, and a new model's positions", least=2)
    width: int = setting(256, "of a new model", least=1)
    layers: int = setting(4, "of a new model", least=1)
    heads: int = setting(4, "of each layer", least=1)
    wiring: str = setting("between", "GPT2_ML's, or pre: GPT-2's", choices=("between", "pre"))
    init_range: float = setting(0.02, "standard deviation of a new model's kernels", least=1e-9, most=10)
    dropout: float = setting(0.0, "share of activations dropped; under two epochs nothing is learnt by heart", most=0.999)
    # learning
    lora: int = setting(0, "rank of low-rank updates of attention's q and v, all else frozen; 0: train the weights themselves")
    alpha: float = setting(16.0, "the low-rank updates are scaled by alpha / lora", least=1e-9)
    # computing
    loop: str = setting("unroll", "over layers; scan compiles a model of any depth in the same time", choices=("unroll", "scan"))
    remat: str = setting(
        "none", "what the backward pass computes again: none, dots (all but products), full", choices=("none", "dots", "full"), movable=True
    )
    chunks: int = setting(1, "parts of the vocabulary in which the loss is computed", least=1, movable=True)
    # watching
    prompts: str = setting("", "what is continued at each look, with | between; openings: how three rows of the data begin", movable=True)

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width={self.width} heads={self.heads}: wanted heads that divide the width")
        if self.lora and not self.start:
            raise ValueError(f"lora={self.lora} wants a model that has learnt, to stand beside; give start=FOLDER")


@dataclasses.dataclass(frozen=True)
class Tagging(Settings):
    """A label for every character of a line: couplets."""

    kind: ClassVar[str] = "tagging"

    # data
    data: str = setting(
        "", "couplets to learn from: a file of lines `upper<TAB>lower`, an in.txt beside its out.txt, or a folder with both; .gz too"
    )
    least: int = setting(2, "times that a character must stand in the data; a rarer one is unknown", least=1)
    longest: int = setting(16, "characters a line; longer couplets are left out", least=1)
    # model
    model: str = setting("gated", "gated convolutions, or bilstm: the baseline of equal size", choices=("gated", "bilstm"))
    width: int = setting(128, "of embedding and layers", least=1)
    layers: int = setting(0, "0: six gated convolutions, or two BiLSTMs")
    dropout: float = setting(0.25, "share of the embedded characters' numbers dropped", most=0.999)
    # watching
    prompts: str = setting("", "upper lines that are answered at each look, with | between", movable=True)


@dataclasses.dataclass(frozen=True)
class Reading(Settings):
    """Answers to questions, read out of passages."""

    kind: ClassVar[str] = "reading"

    # data
    data: str = setting(
        "",
        "questions from `prepare-reading`, or of WebQA, SogouQA, CMRC 2018, DRCD, SQuAD; several: a.json*2 b.json*1",
    )
    start: str = setting("", "a flaxgen folder whose weights and vocabulary training goes on from, as BERT; empty for a new model")
    text: str = setting("", "the vocab.txt of a new model; empty: one is made from data")
    vocab: int = setting(6200, "largest vocabulary made from data; 0: as the data want")
    form: str = setting("causal", "answers written token by token (UniLM), or filled: all at once into masks", choices=("causal", "filled"))
    passage: int = setting(256, "tokens of a passage with [CLS] and [SEP]; what is longer is cut", least=3)
    question: int = setting(64, "tokens of a question with [SEP]", least=3)
    answer: int = setting(32, "tokens of an answer with [SEP]", least=3)
    # model
    width: int = setting(256, "of a new model", least=1)
    layers: int = setting(4, "of a new model", least=1)
    heads: int = setting(4, "of each layer", least=1)
    wiring: str = setting("post", "of a new model: BERT's, or pre: GPT-2's, which learns sooner from nothing", choices=("post", "pre"))
    position: str = setting("learned", "of a new model: BERT's, RoFormer's or NEZHA's", choices=("learned", "rotary", "relative"))
    attention: str = setting(
        "drawn", "of a new model: by chance, or induction: two layers that copy from the start", choices=("drawn", "induction")
    )
    head: str = setting("mlm", "of a new model: BERT's, or tied: the token embedding alone", choices=("mlm", "tied"))
    init_range: float = setting(0.02, "standard deviation of a new model's kernels", least=1e-9, most=10)
    dropout: float = setting(0.1, "share of activations dropped", most=0.999)
    # computing
    loop: str = setting("unroll", "over layers; scan compiles a model of any depth in the same time", choices=("unroll", "scan"))
    remat: str = setting(
        "none", "what the backward pass computes again: none, dots (all but products), full", choices=("none", "dots", "full"), movable=True
    )
    chunks: int = setting(1, "parts of the vocabulary in which the loss is computed", least=1, movable=True)
    # keeping
    best: str = setting(
        "train", "which loss ranks checkpoints: of rows that are learnt from, as published, or of dev", choices=("train", "dev")
    )

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width={self.width} heads={self.heads}: wanted heads that divide the width")


def movable(settings: Settings) -> tuple[str, ...]:
    """What a resumed run may change."""
    return tuple(field.name for field in dataclasses.fields(settings) if field.metadata["movable"])


def override(settings: Settings, given: dict[str, str]) -> Settings:
    """The settings with each `key=value` in its place; an unknown key or a value of another type is a ValueError naming the choices."""
    fields = {field.name: field.type for field in ordered(settings)}
    values = {}
    for key, word in given.items():
        if key not in fields:
            raise ValueError(f"unknown setting {key!r}; choose from {', '.join(fields)}")
        try:
            values[key] = fields[key](word)
        except ValueError:
            raise ValueError(f"{key}={word}: wanted {'a whole number' if fields[key] is int else 'a number'}") from None
    made = dataclasses.replace(settings, **values)
    warm = getattr(made, "start", "")
    useless = [key for key in given if warm and key in OF_NEW_MODELS and values[key] != getattr(settings, key)]
    if useless:
        raise ValueError(f"{useless[0]}={given[useless[0]]}: start={warm} brings that along; leave it out, or give start= for a new model")
    return made


def window(word: str) -> range:
    """The updates that profile=FIRST:LAST names, both of them included; none for an empty word."""
    found = re.fullmatch(r"(\d+):(\d+)", word or "1:0")
    if word and (not found or not 1 <= int(found[1]) <= int(found[2])):
        raise ValueError(f"profile={word}: wanted FIRST:LAST, updates counted from 1, as profile=100:105")
    return range(int(found[1]), int(found[2]) + 1)


def pairs(words: list[str]) -> dict[str, str]:
    """["a=1", "b=2"] as a dictionary; anything else is a ValueError."""
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not key=value; write for example steps=100")
    found = dict(word.split("=", 1) for word in words)
    if len(found) != len(words):
        raise ValueError(f"a setting stands twice in {' '.join(words)}; keep one of them")
    return found


def joining(given: dict[str, str]) -> dict:
    """Takes out of `given` what a process of several is told of the others, as hosts.join wants it."""
    found = {name: given.pop(name) for name in ("coordinator", "processes", "process") if name in given}
    for name in ("processes", "process"):
        if name in found and not found[name].isdecimal():
            raise ValueError(f"{name}={found[name]}: wanted a whole number")
    return {name: word if name == "coordinator" else int(word) for name, word in found.items()}


def size(tiny: str) -> str:
    """The size that tiny=true or tiny=false asks for."""
    if tiny not in ("true", "false"):
        raise ValueError(f"tiny={tiny}: wanted true or false")
    return "tiny" if tiny == "true" else "full"


def table(settings: Settings) -> str:
    """One line a setting with its value and meaning, for --help."""
    return "\n".join(f"  {left:<30} {what}" for left, what in _lines(settings))


def ordered(settings: Settings) -> list[dataclasses.Field]:
    """The settings as they are told: the data, what the kind adds, and what every run has."""
    fields, shared = dataclasses.fields(settings), {field.name for field in dataclasses.fields(Settings)}
    own = [field for field in fields if field.name not in shared]
    return [*fields[:2], *own, *(field for field in fields[2:] if field.name in shared)]


def _lines(settings: Settings) -> Iterator[tuple[str, str]]:
    for field in ordered(settings):
        what, choices = field.metadata["what"], field.metadata["choices"]
        listed = f"one of {', '.join(choices)}" if sum(choice not in what for choice in choices) > 1 else ""
        yield f"{field.name}={getattr(settings, field.name)}", "; ".join(filter(None, [what, listed]))
