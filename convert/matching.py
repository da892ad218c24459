"""What SOURCE holds: its sizes, and where every one of our tensors comes from; everything that does not fit is listed at once."""

import dataclasses
import reprlib
from typing import Any

import numpy as np

from convert import formats, recognition
from convert.bundle import read as bundle
from convert.formats.table import LAYER_LIMIT, Card, Drop, Format, Row
from convert.source import Source
from flaxgen import errors, tensors
from flaxgen.models import config as sizes
from flaxgen.models import presets

FLOATS = tuple(tensors.DTYPES[code] for code in ("F32", "BF16", "F16", "F64"))
MODELS = (*formats.FORMATS, *presets.PRESETS)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where one of our tensors lies: part `number` of a foreign variable that holds `of` of them."""

    name: str
    row: Row
    number: int

    @property
    def of(self) -> int:
        return len(self.row.paths)


@dataclasses.dataclass(frozen=True)
class Match:
    """A source understood: its format, its sizes, where each path comes from, and what is left behind.

    copies: names of tensors that must equal one of ours -> its path.
    """

    format: Format
    card: Card
    origins: dict[str, Origin]
    dropped: dict[str, Drop]
    copies: dict[str, str]
    said: str


def match(source: Source, model: str | None) -> Match:
    """The one way to read the source, or a Mismatch with everything that stands against it."""
    if model is not None and model not in MODELS:
        raise errors.Mismatch(f"--model {model!r} is unknown; wanted one of {', '.join(MODELS)}")
    taken = recognition.choose(source, model)
    origins, problems = {}, []
    for row, layer, name in taken.rows:
        for number, path in enumerate(row.ours(layer)):
            if path in origins:
                problems.append(f"target {path} is set twice: by {origins[path].name!r} and by {name!r}")
            else:
                origins[path] = Origin(name, row, number)
    problems += [f"tensor {name!r} {_describe(source.variables[name])}: no row of {taken.format.name} takes it" for name in taken.untaken]
    card, said = _card(source, taken, origins, model, problems)
    wanted = _wanted(source, taken, card.config, problems)
    origins |= _copied(taken, origins, card.config, wanted)
    origins, copies = _tied(taken.format, card, origins, wanted)
    problems += [taken.format.clash(card.config)] if taken.format.clash(card.config) else []
    problems += _shape_problems(source, taken.format, wanted, origins)
    if problems:
        raise errors.Mismatch(errors.listing(f"{source.path} does not fit {taken.format.name}", problems, "Nothing was written"))
    return Match(taken.format, card, origins, taken.dropped, taken.copies | copies, said)


def _describe(variable: bundle.Variable) -> str:
    return f"{variable.dtype} {list(variable.shape)}"


def _our_shape(source: Source, origin: Origin) -> tuple[int, ...]:
    """The shape that a foreign variable gives ours; () when its layout does not allow one."""
    shape = tuple(source.variables[origin.name].shape)
    if origin.row.layout == "turned_1":
        shape = shape[1:] if len(shape) == 3 and shape[0] == 1 else ()
    if origin.row.layout != "same":
        shape = shape[::-1] if len(shape) == 2 else ()
    return (shape[0] // origin.of, *shape[1:]) if shape and shape[0] % origin.of == 0 else ()


def _measured(source: Source, format: Format, origins: dict[str, Origin]) -> dict[str, int]:
    """The sizes that can be read off the tensors, as far as the tensors are there."""
    found: dict[str, int] = {}
    for path, fields in format.measures.items():
        if path in origins:
            found |= zip(fields, _our_shape(source, origins[path]), strict=False)
    for start, field in format.depths.items():
        numbers = [
            path.removeprefix(start).split("/")[0] for path, origin in origins.items() if path.startswith(start) and origin.row.layered
        ]
        if numbers:
            found[field] = max(map(int, numbers)) + 1
    return found


def _card(source: Source, taken: recognition.Taken, origins: dict[str, Origin], model: str | None, problems: list[str]) -> tuple[Card, str]:
    """Sizes and choices from the JSON beside the tensors, from a preset's name, or from a preset with the tensors' shapes."""
    format, found = taken.format, _measured(source, taken.format, origins)
    place, json = recognition.papers(source, format)
    told = "the tensors" if json is None else place.name
    if format.measured:
        place, json = (source.path, found) if json is None else (place, found | json)
    card = None
    if json is not None:
        try:
            card = format.read(json)
        except (ValueError, TypeError) as error:
            if model not in presets.PRESETS:
                raise errors.Mismatch(f"{place}: {error}. It describes no {format.name} that can be read; "
                                      "put the right one in its place") from error  # fmt: skip
    if model in presets.PRESETS:
        if card is not None and card.config != dataclasses.replace(presets.PRESETS[model], **trained(card.config)):
            wanted = dataclasses.replace(presets.PRESETS[model], **trained(card.config))
            problems.append(f"{place.name} is not --model {model}: {sizes.differences(card.config, wanted)}")
        given = card or Card(None)
        card, said = Card(presets.PRESETS[model], given.end, tied=given.tied), f"sizes of {model}, as --model says"
    elif card is not None:
        said = f"sizes from {told}"
    else:
        card, said = _from_presets(source, format, found)
    measured = {name: found.get(name, 0 if name == "segments" else getattr(card.config, name)) for name in card.unsaid}
    card = dataclasses.replace(card, config=_with_outputs(format, dataclasses.replace(card.config, **measured), origins))
    for name, value in found.items():
        if getattr(card.config, name, value) != value:
            by = f"--model {model}" if model in presets.PRESETS else place.name
            problems.append(f"{name} is {reprlib.repr(getattr(card.config, name))} by {by}, {value} by the tensors")
    return card, said


def trained(config: Any, names: tuple[str, ...] = ("dropout", "init_range", "outputs", "application")) -> dict[str, Any]:
    """Fields that say how a model was trained or is used, not what its layers compute."""
    return {each.name: getattr(config, each.name) for each in dataclasses.fields(config) if each.name in names}


def _with_outputs(format: Format, config: Any, origins: dict[str, Origin]) -> Any:
    """The config with the heads for which there are tensors; a head that is there in part counts, so that its rest is missed."""
    if format.name == "flaxgen" or not trained(config, ("outputs",)):
        return config
    found = {path.split("/")[0] for path in origins} | ({"pool"} if any(path.startswith("nsp/") for path in origins) else set())
    if "mlm" not in found and (config.embedding == config.width or "map_out" in found):
        found.add("tied")
    order = ("tied", "mlm", "pool", "nsp", "discriminator")
    return dataclasses.replace(config, outputs=tuple(name for name in order if name in found and name in format.outputs))


def _from_presets(source: Source, format: Format, found: dict[str, int]) -> tuple[Card, str]:
    """Head counts leave no trace in the tensors; where the sizes are a published model's, so is this one (the vocabulary may differ)."""
    loose = {name: found[name] for name in ("vocab", "segments") if name in found}
    for name, preset in presets.PRESETS.items() if format.default and {"vocab", "width", "hidden"} <= found.keys() else ():
        if preset.architecture != format.architecture:
            continue
        config = dataclasses.replace(preset, activation=format.default, **loose)
        if not format.problems(config) and all(getattr(config, key) == value for key, value in found.items()):
            return Card(config), f"sizes of the published {name} ({config.heads} heads), as no {format.json_name} lies beside the tensors"
    seen = ", ".join(f"{key} {value}" for key, value in found.items()) or "no sizes"
    raise errors.Mismatch(
        f"{source.folder}: no {format.json_name} lies beside the tensors, and the number of attention heads cannot be read off them "
        f"({seen}; no published size of {format.name}). Put the model's own {format.json_name} there, or name a published size with "
        f"--model ({', '.join(presets.PRESETS)})"
    )


