"""Name -> where it lies, of a bundle's tensors; and one tensor at a time, its checksum verified."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from convert.bundle import messages, sorted_table
from flaxgen import disk, errors, tensors

INDEX_LIMIT, NAME_LIMIT = 100_000_000, 1024
AGAIN = "The bundle is damaged: fetch or save it again"


@dataclasses.dataclass(frozen=True)
class Sliced:
    """A partitioned variable: its slices, and where each starts."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    slices: tuple[tuple[tuple[int, ...], tensors.Entry], ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Opaque:
    """A tensor of a kind that holds no numbers of ours; it can be named, not read."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


Variable = tensors.Entry | Sliced | Opaque


def index(prefix: pathlib.Path) -> dict[str, Variable]:
    """Every variable of the bundle `prefix`.index and its shards; their sizes are checked against the files, no data is read."""
    path = prefix.with_name(prefix.name + ".index")
    with disk.opened(path) as file:
        size = os.fstat(file).st_size
        if size > INDEX_LIMIT:
            raise errors.TooLarge(f"{path}: {size:,} bytes; at most {INDEX_LIMIT:,} are read")
        raw = np.empty(size, np.uint8)
        disk.fill(file, raw, 0, path, "the index")
    try:
        items = dict(sorted_table.items(raw.tobytes()))
    except ValueError as error:
        raise errors.Corrupt(f"{path}: {error}. {AGAIN}") from error
    if b"" not in items:
        raise errors.Corrupt(f"{path}: the entry with the bundle's header is missing. {AGAIN}")
    header = _parsed(messages.header, items.pop(b""), path, "the header")
    if header.big_endian:
        raise errors.Mismatch(f"{path}: written on a big-endian machine; only little-endian bundles are read")
    files = _Shards(prefix, header.shards)
    found = {key: _parsed(messages.record, value, path, f"entry {key[:80]!r}") for key, value in items.items()}
    variables, used = {}, set()
    for key, record in found.items():
        if key.startswith(b"\0"):
            continue  # one slice of a partitioned variable, taken with it
        name = _name(key, path)
        if record.slices:
            variables[name] = _sliced(name, key, record, found, used, files, path)
        else:
            variables[name] = _entry(name, record, files, path)
    lost = [key for key in found if key.startswith(b"\0") and key not in used]
    if lost:
        raise errors.Corrupt(errors.listing(f"{path}: slices that no variable speaks of", [repr(key[:80]) for key in lost], AGAIN))
    return variables


def chunks(variable: Variable) -> Iterator[np.ndarray]:
    """The variable's elements in flat pieces, each overwritten by the next; Corrupt at the end when the checksum differs."""
    if isinstance(variable, Opaque):
        raise errors.Mismatch(f"tensor {variable.name!r} is of kind {variable.dtype}, which is not read")
    return iter([read(variable).reshape(-1)]) if isinstance(variable, Sliced) else tensors.chunks(variable)


def read(variable: tensors.Entry | Sliced) -> np.ndarray:
    """One variable in a fresh array."""
    array = np.empty(variable.shape, variable.dtype)
    read_into(variable, array.reshape(-1))
    return array


def read_into(variable: tensors.Entry | Sliced, flat: np.ndarray) -> None:
    """Fill a flat array with a variable's elements; a partitioned one is put together."""
    if not isinstance(variable, Sliced):
        tensors.read_into(variable, flat)
        return
    array = flat.reshape(variable.shape)
    for start, entry in variable.slices:
        array[tuple(slice(begin, begin + length) for begin, length in zip(start, entry.shape, strict=True))] = tensors.read(entry)


class _Shards:
    """The data files of a bundle and their sizes, looked up once."""

    def __init__(self, prefix: pathlib.Path, count: int):
        self.prefix, self.count = prefix, count
        self.sizes: dict[int, int] = {}

    def path(self, number: int) -> pathlib.Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{number:05d}-of-{self.count:05d}")

    def size(self, number: int) -> int:
        if number not in self.sizes:
            with disk.opened(self.path(number)) as file:
                self.sizes[number] = os.fstat(file).st_size
        return self.sizes[number]


def _parsed(parse, raw: bytes, path: pathlib.Path, what: str):
    try:
        return parse(raw)
    except ValueError as error:
        raise errors.Corrupt(f"{path}: {what}: {error}. {AGAIN}") from error


