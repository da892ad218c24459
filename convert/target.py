"""TARGET: written whole into a sibling folder and renamed, or not at all."""

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np

from convert import ahead, layouts, matching, source
from convert.bundle import write as bundle
from convert.plan import Plan
from flaxgen import errors, folders, tensors

PREFIX = "model.ckpt"
MARKS = ("config.json", "hparams.json", "checkpoint", tensors.SINGLE)


def check(target: pathlib.Path, origin: pathlib.Path, force: bool) -> None:
    """Refuse a target that must not be written: it exists without --force, is no converted model, or holds the source."""
    target, origin = pathlib.Path(os.path.abspath(target)), pathlib.Path(os.path.abspath(origin))
    if origin.resolve().is_relative_to(target.resolve()):
        raise errors.Mismatch(f"{target}: holds the source itself ({origin}); choose another target")
    if not os.path.lexists(target):
        return
    if not force:
        raise errors.Mismatch(f"{target}: exists already, and is left alone. Choose another name, or say --force to replace it")
    if target.is_symlink() or not target.is_dir():
        raise errors.Unsafe(f"{target}: not a folder; --force replaces folders that hold a converted model. Remove it yourself")
    inside = list(target.iterdir())
    if inside and (any(path.is_dir() for path in inside) or not any((target / mark).is_file() for mark in MARKS)):
        raise errors.Unsafe(f"{target}: does not look like a converted model (folders inside, or none of {', '.join(MARKS)}), so --force "
                            "does not replace it. Remove it yourself, or choose another target")  # fmt: skip


def write(plan: Plan, target: pathlib.Path, *, force: bool, verify: bool, progress: Callable[[int], None]) -> dict[str, str]:
    """Carry the plan out. progress is told of bytes written, and of bytes read again; digests come back where verify asks for them."""
    _check_space(target, plan.bytes_out)
    press = layouts.Press(plan.source)
    _check_copies(plan)
    _check_constants(plan)
    digests: dict[str, str] = {}
    with folders.staged(target, force=force) as work:
        entries = [(output.name, output.dtype, output.shape) for output in plan.outputs]
        with contextlib.closing(ahead.ahead(_stream(plan, press), layouts.KEPT - 3)) as stream:
            noted = digests if verify else None
            _write_tensors(plan, work, entries, (_watched(stream, output, progress, noted) for output in plan.outputs))
        _write_papers(plan, work)
        if verify:
            _verify(plan, work, digests, progress)
    return digests


def _write_tensors(plan: Plan, work: pathlib.Path, entries, arrays) -> None:
    if plan.to.container == "bundle":
        bundle.write(work / PREFIX, entries, arrays)
    else:
        tensors.write(work / tensors.SINGLE, entries, arrays, {"format": "flaxgen-1" if plan.to.name == "flaxgen" else "pt"})


def _stream(plan: Plan, press: layouts.Press) -> Iterator[np.ndarray | None]:
    """The pieces of all outputs, None after each output's last."""
    for output in plan.outputs:
        yield from press.pieces(output)
        yield None


def _watched(stream: Iterator[np.ndarray | None], output: layouts.Output, progress, digests: dict[str, str] | None) -> Iterator[np.ndarray]:
    digest = hashlib.sha256()
    while (piece := next(stream)) is not None:
        if digests is not None:
            digest.update(piece.view(np.uint8))
        yield piece
        progress(piece.nbytes)
    if digests is not None:
        digests[output.name] = digest.hexdigest()


def _verify(plan: Plan, work: pathlib.Path, digests: dict[str, str], progress) -> None:
    """Read the target from the disk again, as a stranger would, and compare every tensor with what was meant to be written."""
    for path in work.iterdir():
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # or the page cache would answer for the disk
        finally:
            os.close(file)
    again = source.open_source(work)
    problems = [f"tensor {name!r} is missing" for name in digests.keys() - again.variables.keys()]
    for output in plan.outputs:
        digest = hashlib.sha256()
        for piece in again.chunks(output.name) if output.name in again.variables else ():
            digest.update(piece.view(np.uint8))
            progress(piece.nbytes)
        if digest.hexdigest() != digests[output.name]:
            found, wanted = digest.hexdigest()[:16], digests[output.name][:16]
            problems.append(f"tensor {output.name!r} reads back as sha256 {found}…, written was {wanted}…")
    if problems:
        raise errors.Corrupt(errors.listing("what was written does not read back", problems, "Check the disk; nothing was kept"))


