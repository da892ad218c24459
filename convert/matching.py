"""Which format SOURCE is in, and where every one of our tensors comes from; everything that does not fit is listed at once."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from convert import formats
from convert.bundle import read as bundle
from convert.formats import flaxgen as folder
from convert.formats.table import LAYER_LIMIT, Card, Format, Own, Row
from convert.source import Source
from flaxgen import errors, tensors
from flaxgen.models import presets

FLOATS = tuple(tensors.DTYPES[code] for code in ("F32", "BF16", "F16", "F64"))
MODELS = (*formats.FORMATS, *presets.PRESETS)
TOKENS = "embed/token/embedding"
# Parts that a model may lack: their tensors say whether it has them.
OPTIONAL = ("embed/segment/", "embed/map/", "mlm/", "pool/", "nsp/", "discriminator/", "map_out/")


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
    """A source understood: its format, its sizes, where each path comes from, and what is left behind and why.

    copies: names of tensors that must equal one of ours -> its path.
    """

    format: Format
    card: Card
    origins: dict[str, Origin]
    dropped: dict[str, str]
    copies: dict[str, str]
    said: str


@dataclasses.dataclass(frozen=True)
class _Taken:
    """What the rows of one format take of the source's names."""

    format: Format
    rows: list[tuple[Row, int, str]]
    dropped: dict[str, str]
    copies: dict[str, str]
    untaken: list[str]

    @property
    def names(self) -> set[str]:
        return {name for _, _, name in self.rows} | self.copies.keys()

    @property
    def lacking(self) -> int:
        """How many rows that every model of the format has find no tensor."""
        found = {row for row, _, _ in self.rows}
        return sum(not row.paths[0].startswith(OPTIONAL) for row in self.format.rows if row not in found)


def match(source: Source, model: str | None) -> Match:
    """The one way to read the source, or a Mismatch with everything that stands against it."""
    if model is not None and model not in MODELS:
        raise errors.Mismatch(f"--model {model!r} is unknown; wanted one of {', '.join(MODELS)}")
    taken = _choose(source, model)
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
    problems += _shape_problems(source, taken.format, wanted, origins)
    if problems:
        raise errors.Mismatch(errors.listing(f"{source.path} does not fit {taken.format.name}", problems, "Nothing was written"))
    return Match(taken.format, card, origins, taken.dropped, taken.copies, said)


def _describe(variable: bundle.Variable) -> str:
    return f"{variable.dtype} {list(variable.shape)}"


def _take(source: Source, format: Format) -> _Taken:
    if format.name == "flaxgen":
        return _Taken(format, [(Own(name, (name,)), 0, name) for name in source.variables], {}, {}, [])
    exact = {row.foreign: row for row in format.rows if not row.layered}
    layered = [row for row in format.rows if row.layered]
    rows, copies, rest = [], {}, []
    for name in source.variables:
        bases = format.bases(name)
        found = [(exact[base], 0, name) for base in bases if base in exact]
        found += [(row, layer, name) for base in bases for row in layered if (layer := row.match(base)) is not None]
        rows += found
        if not found:
            path = next((format.copies[base] for base in bases if base in format.copies), None)
            if path is None:
                rest.append(name)
            else:
                copies[name] = path
    _promote(format, rows, copies)
    known = {base for _, _, name in rows for base in format.bases(name)} | {name for _, _, name in rows}
    dropped, untaken = {}, []
    for name in rest:
        why = next((drop.why for base in (name, *format.bases(name)) for drop in format.drops if drop.takes(base, known)), None)
        if why:
            dropped[name] = why
        else:
            untaken.append(name)
    return _Taken(format, rows, dropped, copies, untaken)


def _promote(format: Format, rows: list[tuple[Row, int, str]], copies: dict[str, str]) -> None:
    """A copy whose original is not there takes its place."""
    held = {row.paths for row, _, _ in rows}
    for name, path in list(copies.items()):
        if (path,) not in held:
            rows.append((next(row for row in format.rows if row.paths == (path,)), 0, name))
            held.add((path,))
            del copies[name]


def _choose(source: Source, model: str | None) -> _Taken:
    """The format that takes the most; --model decides between several, and is believed where none shows itself."""
    if model in formats.FORMATS:
        taken = _take(source, formats.FORMATS[model])
        if not taken.rows:
            raise errors.Mismatch(f"{source.path}: --model {model} takes none of its tensors ({_some(source)})")
        return taken
    own = _own(source)
    every = [format for format in formats.FORMATS.values() if not format.asked and own == (format.name == "flaxgen")]
    if model is not None:
        every = [format for format in every if own or not format.problems(presets.PRESETS[model])]
    fits = _best(source, [_take(source, format) for format in every if own or _anchored(source, format)])
    if len(fits) > 1:
        names = ", ".join(each.format.name for each in fits)
        raise errors.Mismatch(f"{source.path}: {len(fits)} models fit its tensors: {names}. Choose one with --model NAME")
    if fits:
        return fits[0]
    best = max((_take(source, format) for format in every), key=lambda each: len(each.rows), default=None)
    if best and 2 * len(best.rows) > len(source.variables):
        return best
    titles = "; ".join(f"{each.name}: {each.title}" for each in formats.FORMATS.values())
    raise errors.Mismatch(f"{source.path}: no model that is read has these tensors ({_some(source)}). Read are {titles}")


