"""What a format is: rows (foreign name pattern, our paths, layout), names to drop, and the JSON that goes with them.

A row reads both ways. Its foreign tensor is our tensors joined along their first axis (out) and then laid out:

    "same"        as ours
    "turned"      (in, out)        our kernels are (out, in)
    "turned_1"    (1, in, out)     a convolution of width 1

so `Row("h{layer}/c_attn/w", ("…/q/kernel", "…/k/kernel", "…/v/kernel"), "turned_1")` is a [1, D, 3D] tensor that splits into three. A row
whose paths have {layer} where its foreign name has none is one tensor that all layers share: read, each layer gets a copy of it; written,
those of all layers must be equal.
"""

import dataclasses
import functools
import re
import reprlib
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

Layout = Literal["same", "turned", "turned_1"]
Parts = dict[str, tuple[str, Layout]]  # foreign name -> our path and the layout
LAYER_LIMIT = 10_000
REST = "{rest}"
# Path -> the fields of the config that its shape shows; and what stands before a layer's number -> the field that counts the layers.
MEASURES = {"embed/token/embedding": ("vocab", "embedding"), "embed/position/embedding": ("positions",),
            "embed/segment/embedding": ("segments",), "block_00/mlp/up/kernel": ("hidden", "width")}  # fmt: skip
DEPTHS = {"block_": "layers"}
# The choices of the models before BERT's kin.
PLAIN = {"position": ("learned",), "norm": ("layer",), "sharing": ("none",), "segments": (0,)}


@dataclasses.dataclass(frozen=True)
class Row:
    """foreign and paths are format strings of {layer}, with its width where the numbers are padded."""

    foreign: str
    paths: tuple[str, ...]
    layout: Layout = "same"

    @property
    def layered(self) -> bool:
        return "{layer" in self.foreign

    @property
    def shared(self) -> bool:
        """Whether every layer has a copy of this one tensor."""
        return not self.layered and any("{layer" in path for path in self.paths)

    @functools.cached_property
    def _pattern(self) -> re.Pattern:
        parts = re.split(r"\{layer(?::0[23]d)?\}", self.foreign)
        return re.compile(r"(\d{1,5})".join(re.escape(part) for part in parts))

    def match(self, name: str) -> int | None:
        """The layer that a foreign name speaks of (0 for names without one), None when the row is not about it."""
        if not self.layered:
            return 0 if name == self.foreign else None
        found = self._pattern.fullmatch(name)
        layer = int(found[1]) if found else LAYER_LIMIT
        return layer if layer < LAYER_LIMIT and self.foreign.format(layer=layer) == name else None

    def name(self, layer: int) -> str:
        return self.foreign.format(layer=layer)

    def ours(self, layer: int) -> tuple[str, ...]:
        return tuple(path.format(layer=layer) for path in self.paths)

    def sets(self, path: str) -> int | None:
        """The layer whose path of ours this is, None when the row does not set it."""
        return next((layer for pattern in self.paths if (layer := Row(pattern, ()).match(path)) is not None), None)

    def shape(self, ours: list[tuple[int, ...]]) -> tuple[int, ...]:
        """The foreign shape that goes with the shapes of our tensors."""
        joined = (sum(shape[0] for shape in ours), *ours[0][1:])
        return {"same": joined, "turned": joined[::-1], "turned_1": (1, *joined[::-1])}[self.layout]


@dataclasses.dataclass(frozen=True)
class Own(Row):
    """A tensor of a flaxgen folder, whose name is its path."""

    def name(self, layer: int) -> str:
        return self.foreign

    def ours(self, layer: int) -> tuple[str, ...]:
        return self.paths


