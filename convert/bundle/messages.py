"""What a bundle's index says, parsed and packed by hand: BundleHeaderProto, BundleEntryProto, and the keys of slices.

The messages are those of tensorflow/core/protobuf/tensor_bundle.proto; the keys of slices are "ordered code", whose bytes sort as the
values do (tensorflow/core/lib/strings/ordered_code.cc, saved_tensor_slice_util.cc).
"""

import dataclasses

import ml_dtypes
import numpy as np

from convert.bundle import wire

DTYPES = {
    1: np.dtype(np.float32), 2: np.dtype(np.float64), 3: np.dtype(np.int32), 4: np.dtype(np.uint8), 5: np.dtype(np.int16),
    6: np.dtype(np.int8), 9: np.dtype(np.int64), 10: np.dtype(np.bool_), 14: np.dtype(ml_dtypes.bfloat16), 17: np.dtype(np.uint16),
    19: np.dtype(np.float16), 22: np.dtype(np.uint32), 23: np.dtype(np.uint64),
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}
OTHERS = {7: "string", 8: "complex64", 11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16", 18: "complex128",
          20: "resource", 21: "variant"}  # fmt: skip
RANK_LIMIT, SLICE_LIMIT = 8, 1024
FULL = -1


@dataclasses.dataclass(frozen=True)
class Header:
    shards: int
    big_endian: bool


@dataclasses.dataclass(frozen=True)
class Record:
    """One entry of the index. slices holds, for a partitioned variable, (start, length) of every axis; length FULL is the whole axis."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    masked_crc: int
    slices: tuple[tuple[tuple[int, int], ...], ...]


def header(raw: bytes) -> Header:
    shards, endianness = 0, 0
    for field, kind, value in wire.fields(raw):
        if (field, kind) == (1, wire.VARINT):
            shards = value
        elif (field, kind) == (2, wire.VARINT):
            endianness = value
    return Header(shards, endianness == 1)


def pack_header(shards: int) -> bytes:
    return wire.field(1, shards) + wire.field(3, wire.field(1, 1))


def record(raw: bytes) -> Record:
    numbers, shape, slices, crc = {1: 0, 3: 0, 4: 0, 5: 0}, (), [], 0
    for field, kind, value in wire.fields(raw):
        if kind == wire.VARINT and field in numbers:
            numbers[field] = wire.signed(value)
        elif (field, kind) == (2, wire.BYTES):
            shape = _shape(value)
        elif (field, kind) == (6, wire.FIXED32):
            crc = value
        elif (field, kind) == (7, wire.BYTES):
            slices.append(_slice(value))
            if len(slices) > SLICE_LIMIT:
                raise ValueError(f"more than {SLICE_LIMIT} slices")
    if min(numbers.values()) < 0:
        raise ValueError("a negative dtype, shard, offset or size")
    return Record(numbers[1], shape, numbers[3], numbers[4], numbers[5], crc, tuple(slices))


def pack_record(dtype: np.dtype, shape: tuple[int, ...], offset: int, size: int, masked_crc: int) -> bytes:
    dims = b"".join(wire.field(2, wire.field(1, length)) for length in shape)
    return wire.field(1, CODES[dtype]) + wire.field(2, dims) + wire.field(4, offset) + wire.field(5, size) + wire.fixed32(6, masked_crc)


def _shape(raw: bytes) -> tuple[int, ...]:
    shape = []
    for field, kind, value in wire.fields(raw):
        if (field, kind) == (2, wire.BYTES):
            length = 0
            for inner, inner_kind, size in wire.fields(value):
                if (inner, inner_kind) == (1, wire.VARINT):
                    length = wire.signed(size)
            shape.append(length)
        elif (field, kind) == (3, wire.VARINT) and value:
            raise ValueError("a tensor of unknown rank")
        if len(shape) > RANK_LIMIT:
            raise ValueError(f"more than {RANK_LIMIT} axes")
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {shape} has a negative axis")
    return tuple(shape)


def _slice(raw: bytes) -> tuple[tuple[int, int], ...]:
    extents = []
    for field, kind, value in wire.fields(raw):
        if (field, kind) == (1, wire.BYTES):
            start, length = 0, FULL
            for inner, inner_kind, size in wire.fields(value):
                if (inner, inner_kind) == (1, wire.VARINT):
                    start = wire.signed(size)
                elif (inner, inner_kind) == (2, wire.VARINT):
                    length = wire.signed(size)
            extents.append((start, length))
        if len(extents) > RANK_LIMIT:
            raise ValueError(f"a slice has more than {RANK_LIMIT} axes")
    return tuple(extents)


def slice_key(name: bytes, extents: tuple[tuple[int, int], ...]) -> bytes:
    """The key under which one slice of a partitioned variable lies."""
    text = b"".join({0: b"\0\xff", 255: b"\xff\0"}.get(byte, bytes([byte])) for byte in name)
    return b"\0" + text + b"\0\1" + _count(len(extents)) + b"".join(_ordered(number) for extent in extents for number in extent)


def _count(value: int) -> bytes:
    """An unsigned number: how many bytes, then those bytes."""
    width = (value.bit_length() + 7) // 8
    return bytes([width]) + value.to_bytes(width, "big")


def _ordered(value: int) -> bytes:
    """A signed number: two's complement whose first bits say how many bytes there are."""
    size = (value if value >= 0 else ~value).bit_length() // 7 + 1
    bits = value & (1 << 8 * size) - 1
    marks = (1 << size) - 1 << 7 * size  # `size` ones from the top bit on
    return (bits ^ marks).to_bytes(size, "big")
