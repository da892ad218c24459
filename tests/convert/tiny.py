"""Small checkpoints of every format, filled with random numbers whose bits say where they came from."""

import dataclasses
import json
import pathlib

import numpy as np

from convert import command
from convert.bundle import read as bundle
from convert.bundle import write as writing
from flaxgen import tensors
from flaxgen.models import config as sizes

# Odd and unequal sizes, so that a swapped axis cannot pass.
BETWEEN = sizes.Config(vocab=13, positions=7, width=6, layers=2, heads=3, hidden=10, wiring="between", activation="gelu")
PRE_ERF = sizes.Config(vocab=13, positions=7, width=6, layers=2, heads=3, hidden=24, wiring="pre", activation="gelu")
PRE_TANH = sizes.Config(vocab=13, positions=7, width=6, layers=2, heads=3, hidden=24, wiring="pre", activation="gelu_tanh")
POST = sizes.Config(vocab=13, positions=7, width=12, layers=2, heads=3, hidden=10, wiring="post", activation="gelu", epsilon=1e-12,
                    segments=2, outputs=("mlm", "pool", "nsp"), application="encoder")  # fmt: skip
NARROW = dataclasses.replace(POST, embedding=5)
ENCODERS = {
    "bert": POST, "bert-hf": POST,
    "nezha": dataclasses.replace(POST, position="relative"), "nezha-hf": dataclasses.replace(POST, position="relative"),
    "roformer": dataclasses.replace(NARROW, position="rotary"),
    "roformer-hf": dataclasses.replace(NARROW, position="rotary", outputs=("mlm",)),
    "roformer-v2": dataclasses.replace(POST, position="rotary", norm="bare", outputs=("tied",)),
    "albert": dataclasses.replace(NARROW, sharing="all"), "albert-hf": dataclasses.replace(NARROW, sharing="all"),
    "electra": dataclasses.replace(NARROW, outputs=("discriminator",)),
    "electra-hf": dataclasses.replace(NARROW, outputs=("discriminator",)),
    "gpt": dataclasses.replace(POST, embedding_norm="none", outputs=("tied",), application="lm"),
}  # fmt: skip
CONFIGS = {"gpt2-ml": BETWEEN, "gpt2-bert4keras": PRE_ERF, "gpt2-tf": PRE_TANH, "gpt2-hf": PRE_TANH}


def arrays(config: sizes.Config, dtype=np.float32, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {path: random.standard_normal(shape).astype(dtype) for path, shape in sizes.shapes(config).items()}


def folder(path: pathlib.Path, config: sizes.Config, dtype=np.float32, seed: int = 0, end=None) -> pathlib.Path:
    """A flaxgen folder without a vocabulary."""
    path.mkdir(parents=True)
    held = arrays(config, dtype, seed)
    tensors.write(path / "model.safetensors", [(name, each.dtype, each.shape) for name, each in held.items()], held.values(), {})
    card = {"format": "flaxgen-1", "architecture": "transformer", "config": {**vars(config)}, "text": None, "end": end}
    (path / "config.json").write_text(json.dumps(card))
    return path


def foreign(path: pathlib.Path, to: str, dtype=np.float32) -> pathlib.Path:
    """A checkpoint of a foreign format, made by our own way back."""
    ours = folder(path.with_name(path.name + "-ours"), (CONFIGS | ENCODERS)[to], dtype)
    assert run(ours, path, "--to", to) == 0
    return path


def run(*arguments) -> int:
    return command.main([str(each) for each in arguments])


def held(path: pathlib.Path) -> dict[str, tuple]:
    """Name -> (dtype, shape, bytes) of every tensor of a folder."""
    if (path / "model.safetensors").exists():
        entries = tensors.index(path)
        found = {name: tensors.read(entry) for name, entry in entries.items()}
    else:
        found = {name: bundle.read(each) for name, each in bundle.index(path / "model.ckpt").items()}
    return {name: (each.dtype, each.shape, each.tobytes()) for name, each in found.items()}


def rewrite(path: pathlib.Path, change) -> None:
    """Write a file of tensors anew after `change` had its way with the dict of its arrays; without our checksums, as others write."""
    from safetensors import numpy as package

    if not (path / "model.safetensors").exists():
        found = {name: bundle.read(each) for name, each in bundle.index(path / "model.ckpt").items()}
        change(found)
        for file in path.glob("model.ckpt*"):
            file.unlink()
        (path / "checkpoint").unlink()
        entries = [(name, found[name].dtype, found[name].shape) for name in sorted(found)]
        writing.write(path / "model.ckpt", entries, ([np.ascontiguousarray(found[name]).reshape(-1)] for name in sorted(found)))
        return
    found = {name: tensors.read(entry) for name, entry in tensors.index(path).items()}
    change(found)
    package.save_file({name: np.ascontiguousarray(each) for name, each in found.items()}, str(path / "model.safetensors"))


def edit(path: pathlib.Path, **fields) -> None:
    """Change fields of a JSON file."""
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | fields))
