"""Safetensors files, read with suspicion and written as a stream.

A file is an 8-byte length, a JSON header of that length and the tensors' bytes: https://huggingface.co/docs/safetensors.
Files written here carry a crc32c of the header and of every tensor in their metadata, so that a flipped byte anywhere is found.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import google_crc32c
import ml_dtypes
import numpy as np

from flaxgen import disk, errors

CHUNK = 4 << 20
HEADER_LIMIT, TENSOR_LIMIT, RANK_LIMIT, NAME_LIMIT = 100_000_000, 100_000, 8, 1024
SINGLE, SHARDED = "model.safetensors", "model.safetensors.index.json"
DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64), "I32": np.dtype(np.int32), "I16": np.dtype(np.int16), "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64), "U32": np.dtype(np.uint32), "U16": np.dtype(np.uint16), "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}
_HEADER_CRC, _TENSOR_CRC = "flaxgen.header_crc32c", "flaxgen.crc32c"
_NO_CRC = "00000000"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where one tensor lies. crc is None in files of others, which carry no checksums."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    path: pathlib.Path
    offset: int
    crc: int | None

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def index(path: str | os.PathLike) -> dict[str, Entry]:
    """Name -> entry of every tensor in a file, or in a folder with one file or with shards and their index. Reads headers only."""
    path = pathlib.Path(path)
    if path.is_dir():
        if (path / SINGLE).exists():
            path = path / SINGLE
        elif (path / SHARDED).exists():
            path = path / SHARDED
        else:
            found = sorted(path.glob("*.safetensors"))
            if len(found) != 1:
                names = ", ".join(file.name for file in found) or "none"
                raise errors.Incomplete(f"{path}: wanted {SINGLE}, {SHARDED} or a single *.safetensors file; found {names}. Name the file")
            path = found[0]
    return _shards(path) if path.name.endswith(".json") else _file(path)


def chunks(entry: Entry, size: int = CHUNK) -> Iterator[np.ndarray]:
    """The tensor's elements in flat pieces of about `size` bytes. Each piece is overwritten by the next.

    The checksum is known at the end, so whoever keeps what came before must drop it when the last step raises Corrupt.
    """
    buffer = np.empty(min(entry.size, max(size // 64 * 64, 64)), np.uint8)
    crc, done = 0, 0
    with disk.opened(entry.path) as file:
        while done < entry.size:
            piece = buffer[: min(len(buffer), entry.size - done)]
            disk.fill(file, piece, entry.offset + done, entry.path, f"tensor {entry.name!r}")
            if entry.crc is not None:
                crc = google_crc32c.extend(crc, piece)
            done += len(piece)
            yield piece.view(entry.dtype)
    check(entry, crc, entry.crc)


def read(entry: Entry) -> np.ndarray:
    """One tensor in a fresh array; Corrupt when the file carries a checksum and it differs."""
    array = np.empty(entry.shape, entry.dtype)
    read_into(entry, array.reshape(-1))
    return array


def read_into(entry: Entry, flat: np.ndarray) -> None:
    """Fill a flat array of the tensor's dtype and length with its elements."""
    raw, crc = flat.view(np.uint8), 0
    with disk.opened(entry.path) as file:
        for start in range(0, entry.size, CHUNK):
            piece = raw[start : start + CHUNK]
            disk.fill(file, piece, entry.offset + start, entry.path, f"tensor {entry.name!r}")
            if entry.crc is not None:
                crc = google_crc32c.extend(crc, piece)
    check(entry, crc, entry.crc)


