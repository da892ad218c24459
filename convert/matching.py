"""Which format SOURCE is in, and where every one of our tensors comes from; everything that does not fit is listed at once."""

import dataclasses

import numpy as np

from convert import formats
from convert.bundle import read as bundle
from convert.formats.table import Card, Format, Row
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
    """A source understood: its format, its sizes, where each path comes from, and what is left behind and why."""

    format: Format
    card: Card
    origins: dict[str, Origin]
    dropped: dict[str, str]
    tied: str | None
    said: str


@dataclasses.dataclass(frozen=True)
class _Taken:
    """What the rows of one format take of the source's names."""

    format: Format
    rows: list[tuple[Row, int, str]]
    dropped: dict[str, str]
    tied: list[str]
    untaken: list[str]

    @property
    def anchored(self) -> bool:
        return any(row.paths == ("embed/token/embedding",) for row, _, _ in self.rows)


def match(source: Source, model: str | None) -> Match:
    """The one way to read the source, or a Mismatch with everything that stands against it."""
    if model is not None and model not in MODELS:
        raise errors.Mismatch(f"--model {model!r} is unknown; wanted one of {', '.join(MODELS)}")
    taken = _choose(source, model)
    names, problems = {}, []
    for row, layer, name in taken.rows:
        for number, path in enumerate(row.ours(layer)):
            if path in names:
                problems.append(f"target {path} is set twice: by {names[path].name!r} and by {name!r}")
            else:
                names[path] = Origin(name, row, number)
    problems += [f"tensor {name!r} {_describe(source.variables[name])}: no row of {taken.format.name} takes it" for name in taken.untaken]
    if len(taken.tied) > 1:
        problems.append(f"the token embedding is repeated more than once: {', '.join(taken.tied)}")
    card, said = _card(source, taken, names, model, problems)
    problems += _shape_problems(source, taken.format, card.config, names)
    if problems:
        raise errors.Mismatch(errors.listing(f"{source.path} does not fit {taken.format.name}", problems, "Nothing was written"))
    return Match(taken.format, card, names, taken.dropped, taken.tied[0] if taken.tied else None, said)


def _describe(variable: bundle.Variable) -> str:
    return f"{variable.dtype} {list(variable.shape)}"


def _take(source: Source, format: Format) -> _Taken:
    rows, dropped, tied, rest = [], {}, [], []
    for name in source.variables:
        base = format.base(name)
        found = [(row, layer, name) for row in format.rows if (layer := row.match(base)) is not None]
        rows += found
        if not found:
            (tied if base == format.tied else rest).append(name)
    known = {format.base(name) for _, _, name in rows}
    untaken = []
    for name in rest:
        why = _why_dropped(format, format.base(name), known)
        if why:
            dropped[name] = why
        else:
            untaken.append(name)
    return _Taken(format, rows, dropped, tied, untaken)


def _why_dropped(format: Format, name: str, known: set[str]) -> str | None:
    for drop in format.drops:
        if drop.foreign.startswith("{of}"):
            end = drop.foreign.removeprefix("{of}")
            if name.endswith(end) and name.removesuffix(end) in known:
                return drop.why
        elif Row(drop.foreign, ()).match(name) is not None:
            return drop.why
    return None


def _choose(source: Source, model: str | None) -> _Taken:
    """The format whose token embedding is there; --model decides between several, and is believed where none shows itself."""
    if model in formats.FORMATS:
        taken = _take(source, formats.FORMATS[model])
        if not taken.rows:
            raise errors.Mismatch(f"{source.path}: --model {model} takes none of its tensors ({_some(source)})")
        return taken
    every = [_take(source, format) for format in formats.FORMATS.values()]
    if model is not None:
        wanted = presets.PRESETS[model]
        every = [each for each in every if wanted.wiring in each.format.wirings and wanted.activation in each.format.activations]
    fits = [each for each in every if each.anchored]
    if len(fits) > 1:
        names = ", ".join(each.format.name for each in fits)
        raise errors.Mismatch(f"{source.path}: {len(fits)} models fit its tensors: {names}. Choose one with --model NAME")
    if fits:
        return fits[0]
    best = max(every, key=lambda each: len(each.rows))
    if 2 * len(best.rows) > len(source.variables):
        return best
    titles = "; ".join(f"{each.name}: {each.title}" for each in formats.FORMATS.values())
    raise errors.Mismatch(f"{source.path}: no model that is read has these tensors ({_some(source)}). Read are {titles}")


def _some(source: Source) -> str:
    names = list(source.variables)
    rest = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return ", ".join([*(repr(name) for name in names[:3]), *rest]) or "it has none"


