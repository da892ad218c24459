"""Plain files, read with suspicion: what a file says is checked before it is believed, and only typed errors come out.

Bytes are read with pread, never memory-mapped: pages of a mapped file count as resident memory.
"""

import contextlib
import json
import os
import pathlib
import stat
from collections.abc import Iterator

import numpy as np

from flaxgen import errors

JSON_LIMIT, OBJECT_LIMIT = 100_000_000, 100_000


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[int]:
    """A file descriptor for reading a plain file; devices and pipes are refused before they can block."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.Incomplete(f"{path}: no such file") from error
    except ValueError as error:  # a NUL in the name
        raise errors.Unsafe(f"{str(path)!r}: not a file name") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise errors.Unsafe(f"{path}: not a plain file, so it is not read")
        yield file
    finally:
        os.close(file)


def load_json(path: pathlib.Path, limit: int = JSON_LIMIT) -> dict:
    """A JSON file that holds an object, with a limit on its size and no key twice."""
    with opened(path) as file:
        size = os.fstat(file).st_size
        if size > limit:
            raise errors.TooLarge(f"{path}: {size:,} bytes; at most {limit:,} are read")
        with open(file, "rb", closefd=False) as stream:
            raw = stream.read(limit)
    return parse_json(raw, path)


def parse_json(raw: bytes, path: pathlib.Path) -> dict:
    """The object that JSON bytes hold; anything else is Corrupt."""
    if raw.count(b"{") + raw.count(b"[") > 3 * OBJECT_LIMIT or raw.count(b",") > 20 * OBJECT_LIMIT:
        raise errors.TooLarge(f"{path}: more JSON than {OBJECT_LIMIT:,} tensors need")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise errors.Corrupt(f"{path}: not valid JSON ({error}). The file is damaged: fetch or save it again") from error
    if not isinstance(value, dict):
        raise errors.Corrupt(f"{path}: holds a JSON {type(value).__name__}, wanted an object")
    return value


def once(pairs: list[tuple[str, object]]) -> dict:
    """For json.loads as object_pairs_hook: the object, or a ValueError where a key appears twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"key {twice[:80]!r} appears twice")
    return result


def _no_constant(name: str):
    raise ValueError(f"{name} is not a JSON number")


def safe_name(name: str, index_path: pathlib.Path) -> str:
    """A file name taken from a file's content: a plain name, and not a link out of the folder."""
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0") or len(name) > 255:
        raise errors.Unsafe(f"{index_path}: names the file {name[:200]!r}; wanted a plain file name without folders")
    with contextlib.suppress(UnicodeEncodeError):
        if not (index_path.parent / name).resolve().is_relative_to(index_path.parent.resolve()):
            raise errors.Unsafe(f"{index_path}: {name!r} is a link that leads out of the folder; put a copy in its place (cp -L)")
        return name
    raise errors.Unsafe(f"{index_path}: names the file {name[:200]!a}, which is not text")


def fill(file: int, piece: np.ndarray, offset: int, path: pathlib.Path, what: str) -> None:
    """Read exactly the bytes that `piece` has room for; Incomplete, naming `what` was to be read, where the file ends before."""
    view, done = memoryview(piece), 0
    while done < len(view):
        got = os.preadv(file, [view[done:]], offset + done)
        if not got:
            end, found = offset + len(view), offset + done
            raise errors.Incomplete(f"{path}: {what} ends at byte {end:,}, the file at {found:,}. It is cut off: fetch or save it again")
        done += got


def put(file: int, raw: np.ndarray) -> None:
    """Write all bytes at the file's end."""
    view, done = memoryview(raw), 0
    while done < len(view):
        done += os.write(file, view[done:])


def sync_folder(folder: pathlib.Path) -> None:
    """Make new names in a folder last."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def replace(path: pathlib.Path, raw: bytes) -> None:
    """A file with these bytes in the place of what lay there, whole or not at all."""
    work = path.with_name(f".{path.name[:60]}.{os.getpid()}")  # short: the longest name allowed has no room for more
    try:
        with open(work, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        work.replace(path)
        sync_folder(path.parent)
    finally:
        work.unlink(missing_ok=True)
