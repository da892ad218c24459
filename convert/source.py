"""What SOURCE is: a TensorFlow bundle or safetensors, found from a file, a prefix or a folder. Nothing that can run code is read."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from convert import hdf5
from convert.bundle import read as bundle
from flaxgen import disk, errors, tensors

Kind = Literal["TensorFlow bundle", "safetensors", "Keras HDF5"]
READ = (
    "Read are: a TensorFlow checkpoint (its prefix, its .index file, or a folder with one), safetensors (a file, or a folder with "
    "model.safetensors or its shards), Keras weights in HDF5 (.h5), and a flaxgen folder"
)
OTHER_KINDS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".msgpack", ".keras", ".pb", ".gguf")
HDF5 = (".h5", ".hdf5", ".weights")
PAPER_LIMIT = 1_000_000
_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")


@dataclasses.dataclass(frozen=True)
class Source:
    """The variables of a checkpoint by name, and the folder in which its JSON and vocabulary lie."""

    kind: Kind
    path: pathlib.Path
    folder: pathlib.Path
    variables: dict[str, bundle.Variable]

    @property
    def held(self) -> int:
        """Bytes that it holds in memory at once beside what it gives."""
        return 0

    def json(self, name: str) -> dict | None:
        """A JSON file that lies beside the tensors, if it does."""
        path = self.folder / name
        return disk.load_json(path, limit=PAPER_LIMIT) if path.exists() else None

    def paper(self, name: str, parse: Callable[[bytes], dict]) -> dict | None:
        """A small text that lies beside the tensors, parsed, if it does."""
        path = self.folder / name
        if not path.exists():
            return None
        with disk.opened(path) as file:
            raw = os.pread(file, PAPER_LIMIT, 0)
        try:
            return parse(raw)
        except ValueError as error:
            raise errors.Corrupt(f"{path}: {error}. The file is damaged: fetch or save it again") from error

    def chunks(self, name: str) -> Iterator[np.ndarray]:
        """A variable's elements in flat pieces, each overwritten by the next."""
        return bundle.chunks(self.variables[name])

    def read_into(self, name: str, flat: np.ndarray) -> None:
        """Fill a flat array with a variable's elements."""
        bundle.read_into(self.variables[name], flat)


def open_source(path: pathlib.Path) -> Source:
    """Recognise what lies at `path` and read its index or headers."""
    path = pathlib.Path(os.path.abspath(path))
    if path.is_dir():
        return _folder(path)
    if path.name == "checkpoint" and path.is_file():
        return _folder(path.parent)
    if path.name.endswith(".index") or _DATA.search(path.name):
        return _bundle(path.with_name(_DATA.sub("", path.name).removesuffix(".index")))
    if path.with_name(path.name + ".index").exists():
        return _bundle(path)
    if not path.exists():
        raise errors.Incomplete(f"{path}: no such file, folder or checkpoint prefix (there is no {path.name}.index either). {READ}")
    if path.name.endswith((".safetensors", ".safetensors.index.json")):
        return _safetensors(path, path.parent)
    return _keras(path)


def _folder(path: pathlib.Path) -> Source:
    prefixes = _prefixes(path)
    tensor_files = sorted(file.name for file in path.glob("*.safetensors"))
    if prefixes and tensor_files:
        both = f"a TensorFlow checkpoint ({prefixes[0].name}) and safetensors ({tensor_files[0]})"
        raise errors.Mismatch(f"{path}: holds {both}. Name the file, not the folder")
    if len(prefixes) > 1:
        names = ", ".join(prefix.name for prefix in prefixes[: errors.SHOWN])
        raise errors.Mismatch(f"{path}: holds {len(prefixes)} checkpoints ({names}) and no file `checkpoint` that names one. Name it")
    if prefixes:
        return _bundle(prefixes[0])
    if tensor_files or (path / tensors.SHARDED).exists():
        return _safetensors(path, path)
    files = sorted(file for file in path.iterdir() if file.is_file())
    weights = [file for file in files if file.name.endswith(HDF5)]
    if len(weights) == 1:
        return _keras(weights[0])
    if weights:
        raise errors.Mismatch(f"{path}: holds {len(weights)} HDF5 files ({', '.join(file.name for file in weights[:8])}). Name one")
    for file in files:
        if file.suffix.lower() in OTHER_KINDS:
            raise _unknown(file)
    raise errors.Incomplete(f"{path}: holds no checkpoint; its files are {', '.join(file.name for file in files[:8]) or 'none'}. {READ}")


def _prefixes(folder: pathlib.Path) -> list[pathlib.Path]:
    """The prefix that the `checkpoint` file names, by its last part only; without that file all there are."""
    found = [file.with_name(file.name.removesuffix(".index")) for file in sorted(folder.glob("*.index"))]
    named = folder / "checkpoint"
    if not named.is_file():
        return found
    with disk.opened(named) as file:
        raw = os.pread(file, 1_000_000, 0)
    match = re.search(rb'^model_checkpoint_path:\s*"([^"\n]*)"', raw, re.MULTILINE)
    if not match:
        raise errors.Corrupt(f"{named}: no line that starts with model_checkpoint_path. Name the checkpoint's prefix instead of the folder")
    name = disk.safe_name(match[1].decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1], named)
    prefix = folder / name
    if prefix not in found:
        there = ", ".join(each.name for each in found[:8]) or "none"
        raise errors.Incomplete(f"{named}: names {name!r}, and there is no {name}.index here; checkpoints here: {there}. Name one")
    return [prefix]


def _bundle(prefix: pathlib.Path) -> Source:
    return Source("TensorFlow bundle", prefix, prefix.parent, bundle.index(prefix))


def _safetensors(path: pathlib.Path, folder: pathlib.Path) -> Source:
    return Source("safetensors", path, folder, dict(tensors.index(path)))


def _keras(path: pathlib.Path) -> Source:
    with disk.opened(path) as file:
        start = os.pread(file, len(hdf5.MAGIC), 0)
    if start != hdf5.MAGIC:
        raise _unknown(path)
    return Source("Keras HDF5", path, path.parent, dict(hdf5.index(path)))


def _unknown(path: pathlib.Path) -> errors.CheckpointError:
    with disk.opened(path) as file:
        start = os.pread(file, 8, 0)
    if start.startswith((b"PK\3\4", b"\x80")):
        return errors.Unsafe(f"{path}: looks like a pickle or a zip of pickles, which can run code when read, so it is not. "
                             f"Save the model as safetensors where it comes from. {READ}")  # fmt: skip
    return errors.Mismatch(f"{path}: starts with {start!r}, which is no kind of file that is read. {READ}")