def _our_shape(source: Source, origin: Origin) -> tuple[int, ...]:
    """The shape that a foreign variable gives ours; () when its layout does not allow one."""
    shape = tuple(source.variables[origin.name].shape)
    if origin.row.layout == "turned_1":
        shape = shape[1:] if len(shape) == 3 and shape[0] == 1 else ()
    if origin.row.layout != "same":
        shape = shape[::-1] if len(shape) == 2 else ()
    return (shape[0] // origin.of, *shape[1:]) if shape and shape[0] % origin.of == 0 else ()


def _measured(source: Source, origins: dict[str, Origin]) -> dict[str, int]:
    """The sizes that can be read off the tensors, as far as the tensors are there."""
    found: dict[str, int] = {}
    for path, fields in (("embed/token/embedding", ("vocab", "width")), ("embed/position/embedding", ("positions",)),
                         ("block_00/mlp/up/bias", ("hidden",))):  # fmt: skip
        if path in origins:
            found |= zip(fields, _our_shape(source, origins[path]), strict=False)
    blocks = {path.split("/")[0] for path in origins if path.startswith("block_")}
    if blocks:
        found["layers"] = max(int(block.removeprefix("block_")) for block in blocks) + 1
    return found


def _card(source: Source, taken: _Taken, origins: dict[str, Origin], model: str | None, problems: list[str]) -> tuple[Card, str]:
    """Sizes and choices from the JSON beside the tensors, from a preset's name, or from a preset with the tensors' shapes."""
    format, found = taken.format, _measured(source, origins)
    json = source.json(format.json_name)
    card = None
    if json is not None:
        try:
            card = format.read(json)
        except (ValueError, TypeError) as error:
            if model not in presets.PRESETS:
                raise errors.Mismatch(f"{source.folder / format.json_name}: {error}. It describes no {format.name} that can be read; "
                                      "put the right one in its place") from error  # fmt: skip
    if model in presets.PRESETS:
        if card is not None and card.config != dataclasses.replace(presets.PRESETS[model], **_trained(card.config)):
            problems.append(f"{format.json_name} says {card.config}, --model {model} is {presets.PRESETS[model]}")
        card, said = Card(presets.PRESETS[model], card.end if card else None), f"sizes of {model}, as --model says"
    elif card is not None:
        said = f"sizes from {format.json_name}"
    else:
        card, said = _from_presets(source, format, found)
    for name, value in found.items():
        if getattr(card.config, name) != value:
            by = f"--model {model}" if model in presets.PRESETS else format.json_name
            problems.append(f"{name} is {getattr(card.config, name)} by {by}, {value} by the tensors")
    return card, said


def _trained(config: sizes.Config) -> dict[str, float]:
    """Fields that say how a model was trained, not what it computes."""
    return {"dropout": config.dropout, "init_range": config.init_range}


def _from_presets(source: Source, format: Format, found: dict[str, int]) -> tuple[Card, str]:
    """Head counts leave no trace in the tensors; where the sizes are a published model's, so is this one (the vocabulary may differ)."""
    keys = ("positions", "width", "layers", "hidden")
    for name, preset in presets.PRESETS.items():
        same = all(found.get(key) == getattr(preset, key) for key in keys)
        if same and "vocab" in found and preset.wiring in format.wirings and format.default:
            config = dataclasses.replace(preset, vocab=found["vocab"], activation=format.default)
            return Card(config), f"sizes of the published {name} ({config.heads} heads), as no {format.json_name} lies beside the tensors"
    seen = ", ".join(f"{key} {value}" for key, value in found.items()) or "no sizes"
    raise errors.Mismatch(
        f"{source.folder}: no {format.json_name} lies beside the tensors, and the number of attention heads cannot be read off them "
        f"({seen}; no published size of {format.name}). Put the model's own {format.json_name} there, or name a published size with "
        f"--model ({', '.join(presets.PRESETS)})"
    )


def _shape_problems(source: Source, format: Format, config: sizes.Config, origins: dict[str, Origin]) -> list[str]:
    # The JSON may claim any depth; no checkpoint has more layers than tensors.
    layers = min(config.layers, len(source.variables) + 1)
    wanted = sizes.shapes(dataclasses.replace(config, layers=layers))
    prefix = format.prefix if any(origin.name.startswith(format.prefix) for origin in origins.values()) else ""
    problems = []
    for path in wanted.keys() - origins.keys():
        problems.append(f"target {path} {list(wanted[path])} is never set: {prefix + _foreign(format, path)!r} is missing")
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
            problems.append(f"tensor {origin.name!r} has shape {list(variable.shape)}{turned}, wanted {list(shape)}")
        if not isinstance(variable.dtype, np.dtype) or variable.dtype not in FLOATS:
            problems.append(f"tensor {origin.name!r} is {variable.dtype}; wanted {', '.join(map(str, FLOATS))}")
    return sorted(problems)


def _foreign(format: Format, path: str) -> str:
    """The foreign name that would set a path."""
    for row in format.rows:
        for pattern in row.paths:
            layer = Row(pattern, ()).match(path)
            if layer is not None:
                return row.name(layer)
    raise ValueError(f"no row of {format.name} sets {path}")
