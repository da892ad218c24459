"""Which format a source is in: the one whose rows take the most of its tensors and lack the least."""

import dataclasses
import pathlib
from typing import Any

from convert import formats
from convert.formats import flaxgen as folder
from convert.formats.table import Drop, Format, Own, Row
from convert.source import Source
from flaxgen import errors
from flaxgen.models import presets

TOKENS = "embed/token/embedding"
# Parts that a model may lack: their tensors say whether it has them.
OPTIONAL = ("embed/segment/", "embed/map/", "mlm/", "pool/", "nsp/", "discriminator/", "map_out/", "head/")


@dataclasses.dataclass(frozen=True)
class Taken:
    """What the rows of one format take of the source's names."""

    format: Format
    rows: list[tuple[Row, int, str]]
    dropped: dict[str, Drop]
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


def take(source: Source, format: Format) -> Taken:
    if format.name == "flaxgen":
        return Taken(format, [(Own(name, (name,)), 0, name) for name in source.variables], {}, {}, [])
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
        drop = next((drop for base in (name, *format.bases(name)) for drop in format.drops if drop.takes(base, known)), None)
        if drop:
            dropped[name] = drop
        else:
            untaken.append(name)
    return Taken(format, rows, dropped, copies, untaken)


def _promote(format: Format, rows: list[tuple[Row, int, str]], copies: dict[str, str]) -> None:
    """A copy whose original is not there takes its place."""
    held = {row.paths for row, _, _ in rows}
    for name, path in list(copies.items()):
        if (path,) not in held:
            rows.append((next(row for row in format.rows if row.paths == (path,)), 0, name))
            held.add((path,))
            del copies[name]


def choose(source: Source, model: str | None) -> Taken:
    """The format that takes the most; --model decides between several, and is believed where none shows itself."""
    if model in formats.FORMATS:
        taken = take(source, formats.FORMATS[model])
        if not taken.rows:
            raise errors.Mismatch(f"{source.path}: --model {model} takes none of its tensors ({_some(source)})")
        return taken
    own = _own(source)
    every = [format for format in formats.FORMATS.values() if not format.asked and own == (format.name == "flaxgen")]
    if model is not None:
        every = [format for format in every if own or not format.problems(presets.PRESETS[model])]
    fits = _best(source, [take(source, format) for format in every if own or _anchored(source, format)])
    if len(fits) > 1:
        names = ", ".join(each.format.name for each in fits)
        raise errors.Mismatch(f"{source.path}: {len(fits)} models fit its tensors: {names}. Choose one with --model NAME")
    if fits:
        return fits[0]
    best = max((take(source, format) for format in every), key=lambda each: len(each.rows), default=None)
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


def _best(source: Source, fits: list[Taken]) -> list[Taken]:
    """Those that no other beats: by taking all that they take and more, or the same and lacking less; then by what the JSON says."""

    def beats(one: Taken, other: Taken) -> bool:
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
