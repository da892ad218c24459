"""A source whose token tables are made smaller as they are read, or full again: --keep and --restore."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from convert import matching, vocabulary
from convert.source import Source
from flaxgen import disk, errors
from flaxgen.models import config as sizes
from flaxgen.models import vocabulary as maps

SIMPLIFIED = "simplified"
LIMIT = 20_000_000


@dataclasses.dataclass(frozen=True)
class Tables(Source):
    """A source in which some variables, those with a row for each token, are others'. axes: variable -> the axis of its tokens."""

    base: Source
    kept: maps.Kept
    axes: dict[str, int]

    @property
    def held(self) -> int:
        return 2 * max((self.base.variables[name].size for name in self.axes), default=0)

    def chunks(self, name: str) -> Iterator[np.ndarray]:
        if name in self.axes:
            return iter([self.changed(name).reshape(-1)])
        return self.base.chunks(name)

    def read_into(self, name: str, flat: np.ndarray) -> None:
        if name in self.axes:
            flat[:] = self.changed(name).reshape(-1)
        else:
            self.base.read_into(name, flat)

    def changed(self, name: str) -> np.ndarray:
        table = _read(self.base, name, self.axes[name])
        return np.ascontiguousarray(np.moveaxis(self.kept.trim(table), 0, self.axes[name]))


@dataclasses.dataclass(frozen=True)
class Whole(Tables):
    """A trimmed source over the full vocabulary again. others: variable -> that of `full` and its axis of tokens."""

    full: Source
    others: dict[str, tuple[str, int]]

    @property
    def held(self) -> int:
        return 3 * max((self.full.variables[name].size for name, _ in self.others.values()), default=0)

    def changed(self, name: str) -> np.ndarray:
        table = self.kept.restore(_read(self.base, name, self.axes[name]), _read(self.full, *self.others[name]))
        return np.ascontiguousarray(np.moveaxis(table, 0, self.axes[name]))


def _read(source: Source, name: str, axis: int) -> np.ndarray:
    """A variable with its tokens first."""
    variable = source.variables[name]
    table = np.empty(variable.shape, variable.dtype)
    source.read_into(name, table.reshape(-1))
    return np.moveaxis(table, axis, 0)


