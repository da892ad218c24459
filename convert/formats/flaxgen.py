"""A flaxgen folder: our own paths, both wirings."""

import dataclasses
from typing import Any

from convert.formats.table import Card, Format, Row
from flaxgen.models import config as sizes

VERSION = "flaxgen-1"


def read(json: dict[str, Any]) -> Card:
    for name, value in (("format", VERSION), ("architecture", "transformer")):
        if json.get(name) != value:
            raise ValueError(f"field {name!r} is {json.get(name)!r}; wanted {value!r}")
    try:
        config = sizes.Config(**json.get("config", {}))
    except TypeError as error:
        raise ValueError(f"field 'config': {error}") from error
    end = json.get("end")
    if end is not None and not (isinstance(end, list) and all(type(each) is int and 0 <= each < config.vocab for each in end)):
        raise ValueError(f"field 'end' is {end!r}; wanted a list of token ids below {config.vocab}, or null")
    return Card(config, None if end is None else tuple(end))


def write(card: Card) -> dict[str, Any]:
    """The part of config.json that the model fills; the vocabulary and the origin are added to it."""
    end = None if card.end is None else list(card.end)
    return {"format": VERSION, "architecture": "transformer", "config": dataclasses.asdict(card.config), "end": end}


def _rows() -> tuple[Row, ...]:
    """The rows are the paths themselves, read off a model of one layer in each wiring."""
    paths: dict[str, None] = {}
    for wiring in ("between", "pre"):
        paths |= dict.fromkeys(sizes.shapes(sizes.Config(1, 1, 1, 1, 1, 1, wiring=wiring, activation="gelu")))
    patterns = (path.replace(sizes.block_name(0), "block_{layer:02d}") for path in paths)
    return tuple(Row(pattern, (pattern,)) for pattern in patterns)


FORMAT = Format(
    name="flaxgen",
    title="a flaxgen folder",
    container="safetensors",
    json_name="config.json",
    wirings=("pre", "between"),
    activations=("gelu", "gelu_tanh"),
    default=None,
    read=read,
    write=write,
    rows=_rows(),
)
