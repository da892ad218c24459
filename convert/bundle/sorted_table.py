"""LevelDB's sorted table, read whole and written plain: https://github.com/google/leveldb/blob/main/doc/table_format.md.

A block is entries (shared prefix length, rest length, value length, rest, value), restart points, and a 5-byte trailer: how it is
compressed and its masked crc32c. The footer points to the index block, whose values point to the data blocks.
"""

from collections.abc import Iterable, Iterator

import google_crc32c

from convert.bundle import snappy, wire

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
BLOCK_SIZE, RESTART_EVERY = 4096, 16
TOTAL_LIMIT, ENTRY_LIMIT, KEY_LIMIT = 100_000_000, 100_000, 4096


def masked(crc: int) -> int:
    """A crc32c as leveldb and TensorFlow store it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def unmasked(crc: int) -> int:
    value = (crc - 0xA282EAD8) & 0xFFFFFFFF
    return (value >> 17 | value << 15) & 0xFFFFFFFF


def items(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every (key, value) in order; ValueError, saying where, when anything is not as the format has it."""
    if len(raw) < FOOTER:
        raise ValueError(f"{len(raw)} bytes; a table has at least {FOOTER}")
    if int.from_bytes(raw[-8:], "little") != MAGIC:
        raise ValueError(f"the last 8 bytes are {raw[-8:].hex()}, wanted {MAGIC.to_bytes(8, 'little').hex()}: not an index, or cut off")
    footer = raw[-FOOTER:]
    meta, at = _handle(footer, 0)
    where, at = _handle(footer, at)
    if any(footer[at:-8]):
        raise ValueError(f"the footer holds {footer[at:-8].hex()} where it is padded with zeros")
    room, count, last = TOTAL_LIMIT, 0, None
    _block(raw, meta, room)  # holds nothing of ours; its checksum is looked at
    index = _block(raw, where, room)
    for _, value in _entries(index):
        block = _block(raw, _handle(value, 0)[0], room)
        room -= len(block)
        for key, item in _entries(block):
            count += 1
            if count > ENTRY_LIMIT:
                raise ValueError(f"more than {ENTRY_LIMIT:,} entries")
            if last is not None and key <= last:
                raise ValueError(f"key {key[:80]!r} does not come after {last[:80]!r}")
            last = key
            yield key, item


def _handle(raw: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = wire.varint(raw, at)
    size, at = wire.varint(raw, at)
    return (offset, size), at


def _block(raw: bytes, where: tuple[int, int], room: int) -> bytes:
    offset, size = where
    if offset + size + 5 > len(raw) - FOOTER:
        raise ValueError(f"a block of {size:,} bytes at byte {offset:,} runs past the end")
    body, kind, crc = raw[offset : offset + size], raw[offset + size], raw[offset + size + 1 : offset + size + 5]
    found, wanted = google_crc32c.value(raw[offset : offset + size + 1]), unmasked(int.from_bytes(crc, "little"))
    if found != wanted:
        raise ValueError(f"the block at bytes {offset:,} to {offset + size + 5:,} has crc32c {found:08x}, wanted {wanted:08x}")
    if kind == 1:
        try:
            body = snappy.decompress(body, room)
        except ValueError as error:
            raise ValueError(f"the snappy block at byte {offset:,} {error}") from error
    elif kind != 0:
        raise ValueError(f"the block at byte {offset:,} is compressed in way {kind}; plain (0) and snappy (1) are read")
    if len(body) > room:
        raise ValueError(f"its blocks hold more than {TOTAL_LIMIT:,} bytes")
    return body


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise ValueError("a block is shorter than its restart count")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    if end < 0:
        raise ValueError("a block's restart points run past its start")
    key, at = b"", 0
    while at < end:
        shared, at = wire.varint(block, at)
        rest, at = wire.varint(block, at)
        size, at = wire.varint(block, at)
        if shared > len(key) or shared + rest > KEY_LIMIT or at + rest + size > end:
            raise ValueError(f"an entry of {shared} + {rest} key bytes and {size} value bytes does not fit its block")
        key = key[:shared] + block[at : at + rest]
        at += rest
        yield key, block[at : at + size]
        at += size


def table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The file that holds (key, value) pairs, which come in increasing order; blocks are plain."""
    out, index, pending = bytearray(), [], []
    room = BLOCK_SIZE

    def flush(chunk: list[tuple[bytes, bytes]], every: int) -> bytes:
        body = _packed(chunk, every)
        handle = wire.number(len(out)) + wire.number(len(body))
        out.extend(body + b"\0" + masked(google_crc32c.value(body + b"\0")).to_bytes(4, "little"))
        return handle

    for key, value in pairs:
        pending.append((key, value))
        room -= len(key) + len(value)
        if room <= 0:
            index.append((key, flush(pending, RESTART_EVERY)))
            pending, room = [], BLOCK_SIZE
    if pending:
        index.append((pending[-1][0], flush(pending, RESTART_EVERY)))
    footer = flush([], RESTART_EVERY) + flush(index, 1)
    return bytes(out) + footer.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little")


def _packed(chunk: list[tuple[bytes, bytes]], every: int) -> bytes:
    body, restarts, last = bytearray(), [0], b""
    for number, (key, value) in enumerate(chunk):
        shared = 0
        if number % every:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif number:
            restarts.append(len(body))
        body += wire.number(shared) + wire.number(len(key) - shared) + wire.number(len(value)) + key[shared:] + value
        last = key
    return bytes(body) + b"".join(place.to_bytes(4, "little") for place in [*restarts, len(restarts)])