def _check_space(target: pathlib.Path, size: int) -> None:
    folder = pathlib.Path(os.path.abspath(target)).parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size * 1.01 + 1_000_000:
        raise errors.TooLarge(f"{folder}: {free:,} bytes are free, the target takes {size:,}. Make room, or choose another disk")


def _check_copies(plan: Plan) -> None:
    """What the file carries twice must be equal bit by bit, and what the target has once for all layers must be equal in all of them."""
    for name, path in plan.match.copies.items():
        held = plan.match.origins[path].name
        if not _equal(plan, name, held):
            raise errors.Mismatch(f"{plan.source.path}: tensor {name!r} differs from {held!r}, which this model reads in its place (a "
                                  "head that is tied to the embedding). This model cannot be converted")  # fmt: skip
    for row in plan.to.rows if plan.card.config.layers > 1 else ():
        paths = [path for layer in range(plan.card.config.layers) for path in row.ours(layer)] if row.shared else []
        names = [plan.match.origins[path].name for path in paths if path in plan.match.origins]
        for name in names[1:]:
            if name != names[0] and not _equal(plan, names[0], name):
                raise errors.Mismatch(f"{plan.source.path}: tensors {names[0]!r} and {name!r} differ, and {plan.to.name} has one for all "
                                      "layers. Choose another target")  # fmt: skip


def _check_constants(plan: Plan) -> None:
    """Tables that the originals compute and never train are what flaxgen computes, to the precision of their type."""
    for name, drop in plan.match.dropped.items():
        if drop.constant is None:
            continue
        variable = plan.source.variables[name]
        wanted = drop.constant(tuple(variable.shape)) if variable.dtype in matching.FLOATS else None
        if wanted is not None:
            found = np.empty(wanted.size, variable.dtype)
            plan.source.read_into(name, found)
            rounding = 1e-6 if variable.dtype.itemsize >= 4 else 0.01
        if wanted is None or not np.allclose(found.astype(np.float32), wanted.reshape(-1), rtol=0, atol=rounding):
            raise errors.Mismatch(f"{plan.source.path}: tensor {name!r} {list(variable.shape)} does not hold {drop.why}, which flaxgen "
                                  "computes. This model cannot be converted")  # fmt: skip


def _equal(plan: Plan, name: str, other: str) -> bool:
    one, two = plan.source.variables[name], plan.source.variables[other]
    if tuple(one.shape) != tuple(two.shape) or one.dtype != two.dtype:
        return False
    pairs = zip(plan.source.chunks(name), plan.source.chunks(other), strict=True)
    return all(np.array_equal(first.view(np.uint8), second.view(np.uint8)) for first, second in pairs)


def _write_papers(plan: Plan, work: pathlib.Path) -> None:
    """The JSON, the vocabulary and the README beside the tensors."""
    card = dict(plan.foreign_json)
    if plan.vocabulary is not None:
        section = plan.vocabulary.text.save(work)
        for ours, theirs in plan.to.vocabulary.items():
            if (work / ours).exists():
                (work / ours).rename(work / theirs)
    if plan.kept is not None:
        plan.kept.save(work)
    if plan.to.name == "flaxgen":
        card["text"] = None if plan.vocabulary is None else section | {"reserved": plan.vocabulary.reserved}
        card["source"] = _origin(plan)
    text = plan.to.render(card) if plan.to.render else json.dumps(card, ensure_ascii=False, indent=1) + "\n"
    (work / plan.to.json_name).write_text(text, encoding="utf-8")
    (work / "README.md").write_text(_readme(plan), encoding="utf-8")


def _origin(plan: Plan) -> dict:
    """Where the model came from, without a path of this machine."""
    return {"format": plan.match.format.name, "kind": plan.source.kind, "name": plan.source.path.name,
            "dropped": len(plan.match.dropped), "converted": datetime.date.today().isoformat(), "by": f"flaxgen {_version()}"}  # fmt: skip


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("flaxgen")
    except importlib.metadata.PackageNotFoundError:
        return "from a checkout"


def _readme(plan: Plan) -> str:
    what = "ids only: no vocabulary was at hand" if plan.vocabulary is None else plan.vocabulary.said
    return (f"# {plan.source.path.name}\n\nConverted by {_origin(plan)['by']} on {_origin(plan)['converted']} from "
            f"{plan.match.format.title} ({plan.source.kind} `{plan.source.path.name}`) to {plan.to.title}.\n\n"
            f"- tensors: {len(plan.outputs):,}, {plan.bytes_out:,} bytes; left behind: {len(plan.match.dropped):,}\n"
            f"- vocabulary: {what}\n")  # fmt: skip
