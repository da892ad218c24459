"""A table of rows on disk: written as a stream, read by memory map, every row with its checksum.

A row of the file is T + 1 token ids, for hidden neighbours one bit a place that is set where a document starts, and a crc32c of all that.
Ids are uint16 where the vocabulary allows, with 65535 at empty places, otherwise int32, with -1.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Literal

import google_crc32c
import numpy as np

from flaxgen import disk, errors
from train import packing

EMPTY = -1
FACTS, NEW = "rows.json", "new"

Neighbours = Literal["seen", "hidden"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the bytes of a row mean. width: places, T + 1."""

    width: int
    dtype: str
    neighbours: Neighbours

    @classmethod
    def of(cls, length: int, vocab: int, neighbours: Neighbours) -> "Layout":
        """The layout of rows of `length` inputs whose ids are below `vocab`."""
        if neighbours not in ("seen", "hidden"):
            raise ValueError(f"neighbours={neighbours}: wanted seen or hidden")
        return cls(length + 1, "<u2" if vocab < 1 << 16 else "<i4", neighbours)

    @property
    def ids(self) -> int:
        """Bytes of a row's token ids."""
        return self.width * np.dtype(self.dtype).itemsize

    @property
    def size(self) -> int:
        """Bytes of a row."""
        return self.ids + (-(-self.width // 8) if self.neighbours == "hidden" else 0) + 4

    def pack(self, row: packing.Row) -> bytes:
        """A row's bytes."""
        token_T = np.full(self.width, EMPTY, np.int32)
        token_T[: sum(map(len, row))] = np.concatenate(row)
        raw = token_T.astype(self.dtype).tobytes()  # -1 becomes 65535
        if self.neighbours == "hidden":
            start_T = np.zeros(self.width, bool)
            start_T[np.cumsum([0, *map(len, row[:-1])])] = True
            raw += np.packbits(start_T).tobytes()
        return raw + google_crc32c.value(raw).to_bytes(4, "little")

    def targets(self, row: packing.Row) -> int:
        """How many tokens of a row the loss counts: all but the first of the row, or of each document."""
        return sum(map(len, row)) - (len(row) if self.neighbours == "hidden" else 1)

    def unpack(self, raw_BC: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(int32 token_BT, bool start_BT or None) of rows' bytes."""
        token_BT = np.ascontiguousarray(raw_BC[:, : self.ids]).view(self.dtype).astype(np.int32)
        if self.dtype == "<u2":
            token_BT[token_BT == 0xFFFF] = EMPTY
        if self.neighbours == "seen":
            return token_BT, None
        return token_BT, np.unpackbits(raw_BC[:, self.ids : -4], axis=1, count=self.width).astype(bool)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a source, memory-mapped. raw_RC: their bytes, as `layout` has them. targets: tokens that one pass learns."""

    path: pathlib.Path
    layout: Layout
    raw_RC: np.ndarray
    targets: int

    @classmethod
    def open(cls, path: pathlib.Path, layout: Layout, rows: int, targets: int) -> "Table":
        """The table at `path`; its size is checked, its rows are when they are read."""
        size = path.stat().st_size if path.is_file() else 0
        if size != rows * layout.size:
            raise ValueError(
                f"{path}: {size:,} bytes, wanted {rows:,} rows of {layout.size}. Delete {path.parent}: it is made again from data="
            )
        return cls(path, layout, np.memmap(path, np.uint8, "r", shape=(rows, layout.size)), targets)

    def __len__(self) -> int:
        return len(self.raw_RC)

    def read(self, row_B: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(token_BT, start_BT or None) of the rows asked for; a row that is not as it was written is a ValueError."""
        raw_BC = self.raw_RC[row_B]
        sum_B = np.ascontiguousarray(raw_BC[:, -4:]).view("<u4")[:, 0].tolist()
        for row, raw, wanted in zip(row_B, raw_BC, sum_B, strict=True):
            if google_crc32c.value(raw[:-4]) != wanted:
                raise ValueError(
                    f"{self.path} row {row}: its crc32c differs. The disk lost bits: delete {self.path.parent}, it is made again"
                )
        return self.layout.unpack(raw_BC)


def write(path: pathlib.Path, rows: Iterable[packing.Row], layout: Layout) -> dict[str, int]:
    """Writes a table; gives how many rows it has, and how many targets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = targets = 0
    try:
        with open(path, "wb", buffering=1 << 20) as file:
            for row in rows:
                file.write(layout.pack(row))
                count += 1
                targets += layout.targets(row)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(path)) from None  # a full disk does not say where
    return {"rows": count, "targets": targets}


def place(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Where the table of a source lies."""
    return folder / f"{number:02}.rows"


def fresh(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Where it is written before `commit`."""
    return place(folder / NEW, number)


def facts(folder: pathlib.Path) -> dict:
    """What `commit` wrote, or {} where nothing was committed or it is not whole any more."""
    with contextlib.suppress(errors.CheckpointError):
        found = disk.load_json(folder / FACTS)
        if found.pop("crc32c", None) == _checksum(found):
            return found
    return {}


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Keeps the other processes of this machine out of a folder, which is made, and removes what unfinished tables are left at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks; a job's processes then wait for its first one
            fcntl.flock(file, fcntl.LOCK_EX)
        if (folder / NEW).is_dir():
            shutil.rmtree(folder / NEW)
        yield
    finally:
        shutil.rmtree(folder / NEW, ignore_errors=True)
        os.close(file)


def commit(folder: pathlib.Path, what: dict) -> None:
    """Puts the fresh tables in the place of the old ones; whoever is killed in between leaves a folder without facts."""
    (folder / FACTS).unlink(missing_ok=True)
    disk.sync_folder(folder)
    for old in folder.glob("*.rows"):
        old.unlink()
    for new in sorted((folder / NEW).glob("*.rows")):
        new.replace(folder / new.name)
    whole = folder / NEW / FACTS
    with open(whole, "w", encoding="utf-8") as file:
        json.dump(what | {"crc32c": _checksum(what)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    disk.sync_folder(folder)
    whole.replace(folder / FACTS)
    disk.sync_folder(folder)


def _checksum(what: dict) -> str:
    return f"{google_crc32c.value(json.dumps(what, sort_keys=True).encode()):08x}"