@dataclasses.dataclass(frozen=True)
class Drop:
    """A tensor that is recognised by name and left behind: a step, a constant, a slot, another model.

    {of} stands for a tensor that is taken, {rest} at the end for anything. constant: shape -> what such a tensor must hold, or None for a
    shape that it cannot have.
    """

    foreign: str
    why: str
    constant: Callable[[tuple[int, ...]], np.ndarray | None] | None = None

    def takes(self, name: str, known: set[str]) -> bool:
        """Whether it is about this name, when `known` are the names that rows take."""
        if self.foreign.startswith("{of}"):
            end = self.foreign.removeprefix("{of}")
            return name.endswith(end) and name.removesuffix(end) in known
        if self.foreign.endswith(REST):
            return name.startswith(self.foreign.removesuffix(REST))
        return Row(self.foreign, ()).match(name) is not None


@dataclasses.dataclass(frozen=True)
class Card:
    """What a format's JSON says: sizes, the tokens that end a text, and what there is to tell about it.

    unsaid: sizes of tables that it leaves to the tensors. tied: whether a path of the format's `ties` may do without a tensor of its own.
    """

    config: Any
    end: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    tied: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """A format by name: where its tensors go and what its JSON means.

    container: how it is written, None for one that is only read; reading takes any. json_name: the file that is written; read is the first
    there is of it and `other_names`. prefix: may be absent before every name, where a file has it so. bare: the outputs with which the
    prefix is left out in writing. spellings: ends of names that were others once. copies: names that may repeat one of our tensors.
    ties: path -> the path whose tensor it repeats where a model has no tensor of its own there.
    read: JSON -> Card, or a ValueError that names the field; write: the JSON back, or a ValueError. parse, render: for papers that are no
    JSON. holds: field of the config -> the values that the format can say. outputs: the heads it has tensors for; those of a model are
    found from the tensors that are there. default: the activation that goes with tensors without JSON, when their sizes are a published
    preset's. vocabulary: our file names -> its own. measured: `read` is given what the tensors show too, by our names, and that alone where
    there is no JSON. asked: taken only where --model names it. clash: why a model of this config, fields that fit each by itself, cannot
    be; "" for those that can.
    """

    name: str
    title: str
    container: Literal["bundle", "safetensors"] | None
    json_name: str
    rows: tuple[Row, ...]
    read: Callable[[dict[str, Any]], Card]
    write: Callable[[Card], dict[str, Any]]
    architecture: str = "transformer"
    holds: dict[str, tuple] = dataclasses.field(default_factory=dict)
    outputs: tuple[str, ...] = ("tied",)
    default: str | None = None
    other_names: tuple[str, ...] = ()
    parse: Callable[[bytes], dict[str, Any]] | None = None
    render: Callable[[dict[str, Any]], str] | None = None
    drops: tuple[Drop, ...] = ()
    prefix: str = ""
    bare: tuple[tuple[str, ...], ...] = ()
    spellings: tuple[tuple[str, str], ...] = ()
    copies: dict[str, str] = dataclasses.field(default_factory=dict)
    ties: dict[str, str] = dataclasses.field(default_factory=dict)
    vocabulary: dict[str, str] = dataclasses.field(default_factory=dict)
    measures: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: MEASURES)
    depths: dict[str, str] = dataclasses.field(default_factory=lambda: DEPTHS)
    measured: bool = False
    asked: bool = False
    clash: Callable[[Any], str] = lambda config: ""

    def bases(self, name: str) -> tuple[str, ...]:
        """What a foreign name may be in the rows: as it is, with the prefix that it lacks, by its later spelling."""
        for old, new in self.spellings:
            if name.endswith(old):
                name = name.removesuffix(old) + new
        return (name, self.prefix + name) if self.prefix else (name,)

    def written(self, name: str, config: Any) -> str:
        """A name of the rows as it is written for a model of this config."""
        return name.removeprefix(self.prefix) if getattr(config, "outputs", None) in self.bare else name

    def problems(self, config: Any) -> list[str]:
        """Why it cannot hold a model of this config."""
        if config.architecture != self.architecture:
            return [f"its architecture is {config.architecture!r}; {self.name} has {self.architecture!r}"]
        found = [
            f'its {field} is "{getattr(config, field)}"; {self.name} has {" or ".join(map(str, values))}'
            for field, values in self.holds.items()
            if getattr(config, field) not in values
        ]
        more = [output for output in getattr(config, "outputs", ()) if output not in self.outputs]
        found += [self.clash(config)] if self.clash(config) else []
        return found + [f'it has the output "{output}"; {self.name} has {", ".join(self.outputs) or "none"}' for output in more]