def check(entry, found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        raise errors.Corrupt(f"{entry.path}: tensor {entry.name!r} (bytes {entry.offset:,} to {entry.offset + entry.size:,}) has "
                             f"crc32c {found:08x}, wanted {wanted:08x}. The file is damaged: fetch or save it again")  # fmt: skip


def _shards(path: pathlib.Path) -> dict[str, Entry]:
    """Entries of all shards; the index's weight_map and the shards' headers must agree."""
    where = disk.load_json(path).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise errors.Corrupt(f"{path}: field 'weight_map' is missing or is not a map from tensor names to file names")
    entries: dict[str, Entry] = {}
    problems = []
    for file in sorted(set(where.values())):
        shard = path.parent / disk.safe_name(file, path)
        for name, entry in _file(shard).items():
            if name in entries:
                problems.append(f"tensor {name!r} lies in {entries[name].path.name} and in {file}")
            elif name not in where:
                problems.append(f"tensor {name!r} of {file} is missing from the index")
            elif where[name] != file:
                problems.append(f"tensor {name!r} lies in {file}; the index says {where[name]}")
            entries[name] = entry
    problems += [f"tensor {name!r} is missing from {file}" for name, file in where.items() if name not in entries]
    if problems:
        raise errors.Mismatch(errors.listing(f"{path}: the index and its shards differ", problems, "Fetch or save all of them again"))
    return entries


def _file(path: pathlib.Path) -> dict[str, Entry]:
    with disk.opened(path) as file:
        size = os.fstat(file).st_size
        start = os.pread(file, 8, 0)
        length = int.from_bytes(start, "little")
        if len(start) == 8 and length > HEADER_LIMIT:
            raise errors.TooLarge(f"{path}: says its header has {length:,} bytes; at most {HEADER_LIMIT:,} are read. Not safetensors?")
        if len(start) < 8 or size - 8 < length:
            raise errors.Incomplete(f"{path}: {size:,} bytes, too few for a header of {length:,}. Not safetensors, or cut off")
        raw = np.empty(length, np.uint8)
        disk.fill(file, raw, 8, path, "the header")
    raw = raw.tobytes()
    if not raw.startswith(b"{"):
        raise errors.Corrupt(f"{path}: the header starts with {raw[:1]!r} at byte 8, wanted '{{'. Not a safetensors file, or damaged")
    header = disk.parse_json(raw, path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise errors.Corrupt(f"{path}: field '__metadata__' is not a map from text to text")
    if len(header) > TENSOR_LIMIT:
        raise errors.TooLarge(f"{path}: {len(header):,} tensors; at most {TENSOR_LIMIT:,} are read")
    entries = sorted((_entry(name, item, path, 8 + length) for name, item in header.items()), key=lambda item: (item.offset, item.size))
    end = 8 + length
    for entry in entries:
        if entry.offset != end:
            word = "leaves a hole after" if entry.offset > end else "overlaps"
            raise errors.Corrupt(f"{path}: tensor {entry.name!r} starts at byte {entry.offset:,} and {word} what ends at {end:,}")
        end += entry.size
    if end != size:
        kind = errors.Incomplete if size < end else errors.Corrupt
        raise kind(f"{path}: {size:,} bytes; its header speaks of {end:,}. The file is cut off or damaged: fetch or save it again")
    return {entry.name: entry for entry in _with_checksums(path, start + raw, metadata, entries)}


def _entry(name: str, item, path: pathlib.Path, start: int) -> Entry:
    def wrong(what: str):
        return errors.Corrupt(f"{path}: tensor {name[:NAME_LIMIT]!a}: {what}. The file is damaged: fetch or save it again")

    try:
        if len(name.encode()) > NAME_LIMIT:
            raise errors.TooLarge(f"{path}: a tensor's name has {len(name.encode()):,} bytes; at most {NAME_LIMIT:,} are read")
    except UnicodeEncodeError as error:
        raise wrong("its name is not text") from error
    if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
        raise wrong("wanted the fields dtype, shape, data_offsets")
    code, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise wrong(f"dtype {ascii(code)[:80]} is none of {', '.join(DTYPES)}")
    for field, value in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(value, list) or not all(type(number) is int and 0 <= number < 1 << 63 for number in value):
            raise wrong(f"{field} {ascii(value)[:80]} is not a list of whole numbers")
    if len(shape) > RANK_LIMIT:
        raise errors.TooLarge(f"{path}: tensor {name!r} has {len(shape)} axes; at most {RANK_LIMIT} are read")
    entry = Entry(name, DTYPES[code], tuple(shape), path, start + offsets[0] if offsets else 0, None)
    if math.prod(max(axis, 1) for axis in shape) >= 1 << 60:
        raise wrong(f"shape {shape} is beyond any file")
    if len(offsets) != 2 or offsets[1] - offsets[0] != entry.size:
        raise wrong(f"data_offsets {offsets} do not span the {entry.size:,} bytes that {code} {shape} needs")
    return entry


def _with_checksums(path: pathlib.Path, raw: bytes, metadata: dict[str, str], entries: list[Entry]) -> list[Entry]:
    """Entries in file order with their checksums, after the header's own was verified; as they are where a file carries none."""
    wanted, listed = metadata.get(_HEADER_CRC), metadata.get(_TENSOR_CRC)
    if wanted is None and listed is None:
        return entries
    found = _header_crc(raw.replace(_field(wanted or ""), _field(_NO_CRC), 1))
    if found != wanted:
        raise errors.Corrupt(f"{path}: the header (the first {len(raw):,} bytes) has crc32c {found}, wanted {wanted!a}. "
                             "The file is damaged: fetch or save it again")  # fmt: skip
    crcs = (listed or "").split()
    if len(crcs) != len(entries) or not all(len(crc) == 8 and crc.isalnum() and crc.isascii() for crc in crcs):
        raise errors.Corrupt(f"{path}: {len(crcs)} checksums for {len(entries)} tensors in the metadata. Save it again")
    try:
        return [dataclasses.replace(entry, crc=int(crc, 16)) for entry, crc in zip(entries, crcs, strict=True)]
    except ValueError as error:
        raise errors.Corrupt(f"{path}: a checksum in the metadata is not hexadecimal. Save it again") from error


def _field(crc: str) -> bytes:
    return f'"{_HEADER_CRC}":{json.dumps(crc)}'.encode()


def _header_crc(raw: bytes) -> str:
    return f"{google_crc32c.value(raw):08x}"


def write(path: str | os.PathLike, entries: Sequence[tuple[str, np.dtype, tuple[int, ...]]],
          arrays: Iterable[np.ndarray | Iterable[np.ndarray]], metadata: dict[str, str]) -> None:  # fmt: skip
    """Write a new safetensors file, fsynced; nothing is left of it when an error comes up on the way.

    entries: name, dtype and shape of every tensor. arrays: in the same order an array each, or the flat pieces of one in C order.
    metadata: text kept in the header beside our checksums.
    """
    path = pathlib.Path(path)
    sizes = _sizes(path, entries)
    crcs: list[str] = [_NO_CRC] * len(entries)
    header = _header(entries, sizes, metadata, crcs)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        disk.put(file, np.frombuffer(header, np.uint8))
        for number, ((name, dtype, _), size, array) in enumerate(zip(entries, sizes, arrays, strict=True)):
            crc, done = 0, 0
            for piece in [array] if isinstance(array, np.ndarray) else array:
                if piece.dtype != dtype:
                    raise ValueError(f"{path}: tensor {name!r} is announced as {dtype} and given as {piece.dtype}")
                raw = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
                for start in range(0, len(raw), CHUNK):
                    part = raw[start : start + CHUNK]
                    crc = google_crc32c.extend(crc, part)
                    disk.put(file, part)
                done += len(raw)
            if done != size:
                raise ValueError(f"{path}: tensor {name!r} is announced with {size:,} bytes and given with {done:,}")
            crcs[number] = f"{crc:08x}"
        header = _header(entries, sizes, metadata, crcs)
        os.pwrite(file, header.replace(_field(_NO_CRC), _field(_header_crc(header)), 1), 0)
        os.fsync(file)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(file)
    disk.sync_folder(path.parent)


def _sizes(path: pathlib.Path, entries) -> list[int]:
    names = [name for name, _, _ in entries]
    if len(set(names)) != len(names) or "__metadata__" in names:
        raise ValueError(f"{path}: a tensor name is given twice, or is the reserved '__metadata__'")
    if len(names) > TENSOR_LIMIT:
        raise errors.TooLarge(f"{path}: {len(names):,} tensors; at most {TENSOR_LIMIT:,} are written")
    for name, dtype, shape in entries:
        if np.dtype(dtype) not in CODES or len(shape) > RANK_LIMIT or len(name.encode()) > NAME_LIMIT:
            raise ValueError(f"{path}: tensor {name!r} {np.dtype(dtype)} {shape} cannot be written: wanted one of {', '.join(DTYPES)}, "
                             f"at most {RANK_LIMIT} axes and a name of at most {NAME_LIMIT} bytes")  # fmt: skip
    return [math.prod(shape) * np.dtype(dtype).itemsize for _, dtype, shape in entries]


def _header(entries, sizes: list[int], metadata: dict[str, str], crcs: list[str]) -> bytes:
    """The length and the JSON, padded with spaces to 64 bytes: its size does not depend on the checksums."""
    start, items = 0, {"__metadata__": {_HEADER_CRC: _NO_CRC, _TENSOR_CRC: " ".join(crcs), **metadata}}
    for (name, dtype, shape), size in zip(entries, sizes, strict=True):
        items[name] = {"dtype": CODES[np.dtype(dtype)], "shape": list(shape), "data_offsets": [start, start + size]}
        start += size
    raw = json.dumps(items, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % 64)
    return len(raw).to_bytes(8, "little") + raw