def _name(key: bytes, path: pathlib.Path) -> str:
    if len(key) > NAME_LIMIT:
        raise errors.TooLarge(f"{path}: a variable's name has {len(key):,} bytes; at most {NAME_LIMIT:,} are read")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise errors.Corrupt(f"{path}: the name {key[:80]!r} is not text. {AGAIN}") from error


def _entry(name: str, record: messages.Record, files: _Shards, path: pathlib.Path) -> tensors.Entry | Opaque:
    if record.shard >= files.count:
        raise errors.Corrupt(f"{path}: tensor {name!r} lies in shard {record.shard} of {files.count}. {AGAIN}")
    held = files.size(record.shard)
    if record.offset + record.size > held:
        end = record.offset + record.size
        raise errors.Incomplete(f"{files.path(record.shard)}: tensor {name!r} ends at byte {end:,}, the file at {held:,}. "
                                "It is cut off: fetch or save it again")  # fmt: skip
    if record.dtype in messages.OTHERS:
        return Opaque(name, messages.OTHERS[record.dtype], record.shape, record.size)
    if record.dtype not in messages.DTYPES:
        raise errors.Corrupt(f"{path}: tensor {name!r} has dtype number {record.dtype}, which TensorFlow does not have. {AGAIN}")
    dtype = messages.DTYPES[record.dtype]
    if math.prod(record.shape) * dtype.itemsize != record.size or math.prod(max(axis, 1) for axis in record.shape) >= 1 << 60:
        raise errors.Corrupt(f"{path}: tensor {name!r} {dtype} {list(record.shape)} has {record.size:,} bytes. {AGAIN}")
    crc = sorted_table.unmasked(record.masked_crc)
    return tensors.Entry(name, dtype, record.shape, files.path(record.shard), record.offset, crc)


def _sliced(name: str, key: bytes, record: messages.Record, found: dict[bytes, messages.Record], used: set[bytes],
            files: _Shards, path: pathlib.Path) -> Sliced:  # fmt: skip
    if record.dtype not in messages.DTYPES:
        raise errors.Corrupt(f"{path}: partitioned variable {name!r} has dtype number {record.dtype}. {AGAIN}")
    slices = []
    for extents in record.slices:
        if len(extents) != len(record.shape):
            raise errors.Corrupt(f"{path}: a slice of {name!r} has {len(extents)} axes, the variable {len(record.shape)}. {AGAIN}")
        starts = tuple(start for start, _ in extents)
        shape = tuple(axis if length == messages.FULL else length for (_, length), axis in zip(extents, record.shape, strict=True))
        part_key = messages.slice_key(key, extents)
        if part_key not in found:
            raise errors.Corrupt(f"{path}: the slice of {name!r} that starts at {list(starts)} is missing. {AGAIN}")
        used.add(part_key)
        part = _entry(name, found[part_key], files, path)
        if part.shape != shape or found[part_key].dtype != record.dtype or found[part_key].slices:
            what = f"{part.dtype} {list(part.shape)}, not {list(shape)}"
            raise errors.Corrupt(f"{path}: the slice of {name!r} that starts at {list(starts)} is {what}. {AGAIN}")
        slices.append((starts, part))
    _check_cover(name, record.shape, slices, path)
    return Sliced(name, messages.DTYPES[record.dtype], record.shape, tuple(slices))


def _check_cover(name: str, shape: tuple[int, ...], slices, path: pathlib.Path) -> None:
    """Slices inside the variable, pairwise apart and as many elements in all: then they cover it exactly."""
    boxes = [[(start, start + length) for start, length in zip(starts, entry.shape, strict=True)] for starts, entry in slices]
    inside = all(start >= 0 and end <= axis for box in boxes for (start, end), axis in zip(box, shape, strict=True))
    apart = all(
        any(end <= other or other_end <= start for (start, end), (other, other_end) in zip(box, before, strict=True))
        for number, box in enumerate(boxes) for before in boxes[:number]
    )  # fmt: skip
    if not inside or not apart or sum(math.prod(entry.shape) for _, entry in slices) != math.prod(shape):
        raise errors.Corrupt(f"{path}: the {len(slices)} slices of {name!r} do not cover its shape {list(shape)} exactly once. {AGAIN}")
