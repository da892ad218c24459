"""Protobuf's wire format, as far as bundles use it: varints, fixed32 and length-delimited fields."""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIELD_LIMIT = 100_000


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """The unsigned number at `at`, and where it ends; ValueError when it is cut off or has more than 64 bits."""
    value = 0
    for place in range(10):
        if at + place >= len(raw):
            raise ValueError(f"a number is cut off at byte {at}")
        byte = raw[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at + place + 1
    raise ValueError(f"a number at byte {at} has more than 64 bits")


def fields(raw: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(field, wire type, value) of a message. Nested messages come as bytes: the caller knows which they are, so depth is bounded."""
    at = count = 0
    while at < len(raw):
        count += 1
        if count > FIELD_LIMIT:
            raise ValueError(f"a message has more than {FIELD_LIMIT:,} fields")
        tag, at = varint(raw, at)
        field, kind = tag >> 3, tag & 7
        if field == 0:
            raise ValueError(f"field number 0 at byte {at}")
        if kind == VARINT:
            value, at = varint(raw, at)
        else:
            if kind == BYTES:
                size, at = varint(raw, at)
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
            else:
                raise ValueError(f"wire type {kind} at byte {at} is unknown")
            if len(raw) - at < size:
                raise ValueError(f"field {field} runs past the end at byte {at}")
            value = raw[at : at + size]
            at += size
            if kind != BYTES:
                value = int.from_bytes(value, "little")
        yield field, kind, value


def signed(value: int) -> int:
    """An int64 from its 64-bit two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def number(value: int) -> bytes:
    """A non-negative number as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number_: int, value: int | bytes) -> bytes:
    """A varint or length-delimited field; numbers of zero are left out, as protobuf does."""
    if isinstance(value, int):
        return number(number_ << 3 | VARINT) + number(value) if value else b""
    return number(number_ << 3 | BYTES) + number(len(value)) + value


def fixed32(number_: int, value: int) -> bytes:
    return number(number_ << 3 | FIXED32) + value.to_bytes(4, "little")