def wish(named: pathlib.Path, rows: int, found: vocabulary.Vocabulary | None) -> maps.Kept:
    """What --keep asks for: `simplified`, a text of ids or of entries, one a line, or JSON of ids and compounds."""
    if str(named) == SIMPLIFIED and not named.exists():
        return maps.Kept(rows, tuple(_text(found, "--keep simplified").simplify()[1]))
    if named.suffix == ".json":
        return maps.of_json(disk.load_json(named), named, rows)
    with disk.opened(named) as file, open(file, "rb", closefd=False) as stream:
        raw = stream.read(LIMIT)
    try:
        lines = [line.strip() for line in raw.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise errors.Mismatch(f"{named}: not UTF-8 text; wanted ids or entries of the vocabulary, one a line, or .json") from None
    if lines and all(line.isdecimal() and len(line) < 10 for line in lines):
        return maps.of_json({"ids": [int(line) for line in lines]}, named, rows)
    place = {token: number for number, token in enumerate(_text(found, f"{named} holds entries, so --keep").tokens)}
    absent = [line for line in lines if line not in place]
    if absent:
        raise errors.Mismatch(
            errors.listing(f"{named}: entries that the vocabulary has not", [repr(line) for line in absent], "Remove them")
        )
    return maps.of_json({"ids": [place[line] for line in lines]}, named, rows)


def _text(found: vocabulary.Vocabulary | None, what: str):
    if found is None or found.kind != "wordpiece":
        raise errors.Mismatch(f"{what} needs the model's WordPiece vocabulary; name it with --vocab FILE, or write a file of ids")
    return found.text


def trimmed(source: Source, match: matching.Match, found: vocabulary.Vocabulary | None, kept: maps.Kept):
    """(source, match, vocabulary) of the model with the kept tokens only."""
    if maps.load(source.folder) is not None:
        raise errors.Mismatch(
            f"{source.folder}: was trimmed already ({maps.FILE} lies there); trim the full model, or --restore this one first"
        )
    config = maps.sized(match.card.config, kept)
    axes = _axes(match)
    source = Tables(source.kind, source.path, source.folder, _resized(source, axes, len(kept)), source, kept, axes)
    if found is not None:
        text = kept.text(found.text)
        found = vocabulary.Vocabulary(text, len(kept) - len(text), f"{len(text):,} of {found.said}")
    end = match.card.end and tuple(place for token in match.card.end if (place := kept.place(token)) is not None)
    lost = [token for token in match.card.end or () if kept.place(token) is None]
    notes = (f"{len(kept.ids):,} of {kept.rows:,} tokens are kept, {len(kept.compounds):,} made of them",)
    notes += (f"end tokens {lost} are not kept: a text no longer ends by them",) if lost else ()
    card = dataclasses.replace(match.card, config=config, end=end, notes=(*match.card.notes, *notes))
    return source, dataclasses.replace(match, card=card), found


def whole(source: Source, match: matching.Match, full: Source, full_match: matching.Match):
    """(source, match) of a trimmed model over its full vocabulary again."""
    kept = maps.load(source.folder)
    if kept is None:
        raise errors.Mismatch(
            f"{source.folder}: no {maps.FILE} lies there, so it is not known which tokens were kept; --restore cannot be done"
        )
    config, wanted = match.card.config, maps.sized(full_match.card.config, kept)
    if dataclasses.replace(config, **matching.trained(wanted, ("dropout", "init_range", "application"))) != wanted:
        raise errors.Mismatch(f"{source.folder}: not trimmed from {full.path}: {sizes.differences(config, wanted)}. Name its full model")
    axes, full_axes, others = _axes(match), _axes(full_match), {}
    for path in maps.tables(config):
        name, other = match.origins[path].name, full_match.origins[path].name
        others[name] = (other, full_axes[other])
        if source.variables[name].dtype != full.variables[other].dtype:
            kinds = f"{source.variables[name].dtype}, {other!r} of the full model {full.variables[other].dtype}"
            raise errors.Mismatch(f"tensor {name!r} is {kinds}; convert one of them with --dtype first")
    axes = {name: axis for name, axis in axes.items() if name in others}
    variables = _resized(source, axes, kept.rows)
    source = Whole(source.kind, source.path, source.folder, variables, source, kept, axes, full, others)
    end = None if match.card.end is None else tuple(kept.ids[token] for token in match.card.end if token < len(kept.ids))
    notes = (f"{len(kept.ids):,} tokens of SOURCE, {kept.rows - len(kept.ids):,} of {full.path.name}",)
    config = dataclasses.replace(config, vocab=kept.rows, **({"start": full_match.card.config.start} if hasattr(config, "start") else {}))
    card = dataclasses.replace(match.card, config=config, end=end, notes=(*match.card.notes, *notes))
    return source, dataclasses.replace(match, card=card, copies={})


def _axes(match: matching.Match) -> dict[str, int]:
    """Where the variables that have a row for each token have it."""
    paths = maps.tables(match.card.config)
    named = {match.origins[path].name: match.origins[path].row for path in paths}
    named |= {name: match.origins[path].row for name, path in match.copies.items() if path in paths}
    return {name: 0 if row.layout == "same" else -1 for name, row in named.items()}


def _resized(source: Source, axes: dict[str, int], rows: int) -> dict:
    variables = dict(source.variables)
    for name, axis in axes.items():
        shape = list(variables[name].shape)
        shape[axis] = rows
        variables[name] = dataclasses.replace(variables[name], shape=tuple(shape))
    return variables


def carried(folder: pathlib.Path, rows: int) -> maps.Kept | None:
    """The map that lies beside a source, when it is that of its vocabulary."""
    kept = maps.load(folder)
    if kept is not None and len(kept) != rows:
        raise errors.Mismatch(
            f"{folder / maps.FILE}: is of {len(kept):,} tokens, the model has {rows:,}; put the right one there, or remove it"
        )
    return kept
