"""gpt2-ml's TFRecords without TensorFlow: tf.train.Example messages whose feature `input_ids` holds a document's ids, zero padded.

A record is a u64 length, the masked crc32c of these 8 bytes, the message, and the masked crc32c of the message (tensorflow/core/lib/io/
record_writer.h); the messages are those of tensorflow/core/example/{example,feature}.proto. Every size is checked before it is believed,
and damage is a ValueError that names the file and the record.
"""

import os
import pathlib
import struct
from collections.abc import Callable, Iterator

import google_crc32c
import numpy as np

FEATURE = "input_ids"
LARGEST = 1 << 26  # bytes of one record; gpt2-ml's hold a few thousand
DAMAGED = "The file is damaged, cut off, or no uncompressed TFRecord file: fetch or make it again"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SHIFTS = np.arange(10, dtype=np.uint64) * np.uint64(7)


def documents(path: pathlib.Path, note: Callable[[int], None] = lambda size: None) -> Iterator[tuple[np.ndarray, bool]]:
    """(ids, whole) of each record: int64 ids without the zeros behind them; whole is False where the record's width may have cut them off.

    note: is told how many bytes were read. gpt2-ml writes at most 1,024 ids into 1,025 places, so ids that leave one place may be cut.
    """
    for number, raw in enumerate(records(path, note), 1):
        try:
            padded = _ids(raw)
        except ValueError as error:
            raise ValueError(f"{path} record {number}: {error}. {DAMAGED}") from None
        filled = np.flatnonzero(padded)
        count = int(filled[-1]) + 1 if len(filled) else 0
        yield padded[:count], count < len(padded) - 1


def records(path: pathlib.Path, note: Callable[[int], None] = lambda size: None) -> Iterator[bytes]:
    """The records of a file, checksums verified."""
    with open(path, "rb") as file:
        left, number = os.fstat(file.fileno()).st_size, 0
        while left:
            number += 1
            where = f"{path} record {number}"
            if left < 16:
                raise ValueError(f"{where}: {left} bytes are left, wanted at least 16. {DAMAGED}")
            size, check = struct.unpack("<QI", _read(file, 12, where))
            if _masked(struct.pack("<Q", size)) != check:
                raise ValueError(f"{where}: the length {size:,} has another crc32c than stands behind it. {DAMAGED}")
            if size > min(left - 16, LARGEST):
                raise ValueError(f"{where}: {size:,} bytes long; {left - 16:,} are left, and at most {LARGEST:,} are read. {DAMAGED}")
            raw = _read(file, size + 4, where)
            if _masked(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
                raise ValueError(f"{where}: its {size:,} bytes have another crc32c than stands behind them. {DAMAGED}")
            left -= 16 + size
            note(16 + size)
            yield raw[:-4]


def _read(file, size: int, where: str) -> bytes:
    raw = file.read(size)
    if len(raw) != size:  # it became shorter while it was read
        raise ValueError(f"{where}: {len(raw):,} bytes, wanted {size:,}. {DAMAGED}")
    return raw


def _masked(raw: bytes) -> int:
    crc = google_crc32c.value(raw)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _ids(raw: bytes) -> np.ndarray:
    """The numbers of FEATURE in a serialized tf.train.Example."""
    found = None
    for features in _messages(raw, 1):
        for entry in _messages(features, 1):
            name, feature = b"", b""
            for field, kind, value in _fields(entry):
                if (field, kind) == (1, _BYTES):
                    name = value
                elif (field, kind) == (2, _BYTES):
                    feature = value
            if name == FEATURE.encode():
                found = [number for numbers in _messages(feature, 3) for number in _int64(numbers)]
    if not found:
        raise ValueError(f"no whole numbers in a feature {FEATURE!r}, wanted those of gpt2-ml's prepare_data.py")
    return np.concatenate(found)


def _int64(raw: bytes) -> Iterator[np.ndarray]:
    """The values of an Int64List, packed as writers do, or one field each."""
    for field, kind, value in _fields(raw):
        if (field, kind) == (1, _BYTES):
            yield _varints(value)
        elif (field, kind) == (1, _VARINT):
            yield np.array([value], np.uint64).view(np.int64)


def _varints(raw: bytes) -> np.ndarray:
    """All numbers of a packed field at once."""
    byte = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(byte < 0x80)
    if not len(byte):
        return np.zeros(0, np.int64)
    if not len(ends) or ends[-1] != len(byte) - 1:
        raise ValueError("a number is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 10 or (byte[ends[lengths == 10]] > 1).any():
        raise ValueError("a number has more than 64 bits")
    places = np.arange(len(byte)) - np.repeat(starts, lengths)
    return np.add.reduceat((byte & 0x7F).astype(np.uint64) << _SHIFTS[places], starts).view(np.int64)


def _messages(raw: bytes, wanted: int) -> Iterator[bytes]:
    return (value for field, kind, value in _fields(raw) if (field, kind) == (wanted, _BYTES))


def _fields(raw: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(field, wire type, value) of a message in protobuf's wire format; nested messages come as bytes."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        field, kind = tag >> 3, tag & 7
        if not field:
            raise ValueError("a field has the number 0")
        if kind == _VARINT:
            value, at = _varint(raw, at)
            yield field, kind, value
            continue
        if kind == _BYTES:
            size, at = _varint(raw, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} is unknown")
        if size > len(raw) - at:
            raise ValueError(f"field {field} runs past the end of its message")
        yield field, kind, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(raw):
            raise ValueError("a number is cut off")
        byte = raw[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + place + 1
    raise ValueError("a number has more than 64 bits")
