"""A bundle as TensorFlow writes it: one data shard in the order of the names, a plain index, and the `checkpoint` file beside them."""

import os
import pathlib
from collections.abc import Iterable

import google_crc32c
import numpy as np

from convert.bundle import messages, sorted_table
from flaxgen import disk


def write(prefix: pathlib.Path, entries: list[tuple[str, np.dtype, tuple[int, ...]]], arrays: Iterable[Iterable[np.ndarray]]) -> None:
    """Write `prefix`.index, its data file and `checkpoint`, fsynced.

    entries: name, dtype and shape, sorted by name. arrays: in the same order the flat pieces of each in C order.
    """
    names = [name.encode() for name, _, _ in entries]
    if names != sorted(set(names)):
        raise ValueError(f"{prefix}: the names are not sorted, or one is given twice")
    records = [(b"", messages.pack_header(1))]
    data = os.open(prefix.with_name(prefix.name + ".data-00000-of-00001"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        offset = 0
        for (name, dtype, shape), pieces in zip(entries, arrays, strict=True):
            crc = size = 0
            for piece in pieces:
                raw = piece.view(np.uint8)
                crc = google_crc32c.extend(crc, raw)
                disk.put(data, raw)
                size += len(raw)
            records.append((name.encode(), messages.pack_record(dtype, shape, offset, size, sorted_table.masked(crc))))
            offset += size
        os.fsync(data)
    finally:
        os.close(data)
    _new(prefix.with_name(prefix.name + ".index"), sorted_table.table(records))
    line = f'model_checkpoint_path: "{prefix.name}"\nall_model_checkpoint_paths: "{prefix.name}"\n'
    _new(prefix.with_name("checkpoint"), line.encode())
    disk.sync_folder(prefix.parent)


def _new(path: pathlib.Path, raw: bytes) -> None:
    with open(path, "xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
