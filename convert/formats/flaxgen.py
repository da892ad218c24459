"""A flaxgen folder: our own paths, of every architecture. Its rows are the paths of the model at hand."""

import dataclasses
from typing import Any

from convert.formats.table import Card, Format, Own, Row
from flaxgen.models import architectures

VERSION = "flaxgen-1"


def read(json: dict[str, Any]) -> Card:
    if json.get("format") != VERSION:
        raise ValueError(f"field 'format' is {json.get('format')!r}; wanted {VERSION!r}")
    config = architectures.config(json.get("architecture"), json.get("config"))
    end = json.get("end")
    if end is not None and not (isinstance(end, list) and all(type(each) is int and 0 <= each < config.vocab for each in end)):
        raise ValueError(f"field 'end' is {end!r}; wanted a list of token ids below {config.vocab}, or null")
    return Card(config, None if end is None else tuple(end))


def write(card: Card) -> dict[str, Any]:
    """The part of config.json that the model fills; the vocabulary and the origin are added to it."""
    end = None if card.end is None else list(card.end)
    return {"format": VERSION, "architecture": card.config.architecture, "config": dataclasses.asdict(card.config), "end": end}


def rows(config: Any) -> tuple[Row, ...]:
    return tuple(Own(path, (path,)) for path in config.shapes())


FORMAT = Format(
    name="flaxgen",
    title="a flaxgen folder",
    container="safetensors",
    json_name="config.json",
    read=read,
    write=write,
    rows=(),
)
