"""What a format is: rows (foreign name pattern, our paths, layout), names to drop, and the JSON that goes with them.

A row reads both ways. Its foreign tensor is our tensors joined along their first axis (out) and then laid out:

    "same"        as ours
    "turned"      (in, out)        our kernels are (out, in)
    "turned_1"    (1, in, out)     a convolution of width 1

so `Row("h{layer}/c_attn/w", ("…/q/kernel", "…/k/kernel", "…/v/kernel"), "turned_1")` is a [1, D, 3D] tensor that splits into three.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, Literal

from flaxgen.models import config as sizes

Layout = Literal["same", "turned", "turned_1"]
LAYER_LIMIT = 10_000


@dataclasses.dataclass(frozen=True)
class Row:
    """foreign and paths are format strings of {layer}, with its width where the numbers are padded."""

    foreign: str
    paths: tuple[str, ...]
    layout: Layout = "same"

    @property
    def layered(self) -> bool:
        return "{layer" in self.foreign

    @functools.cached_property
    def _pattern(self) -> re.Pattern:
        parts = re.split(r"\{layer(?::02d)?\}", self.foreign)
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

    def shape(self, ours: list[tuple[int, ...]]) -> tuple[int, ...]:
        """The foreign shape that goes with the shapes of our tensors."""
        joined = (sum(shape[0] for shape in ours), *ours[0][1:])
        return {"same": joined, "turned": joined[::-1], "turned_1": (1, *joined[::-1])}[self.layout]


@dataclasses.dataclass(frozen=True)
class Drop:
    """A tensor that is recognised by name and left behind: a step, a constant, a slot. {of} stands for a tensor that is taken."""

    foreign: str
    why: str


@dataclasses.dataclass(frozen=True)
class Card:
    """What a format's JSON says beside the sizes."""

    config: sizes.Config
    end: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Format:
    """A format by name: where its tensors go and what its JSON means.

    container: how it is written; reading takes either. prefix: stands before every name written, and may stand there when read. tied: a
    name that may repeat the token embedding. read: JSON -> Card, or a ValueError that names the field; write: the JSON back, or a
    ValueError. activations: those it can say. default: the activation that goes with tensors without JSON, when their sizes are a
    published preset's. vocabulary: our file names -> its own.
    """

    name: str
    title: str
    container: Literal["bundle", "safetensors"]
    json_name: str
    rows: tuple[Row, ...]
    wirings: tuple[str, ...]
    activations: tuple[str, ...]
    default: str | None
    read: Callable[[dict[str, Any]], Card]
    write: Callable[[Card], dict[str, Any]]
    drops: tuple[Drop, ...] = ()
    prefix: str = ""
    tied: str | None = None
    vocabulary: dict[str, str] = dataclasses.field(default_factory=dict)

    def base(self, name: str) -> str:
        """A foreign name as the rows have it."""
        return name.removeprefix(self.prefix)


def block_rows(pattern: str, parts: dict[str, tuple[str, Layout]]) -> tuple[Row, ...]:
    """Rows of one layer: `pattern` holds {layer} and {part}; parts maps the foreign part to ours below block_NN and the layout."""
    rows = []
    for part, (path, layout) in parts.items():
        paths = tuple("block_{layer:02d}/" + each for each in path.split())
        rows.append(Row(pattern.replace("{part}", part), paths, layout))
    return tuple(rows)


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
        raise ValueError(f"field {name!r} is {value!r}; flaxgen has {', '.join(map(repr, meanings))}")
    return meanings[value]