def _anchored(source: Source, format: Format) -> bool:
    """Whether the token embedding is there, under the name that the format gives it."""
    names = {row.foreign for row in format.rows if row.paths == (TOKENS,)}
    return any(name in source.variables or name.removeprefix(format.prefix) in source.variables for name in names)


def _own(source: Source) -> bool:
    """Whether it is a flaxgen folder, by its JSON or by the name of its token embedding."""
    return TOKENS in source.variables or (source.json("config.json") or {}).get("format") == folder.VERSION


def _best(source: Source, fits: list[_Taken]) -> list[_Taken]:
    """Those that no other beats: by taking all that they take and more, or the same and lacking less; then by what the JSON says."""

    def beats(one: _Taken, other: _Taken) -> bool:
        if one.names == other.names:
            return (one.lacking, len(one.untaken)) < (other.lacking, len(other.untaken))
        return one.names > other.names and one.lacking <= other.lacking

    fits = [each for each in fits if not any(beats(other, each) for other in fits)]
    if len(fits) > 1 and all(each.names == fits[0].names for each in fits):
        return [each for each in fits if _readable(source, each.format)] or fits
    return fits


def _readable(source: Source, format: Format) -> bool:
    try:
        _, json = papers(source, format)
        return json is not None and format.read(json) is not None
    except (ValueError, TypeError):
        return False


def papers(source: Source, format: Format) -> tuple[pathlib.Path, dict[str, Any] | None]:
    """The file that says the sizes, by the names that the format knows, and what it holds; None where there is none."""
    for name in (format.json_name, *format.other_names):
        found = source.json(name) if format.parse is None else source.paper(name, format.parse)
        if found is not None:
            return source.folder / name, found
    return source.folder / format.json_name, None


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


def _card(source: Source, taken: _Taken, origins: dict[str, Origin], model: str | None, problems: list[str]) -> tuple[Card, str]:
    """Sizes and choices from the JSON beside the tensors, from a preset's name, or from a preset with the tensors' shapes."""
    format, found = taken.format, _measured(source, taken.format, origins)
    place, json = papers(source, format)
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
        if card is not None and card.config != dataclasses.replace(presets.PRESETS[model], **_trained(card.config)):
            problems.append(f"{place.name} says {card.config}, --model {model} is {presets.PRESETS[model]}")
        card, said = Card(presets.PRESETS[model], card.end if card else None), f"sizes of {model}, as --model says"
    elif card is not None:
        said = f"sizes from {told}"
    else:
        card, said = _from_presets(source, format, found)
    measured = {name: found.get(name, 0 if name == "segments" else getattr(card.config, name)) for name in card.unsaid}
    card = dataclasses.replace(card, config=_with_outputs(format, dataclasses.replace(card.config, **measured), origins))
    for name, value in found.items():
        if getattr(card.config, name, value) != value:
            by = f"--model {model}" if model in presets.PRESETS else place.name
            problems.append(f"{name} is {getattr(card.config, name)} by {by}, {value} by the tensors")
    return card, said


def _trained(config: Any) -> dict[str, Any]:
    """Fields that say how a model was trained or is used, not what its layers compute."""
    return {name: getattr(config, name) for name in ("dropout", "init_range", "outputs", "application") if hasattr(config, name)}


def _with_outputs(format: Format, config: Any, origins: dict[str, Origin]) -> Any:
    """The config with the heads for which there are tensors; a head that is there in part counts, so that its rest is missed."""
    if format.name == "flaxgen" or not hasattr(config, "outputs"):
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


def _wanted(source: Source, taken: _Taken, config: Any, problems: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the config. The JSON may claim any depth; a checkpoint without sharing has no more layers than tensors."""
    depths = {name: getattr(config, name) for name in ("layers", "decoder_layers") if getattr(config, name, None) is not None}
    problems += [f"{name} is {count:,}; at most {LAYER_LIMIT:,} are read" for name, count in depths.items() if count > LAYER_LIMIT]
    most = LAYER_LIMIT if any(row.shared for row, _, _ in taken.rows) else len(source.variables) + 1
    return dataclasses.replace(config, **{name: min(count, most) for name, count in depths.items()}).shapes()


def _copied(taken: _Taken, origins: dict[str, Origin], config: Any, wanted: dict[str, tuple[int, ...]]) -> dict[str, Origin]:
    """Where the layers find their tensors when the source has one for all of them."""
    found = {}
    for row, _, name in taken.rows:
        for layer in range(1, min(config.layers, LAYER_LIMIT) if row.shared else 0):
            for number, path in enumerate(row.ours(layer)):
                if path in wanted:
                    found[path] = Origin(name, row, number)
    return found


def _shape_problems(source: Source, format: Format, wanted: dict[str, tuple[int, ...]], origins: dict[str, Origin]) -> list[str]:
    prefix = format.prefix if any(origin.name.startswith(format.prefix) for origin in origins.values()) else ""
    problems = []
    for path in wanted.keys() - origins.keys():
        foreign = _foreign(format, path)
        foreign = foreign if prefix else foreign.removeprefix(format.prefix)
        problems.append(f"target {path} {list(wanted[path])} is never set: {foreign!r} is missing")
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
    if format.name == "flaxgen":
        return path
    for row in format.rows:
        layer = row.sets(path)
        if layer is not None:
            return row.name(layer)
    return path