def block_rows(pattern: str, parts: Parts, under: str = "block_{layer:02d}/") -> tuple[Row, ...]:
    """Rows of one layer: `pattern` holds {layer} and {part}; parts maps the foreign part to ours below `under` and the layout."""
    rows = []
    for part, (path, layout) in parts.items():
        paths = tuple(under + each for each in path.split())
        rows.append(Row(pattern.replace("{part}", part), paths, layout))
    return tuple(rows)


@dataclasses.dataclass(frozen=True)
class Names:
    """How a family calls the tensors of a dense layer and of a norm."""

    kernel: str
    bias: str
    scale: str
    shift: str
    layout: Layout

    def dense(self, foreign: str, path: str) -> Parts:
        return {f"{foreign}{self.kernel}": (f"{path}/kernel", self.layout), f"{foreign}{self.bias}": (f"{path}/bias", "same")}

    def norm(self, foreign: str, path: str) -> Parts:
        return {f"{foreign}{self.scale}": (f"{path}/scale", "same"), f"{foreign}{self.shift}": (f"{path}/bias", "same")}


TENSORFLOW = Names("/kernel", "/bias", "/gamma", "/beta", "turned")
TRANSFORMERS = Names(".weight", ".bias", ".weight", ".bias", "same")


def rows_of(parts: Parts) -> tuple[Row, ...]:
    return tuple(Row(foreign, (path,), layout) for foreign, (path, layout) in parts.items())


def field(json: dict[str, Any], name: str, default: Any = None) -> Any:
    """A field of the JSON, its default where it is absent; ValueError naming it when neither is there."""
    value = json.get(name)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"field {name!r} is missing")
    return value


def choice(json: dict[str, Any], name: str, meanings: dict[Any, str], default: Any) -> str:
    """What a field's value means to us; ValueError naming the field and what it may be."""
    value = field(json, name, default)
    if not isinstance(value, str) or value not in meanings:
        raise ValueError(f"field {name!r} is {reprlib.repr(value)}; flaxgen has {', '.join(map(repr, meanings))}")
    return meanings[value]


def refuse_others(json: dict[str, Any], wanted: dict[str, tuple]) -> None:
    """ValueError naming every field that changes the mathematics and is none of the values that flaxgen computes; null is absent."""
    other = [name for name, values in wanted.items() if json.get(name) is not None and json[name] not in values]
    if other:
        said = (f"field {name!r} is {reprlib.repr(json[name])}; flaxgen has {' or '.join(map(repr, wanted[name]))} only" for name in other)
        raise ValueError("; ".join(said))


def unknown(json: dict[str, Any], known: Iterable[str]) -> tuple[str, ...]:
    """A note that names the fields which nobody here knows."""
    names = sorted(json.keys() - set(known))
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (f"fields of the JSON that are not known, and left: {', '.join(name[:60] for name in names[:20])}{more}",) if names else ()


def end_tokens(json: dict[str, Any], name: str, default: int | None = None) -> tuple[int, ...] | None:
    """The ids of a field that holds one, a list of them, or null for none."""
    value = json.get(name, default)
    if value is None:
        return None
    ids = tuple(value) if isinstance(value, list) else (value,)
    if not all(type(each) is int and each >= 0 for each in ids):
        raise ValueError(f"field {name!r} is {reprlib.repr(value)}; wanted a token id, a list of them, or null")
    return ids
