"""The weights in a Keras HDF5 file: layer by layer in the order in which Keras gives them, as plain places in the file.

h5py reads the names and where the numbers lie; the numbers themselves are read as bytes. Whatever HDF5 can hold beside plain numbers in one
piece (links, other files, compression, types of its own) is refused, and nothing that the file holds is run: a model's architecture, which
Keras writes as JSON beside the weights, is not looked at.
"""

import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from flaxgen import errors, tensors

MAGIC = b"\x89HDF\r\n\x1a\n"
LAYERS, WEIGHTS, ATTRIBUTE = 100_000, 10_000, 16_000_000
AGAIN = "The file is damaged, or not Keras's: save it again with model.save_weights('x.h5')"


def index(path: pathlib.Path) -> dict[str, tensors.Entry]:
    """Every weight by its layer's name and its number there ("Embedding-Token/0"), its place checked against the file."""
    try:
        import h5py
    except ImportError:
        raise errors.Mismatch(f"{path}: reading Keras's HDF5 files needs h5py; install it with pip install 'flaxgen[keras]'") from None
    try:
        with h5py.File(path, "r", locking=False) as file:
            return {entry.name: entry for entry in _entries(h5py, file, path)}
    except errors.CheckpointError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeDecodeError, MemoryError) as error:
        raise errors.Corrupt(f"{path}: {str(error)[:200]}. {AGAIN}") from error


def _entries(h5py: Any, file: Any, path: pathlib.Path) -> Iterator[tensors.Entry]:
    held, size = file, os.path.getsize(path)
    if "layer_names" not in file.attrs and "model_weights" in file:
        held = _group(h5py, file, "model_weights", path)
    names = _names(held, "layer_names", LAYERS, path)
    if names is None:
        raise errors.Mismatch(f"{path}: HDF5, but not a weight file of Keras 2 or tf.keras (no attribute 'layer_names'). Save the model's "
                              "weights with model.save_weights('x.h5'), or as a TensorFlow checkpoint")  # fmt: skip
    if len(set(names)) != len(names):
        raise errors.Corrupt(f"{path}: a layer is named twice. {AGAIN}")
    for layer in names:
        group = _group(h5py, held, layer, path)
        for number, weight in enumerate(_names(group, "weight_names", WEIGHTS, path) or ()):
            *above, last = [step for step in weight.split("/") if step]
            within = group
            for step in above:
                within = _group(h5py, within, step, path)
            yield _entry(h5py, within, last, f"{layer}/{number}", path, size)


def _names(group: Any, name: str, most: int, path: pathlib.Path) -> list[str] | None:
    """An attribute of names, which Keras cuts in parts (name0, name1, ...) when it is long."""
    if name in group.attrs:
        parts = [name]
    else:
        parts = [f"{name}{number}" for number in range(1000)]
        parts = parts[: next((number for number, part in enumerate(parts) if part not in group.attrs), 1000)]
    if not parts:
        return None
    found: list[str] = []
    for part in parts:
        attribute = group.attrs.get_id(part)
        count = math.prod(attribute.shape)
        if count == 0:
            continue
        if count * attribute.dtype.itemsize > ATTRIBUTE or count > most or len(found) > most:
            raise errors.TooLarge(f"{path}: the attribute {part!r} is larger than any model's; at most {most:,} names are read")
        values = np.asarray(group.attrs[part]).reshape(-1).tolist()
        found += [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return found


def _child(h5py: Any, group: Any, name: str, path: pathlib.Path) -> Any:
    link = group.get(name, getlink=True)
    if link is None:
        raise errors.Incomplete(f"{path}: {group.name.rstrip('/')}/{name} is named and not there. {AGAIN}")
    if type(link) is not h5py.HardLink:
        raise errors.Unsafe(f"{path}: {name!r} is a link ({type(link).__name__}), which is not followed")
    return group[name]


def _group(h5py: Any, group: Any, name: str, path: pathlib.Path) -> Any:
    if name in ("", ".", "..") or "\0" in name:
        raise errors.Corrupt(f"{path}: a group is named {name!r}. {AGAIN}")
    for step in name.split("/"):
        group = _child(h5py, group, step, path)
        if not isinstance(group, h5py.Group):
            raise errors.Corrupt(f"{path}: {name!r} is no group. {AGAIN}")
    return group


def _entry(h5py: Any, group: Any, last: str, name: str, path: pathlib.Path, size: int) -> tensors.Entry:
    """Where a weight lies; it must be plain little-endian numbers in one piece, as Keras writes them."""
    data = _child(h5py, group, last, path)
    if not isinstance(data, h5py.Dataset):
        raise errors.Corrupt(f"{path}: {data.name} holds no numbers. {AGAIN}")
    made = data.id.get_create_plist()
    if data.external or data.is_virtual or made.get_nfilters() or made.get_layout() != h5py.h5d.CONTIGUOUS:
        raise errors.Mismatch(f"{path}: {data.name} is compressed, in pieces or in another file; Keras writes weights in one piece. "
                              "Save them anew")  # fmt: skip
    dtype = data.dtype
    if dtype.kind not in "fiub" or dtype.byteorder == ">" or dtype.subdtype or len(data.shape) > 8:
        raise errors.Mismatch(f"{path}: {data.name} is {dtype} {list(data.shape)}; plain little-endian numbers are read")
    offset, count = data.id.get_offset(), math.prod(data.shape) * dtype.itemsize
    if offset is None and count:
        raise errors.Incomplete(f"{path}: {data.name} has no numbers. {AGAIN}")
    if count and offset + count > size:
        raise errors.Incomplete(f"{path}: {data.name} ends at byte {offset + count:,}, the file at {size:,}. It is cut off: fetch it again")
    return tensors.Entry(name, np.dtype(dtype), tuple(data.shape), path, offset or 0, None)
