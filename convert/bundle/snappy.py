"""Snappy decompression in plain Python, every length checked: https://github.com/google/snappy/blob/main/format_description.txt."""

from convert.bundle import wire


def decompress(raw: bytes, limit: int) -> bytes:
    """The bytes that `raw` stands for; ValueError when it is malformed or says that they are more than `limit`."""
    length, at = wire.varint(raw, 0)
    if length > limit:
        raise ValueError(f"says it holds {length:,} bytes; at most {limit:,} are read")
    out = bytearray()
    while at < len(raw):
        tag = raw[at]
        at += 1
        if tag & 3 == 0:
            size, at = _literal(raw, tag >> 2, at)
            if len(raw) - at < size:
                raise ValueError(f"a literal of {size:,} bytes runs past the end")
            out += raw[at : at + size]
            at += size
        else:
            size, back, at = _copy(raw, tag, at)
            if not 0 < back <= len(out):
                raise ValueError(f"a copy reaches back {back:,} bytes where {len(out):,} stand")
            if size <= back:
                out += out[len(out) - back : len(out) - back + size]
            else:  # overlapping: the last `back` bytes repeat
                out += (bytes(out[-back:]) * (size // back + 1))[:size]
        if len(out) > length:
            raise ValueError(f"holds more than the {length:,} bytes it speaks of")
    if len(out) != length:
        raise ValueError(f"holds {len(out):,} bytes, not the {length:,} it speaks of")
    return bytes(out)


def _literal(raw: bytes, code: int, at: int) -> tuple[int, int]:
    if code < 60:
        return code + 1, at
    width = code - 59
    return int.from_bytes(_take(raw, at, width), "little") + 1, at + width


def _copy(raw: bytes, tag: int, at: int) -> tuple[int, int, int]:
    if tag & 3 == 1:
        return (tag >> 2 & 7) + 4, tag >> 5 << 8 | _take(raw, at, 1)[0], at + 1
    width = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, int.from_bytes(_take(raw, at, width), "little"), at + width


def _take(raw: bytes, at: int, width: int) -> bytes:
    if len(raw) - at < width:
        raise ValueError("cut off inside a tag")
    return raw[at : at + width]
