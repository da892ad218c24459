"""What a conversion will do, known before a byte of the tensors is read."""

import dataclasses
import pathlib
from typing import Any

from convert import layouts, matching, vocabulary
from convert.formats import flaxgen as folder
from convert.formats.table import Card, Format
from convert.source import Source
from convert.widened import Widened
from flaxgen import errors, tensors
from flaxgen.models import int8
from flaxgen.models import vocabulary as maps

DTYPES = {name: tensors.DTYPES[code] for name, code in (("float32", "F32"), ("bfloat16", "BF16"), ("float16", "F16"))}
Ids = tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """From a source, understood, to the tensors of a target."""

    source: Source
    match: matching.Match
    to: Format
    card: Card
    foreign_json: dict
    outputs: tuple[layouts.Output, ...]
    vocabulary: vocabulary.Vocabulary | None
    notes: tuple[str, ...]
    kept: maps.Kept | None

    @property
    def bytes_in(self) -> int:
        names = {part.name for output in self.outputs for part in output.parts}
        return sum(self.source.variables[name].size for name in names)

    @property
    def bytes_out(self) -> int:
        return sum(output.size for output in self.outputs)

    @property
    def peak(self) -> int:
        return layouts.peak(self.source, list(self.outputs), tensors.CHUNK) + self.source.held


def words(source: Source, match: matching.Match, vocab: pathlib.Path | None) -> vocabulary.Vocabulary | None:
    """The vocabulary of a source: the one that is named, or that lies beside it."""
    section = (source.json("config.json") or {}).get("text") if match.format.name == "flaxgen" else None
    return vocabulary.find(source.folder, vocab, section, match.card.config.vocab)


def make(source: Source, match: matching.Match, to: Format, dtype: str | None, found: vocabulary.Vocabulary | None,
         kept: maps.Kept | None = None) -> Plan:  # fmt: skip
    """The plan, or a Mismatch when the target's format cannot hold this model. kept: the map of a trimmed vocabulary."""
    config = match.card.config
    end, notes = _end(match.card.end, found, config)
    card = Card(config, end)
    _check_holds(to, config, dtype)
    notes = (*match.card.notes, *notes)
    if isinstance(source, Widened):
        notes = (*notes, f"{len(source.numbers)} int8 tensors of SOURCE are read as float32")
    try:
        foreign_json = to.write(card)
    except ValueError as error:
        raise errors.Mismatch(f"--to {to.name}: {error}. Choose another target") from error
    if dtype == "int8":
        foreign_json = foreign_json | {"weights": "int8"}
    return Plan(source, match, to, card, foreign_json, _outputs(source, match, to, dtype), found, notes, kept)


def _end(said: Ids, found: vocabulary.Vocabulary | None, config: Any) -> tuple[Ids, tuple[str, ...]]:
    """The tokens that end a text, by the source's JSON or by the vocabulary, and what there is to say about them."""
    if said is not None and max(said, default=0) >= config.vocab:
        return None, (f"end token {list(said)} is not in a vocabulary of {config.vocab:,}: left out, a text ends by its length",)
    return said if said is not None or found is None else found.end, ()


def _check_holds(to: Format, config: Any, dtype: str | None) -> None:
    problems = [f"--dtype int8 is for flaxgen folders; {to.name} holds floating-point numbers"] * (dtype == "int8" and to.name != "flaxgen")
    problems += to.problems(config) if to.name != "flaxgen" else []
    if problems:
        raise errors.Mismatch(errors.listing(f"--to {to.name} cannot hold this model", problems, "Choose another target"))


def _outputs(source: Source, match: matching.Match, to: Format, dtype: str | None) -> tuple[layouts.Output, ...]:
    """Every tensor of the target, in the order of its container."""
    config = match.card.config
    wanted = config.shapes()
    most = max(config.layers, getattr(config, "decoder_layers", 0))
    outputs, problems = [], []
    for row in folder.rows(config) if to.name == "flaxgen" else to.rows:
        for layer in range(most if row.layered else 1):
            paths = row.ours(layer)
            if paths[0] not in wanted:
                continue
            parts = tuple(_part(path, match.origins[path], wanted) for path in paths)
            kinds = {source.variables[part.name].dtype for part in parts}
            if dtype is None and (len(kinds) > 1 or kinds - set(DTYPES.values())):
                problems.append(f"{row.name(layer)!r} is made of {', '.join(sorted(map(str, kinds)))}")
            kind = DTYPES["float32" if dtype == "int8" else dtype] if dtype else next(iter(kinds))
            shape = row.shape([part.shape for part in parts])
            output = layouts.Output(to.written(row.name(layer), config), kind, shape, row.layout, parts)
            outputs += layouts.coded(output) if dtype == "int8" and int8.coded(paths[0]) else [output]
    _check_complete(to, wanted, outputs)
    if problems:
        raise errors.Mismatch(errors.listing(f"{source.path}: --dtype has to be said", problems, f"Choose one of {', '.join(DTYPES)}"))
    if to.container == "bundle":
        return tuple(sorted(outputs, key=lambda output: output.name.encode()))
    order = {path: place for place, path in enumerate(wanted)}
    return tuple(sorted(outputs, key=lambda output: order[output.parts[0].path]))


def _check_complete(to: Format, wanted: dict[str, tuple[int, ...]], outputs: list[layouts.Output]) -> None:
    """Every tensor of the model has its place in the target; those of layers that share one are compared when it is written."""
    placed = {part.path for output in outputs for part in output.parts}
    copies = {path for row in to.rows if row.shared for path in wanted if row.sets(path) is not None}
    lost = sorted(wanted.keys() - placed - copies)
    if lost:
        problems = [f"it has no place for {path} {list(wanted[path])}" for path in lost]
        raise errors.Mismatch(errors.listing(f"--to {to.name} cannot hold this model", problems, "Choose another target"))


def _part(path: str, origin: matching.Origin, wanted: dict[str, tuple[int, ...]]) -> layouts.Part:
    start = origin.number * wanted[path][0]
    return layouts.Part(path, origin.name, origin.row.layout, wanted[path], start, origin.of == 1)