def _wanted(source: Source, taken: recognition.Taken, config: Any, problems: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the config. The JSON may claim any depth; a checkpoint without sharing has no more layers than tensors."""
    depths = {name: getattr(config, name) for name in ("layers", "decoder_layers") if getattr(config, name, None) is not None}
    problems += [
        f"{name} is {reprlib.repr(count)}; at most {LAYER_LIMIT:,} are read" for name, count in depths.items() if count > LAYER_LIMIT
    ]
    most = LAYER_LIMIT if any(row.shared for row, _, _ in taken.rows) else len(source.variables) + 1
    return dataclasses.replace(config, **{name: min(count, most) for name, count in depths.items()}).shapes()


def _copied(taken: recognition.Taken, origins: dict[str, Origin], config: Any, wanted: dict[str, tuple[int, ...]]) -> dict[str, Origin]:
    """Where the layers find their tensors when the source has one for all of them."""
    found = {}
    for row, _, name in taken.rows:
        for layer in range(1, min(config.layers, LAYER_LIMIT) if row.shared else 0):
            for number, path in enumerate(row.ours(layer)):
                if path in wanted:
                    found[path] = Origin(name, row, number)
    return found


def _tied(
    format: Format, card: Card, origins: dict[str, Origin], wanted: dict[str, tuple[int, ...]]
) -> tuple[dict[str, Origin], dict[str, str]]:
    """Origins and copies when what the format ties has no tensor of its own, or has one that the model has no path for."""
    found, copies = dict(origins), {}
    for path, other in format.ties.items():
        if card.tied and path in wanted and path not in found and other in found:
            found[path] = found[other]
        elif path not in wanted and path in found:
            copies[found.pop(path).name] = other
    return found, copies


def _shape_problems(source: Source, format: Format, wanted: dict[str, tuple[int, ...]], origins: dict[str, Origin]) -> list[str]:
    prefix = format.prefix if any(origin.name.startswith(format.prefix) for origin in origins.values()) else ""
    problems = []
    for path in wanted.keys() - origins.keys():
        foreign = _foreign(format, path)
        foreign = foreign if prefix else foreign.removeprefix(format.prefix)
        problems.append(f"target {path} {reprlib.repr(list(wanted[path]))} is never set: {foreign!r} is missing")
    for path in origins.keys() - wanted.keys():
        problems.append(f"tensor {origins[path].name!r}: a model of these sizes has no {path}")
    seen = set()
    for path, origin in origins.items():
        if path not in wanted or origin.name in seen:
            continue
        seen.add(origin.name)
        variable = source.variables[origin.name]
        shape = origin.row.shape([wanted[path]] * origin.of)
        if tuple(variable.shape) != shape:
            turned = " (transposed)" if tuple(variable.shape) == shape[::-1] else ""
            problems.append(f"tensor {origin.name!r} has shape {list(variable.shape)}{turned}, wanted {reprlib.repr(list(shape))}")
        if not isinstance(variable.dtype, np.dtype) or variable.dtype not in FLOATS:
            problems.append(f"tensor {origin.name!r} is {variable.dtype}; wanted {', '.join(map(str, FLOATS))}")
    return sorted(problems)


def _foreign(format: Format, path: str) -> str:
    """The foreign name that would set a path."""
    if format.name == "flaxgen":
        return path
    for row in format.rows:
        layer = row.sets(path)
        if layer is not None:
            return row.name(layer)
    return path
