"""Documents of a corpus as a stream: text, JSON lines and gpt2-ml's TFRecords, in files, folders and weighted mixtures.

data=novel.txt                       one file
data=corpus                          a folder: every .jsonl, .json, .txt, .text, .tfrecord and .tfrecords below it
data='news-*.jsonl wiki'             several, in proportion to their sizes
data='a.jsonl*0.7 b.txt*0.3'         seven rows of ten from a, three from b
"""

import codecs
import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from train import progress, tfrecords

KINDS = {".jsonl": "jsonl", ".json": "jsonl", ".txt": "text", ".text": "text", ".tfrecord": "tfrecord", ".tfrecords": "tfrecord"}
LINE = 1 << 28  # bytes; one longer line is no text
DOCUMENT = 1 << 22  # characters; a longer text is cut where a line ends, so that it need not be in memory whole

Note = Callable[[int], None]  # is told how many bytes were read

_weighted = re.compile(r"(.+)\*([0-9]+\.?[0-9]*|\.[0-9]+)")


@dataclasses.dataclass(frozen=True)
class Source:
    """The files of one part of data=, and its share of the rows; None where no part has one."""

    name: str
    files: tuple[pathlib.Path, ...]
    weight: float | None


def quiet(size: int) -> None:
    """A Note that nobody reads."""


def sources(data: str | os.PathLike) -> tuple[Source, ...]:
    """What data= names: files, folders and patterns between blanks, each with `*weight` or none of them."""
    words = os.fspath(data)
    parts = [words] if os.path.exists(words) else words.split()
    found = []
    for part in parts or [""]:
        match = None if os.path.exists(part) else _weighted.fullmatch(part)
        name, weight = (match[1], float(match[2])) if match else (part, None)
        if weight == 0:
            raise ValueError(f"data: {part!r} has the weight 0; leave it out, or give it a weight above 0")
        found.append(Source(name, _files(name), weight))
    bare = [source.name for source in found if source.weight is None]
    if bare and len(bare) < len(found):
        raise ValueError(f"data: {', '.join(bare)} without a weight beside others that have one; write for example {bare[0]}*0.5")
    return tuple(found)


def documents(data: str | os.PathLike) -> Iterator[str]:
    """The texts of all documents of all files that data= names, one after the other."""
    for source in sources(data):
        for path in source.files:
            if kind(path) == "tfrecord":
                raise ValueError(f"{path} holds token ids, no text; name the folder of the model whose vocabulary they are of")
            yield from texts(path)


def sequences(
    source: Source, encode: Callable[[str], list[int]], end: int | None, *, vocab: int, shortest: int = 0, note: Note = quiet
) -> Iterator[np.ndarray]:
    """The int32 ids of each document of more than `shortest` tokens, with `end` behind them.

    end None, and ids that a TFRecord may have cut off, get no end. Ids from `vocab` on are a ValueError.
    """
    for path in source.files:
        found = tfrecords.documents(path, note) if kind(path) == "tfrecord" else ((encode(text), True) for text in texts(path, note))
        for number, (ids, whole) in enumerate(found, 1):
            if len(ids) <= shortest:
                continue
            ids = np.asarray(ids, np.int64)
            if whole and end is not None:
                ids = np.append(ids, end)
            if ids.min() < 0 or ids.max() >= vocab:
                wrong = ids[(ids < 0) | (ids >= vocab)][0]
                raise ValueError(f"{path} document {number}: token id {wrong}, wanted 0 to {vocab - 1}; it is of another vocabulary")
            yield ids.astype(np.int32)


def size(sources: Sequence[Source]) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for source in sources for path in source.files)


def stamps(sources: Sequence[Source]) -> list[tuple[int, int]]:
    """Size and time of each file, which tell whether it was written to meanwhile."""
    return [(path.stat().st_size, path.stat().st_mtime_ns) for source in sources for path in source.files]


def digest(sources: Sequence[Source], facts: dict) -> str:
    """sha256 of every file's bytes in their order, of kinds and weights, and of `facts`; names and folders do not matter."""
    parts = []
    with progress.shown("digest of the corpus", size(sources)) as note:
        for source in sources:
            parts.append([source.weight, [[kind(path), _sha256(path, note)] for path in source.files]])
    return hashlib.sha256(json.dumps([parts, facts], sort_keys=True).encode()).hexdigest()


