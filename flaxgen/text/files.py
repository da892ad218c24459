"""Vocabulary files: bytes into lines or tables, with named errors that say what to do."""

import hashlib
import json
import pathlib

from flaxgen import disk
from flaxgen.errors import Corrupt, Incomplete, Mismatch, TooLarge

LIMIT = 64 << 20  # the largest vocabularies in use (250,000 pieces) take about 10 MB


def read(path) -> bytes:
    """The bytes of a vocabulary file."""
    path = pathlib.Path(path)
    if path.is_dir():
        raise Incomplete(f"{path} is a folder; wanted the vocabulary file itself: name the file inside it")
    try:
        with disk.opened(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
            data = file.read(LIMIT + 1)
    except Incomplete:
        raise Incomplete(f"there is no vocabulary file {path}; put it there, or name the right path") from None
    except OSError as error:
        raise Incomplete(f"the vocabulary file {path} cannot be read: {error}; check its path and its permissions") from None
    if len(data) > LIMIT:
        raise TooLarge(f"{path} has {path.stat().st_size} bytes, a vocabulary file at most {LIMIT}; name the vocabulary, not the model")
    if not data:
        raise Incomplete(f"{path} is empty; wanted a vocabulary: fetch the file again")
    return data


def lines(path) -> list[str]:
    r"""The lines of a UTF-8 file, without "\n", "\r\n" or a byte order mark.

    Only "\n" ends a line: BERT's vocabulary holds U+2028 as a token, where `str.splitlines` would cut.
    """
    rows = _decoded(path).split("\n")
    if rows[-1] == "":
        rows.pop()
    return [row.removesuffix("\r") for row in rows]


def table(path) -> dict[str, int]:
    """A JSON object of names and ids; the ids are 0 to n - 1, each once."""
    text = _decoded(path)
    try:
        rows = json.loads(text, object_pairs_hook=disk.once)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path} is not the JSON of a vocabulary: {error or 'too deep'}; fetch the file again") from None
    if not isinstance(rows, dict) or not rows:
        raise Mismatch(f'{path} holds {_kind(rows)}, wanted an object {{"token": id, ...}}; name the vocab.json or encoder.json')
    wrong = [f"{name!r}: {value!r}"[:80] for name, value in rows.items() if type(value) is not int]
    if wrong:
        raise Mismatch(f"{path}: {len(wrong)} ids are not whole numbers, first {wrong[0]}; wanted an object of token and id")
    if sorted(rows.values()) != list(range(len(rows))):
        raise Mismatch(f"{path}: the ids of its {len(rows)} tokens are not 0 to {len(rows) - 1}, each once; fetch the file again")
    return rows


def digest(data: bytes) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _decoded(path) -> str:
    data = read(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Corrupt(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x}); name a vocabulary file, or save it again as UTF-8"
        ) from None
    if "\0" in text:
        raise Corrupt(f"{path} holds a NUL at character {text.index(chr(0))}: a binary file, not a vocabulary; name the vocabulary file")
    return text


def _kind(value) -> str:
    return "an empty object" if value == {} else f"a {type(value).__name__}"