def _sha256(path: pathlib.Path, note: Note) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
            note(len(part))
    return found.hexdigest()


def texts(path: pathlib.Path, note: Note = quiet) -> Iterator[str]:
    """The documents of a file: the field "text" of each JSON line; of any other text the paragraphs between empty lines.

    Where no empty line parts a text, each of its lines is a document.
    """
    return _json(path, note) if kind(path) == "jsonl" else _paragraphs(path, note)


def kind(path: pathlib.Path) -> Literal["jsonl", "text", "tfrecord"]:
    """What a file holds, by its name's end; under another name text that begins with { is JSON lines."""
    if path.suffix.lower() in KINDS:
        return KINDS[path.suffix.lower()]
    with open(path, "rb") as file:
        return "jsonl" if file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{") else "text"


def _files(name: str) -> tuple[pathlib.Path, ...]:
    path = pathlib.Path(name).expanduser()
    if name and os.path.isdir(path):
        below = (found for found in path.rglob("*") if found.suffix.lower() in KINDS and found.is_file())
        files = sorted(found for found in below if not any(part.startswith(".") for part in found.relative_to(path).parts))
        wanted = f"a folder with {', '.join(KINDS)} files"
    else:
        matches = [path] if os.path.isfile(path) else map(pathlib.Path, glob.glob(str(path), recursive=True))
        files = sorted(found for found in matches if name and found.is_file())
        wanted = 'a .jsonl with a field "text", or text with empty lines between documents'
    if not files:
        raise ValueError(
            f"no data at {name}; give data=FILE (and dev=FILE, or dev= for none), {wanted}. "
            "Verse comes from `python -m train prepare-poetry`"
        )
    return tuple(files)


def _json(path: pathlib.Path, note: Note) -> Iterator[str]:
    for number, line in _lines(path, note):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
            text.encode()  # half a surrogate pair cannot be, nor can what is no str
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f'{path} line {number}: wanted a JSON object with a field "text", got {line[:60]!r}') from None
        yield text


def _paragraphs(path: pathlib.Path, note: Note) -> Iterator[str]:
    every = not _parted(path)
    part: list[str] = []
    size = 0
    for _, line in _lines(path, note):
        blank = not line.strip()
        if part and (blank or every or size + len(line) > DOCUMENT):
            yield "\n".join(part).strip()
            part, size = [], 0
        if not blank:
            part.append(line)
            size += len(line)
    if part:
        yield "\n".join(part).strip()


def _parted(path: pathlib.Path) -> bool:
    """Whether an empty line stands between two that are not."""
    before = gap = False
    for _, line in _lines(path, quiet):
        if not line.strip():
            gap = before
        elif gap:
            return True
        else:
            before = True
    return False


def _lines(path: pathlib.Path, note: Note) -> Iterator[tuple[int, str]]:
    """(number, line) of a UTF-8 file, without a byte order mark and whatever ends a line: LF, CR LF or CR."""
    with open(path, "rb") as file:
        offset = number = 0
        while raw := file.readline(LINE + 1):
            number += 1
            if len(raw) > LINE:
                raise ValueError(f"{path} line {number}: longer than {LINE:,} bytes; wanted text in lines")
            try:
                text = raw.removeprefix(codecs.BOM_UTF8 if not offset else b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(_encoding(path, number, offset + error.start, raw)) from None
            offset += len(raw)
            note(len(raw))
            yield from ((number, line) for line in text.removesuffix("\n").removesuffix("\r").split("\r"))


def _encoding(path: pathlib.Path, number: int, byte: int, raw: bytes) -> str:
    head = f"{path} line {number}: not UTF-8 at byte {byte:,}"
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "UTF-16"
    else:
        try:
            raw.decode("gb18030")
        except UnicodeDecodeError:
            return f"{head}, nor GB18030. The file is damaged, or in another encoding: write it again as UTF-8"
        name = "GB18030"
    return f"{head}; perhaps {name}. Convert it: iconv -f {name} -t UTF-8 {path} > {path.with_suffix('.utf8' + path.suffix)}"
