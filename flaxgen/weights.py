"""A model on disk: config.json, model.safetensors, the tokenizer's files and a README.md in one folder.

    config.json   {"format": "flaxgen-1", "architecture": "transformer", "config": {sizes}, "text": {tokenizer},
                   "end": [ids], "rule": {what a Writer draws by, unless told otherwise}, "source": {...}}

The text section's "reserved" counts rows of the embedding that no entry of the vocabulary uses.
"""

import dataclasses
import json
import pathlib
from typing import Any, Literal

import jax
import numpy as np

import flaxgen.text
from flaxgen import disk, errors, folders, rules, tensors
from flaxgen.errors import Incomplete, Mismatch
from flaxgen.models import config as sizes
from flaxgen.models import transformer
from flaxgen.protocols import Array, Params

FORMAT = "flaxgen-1"


def flatten(params: Params) -> dict[str, Array]:
    """{"params": {"a": {"b": leaf}}} to {"a/b": leaf}."""
    leaves = jax.tree_util.tree_leaves_with_path(params["params"])
    return {"/".join(step.key for step in path): leaf for path, leaf in leaves}


def nest(flat: dict[str, Array]) -> Params:
    """The inverse of `flatten`."""
    tree: dict = {}
    for path, leaf in flat.items():
        *above, name = path.split("/")
        node = tree
        for step in above:
            node = node.setdefault(step, {})
        node[name] = leaf
    return {"params": tree}


def describe(folder) -> dict[str, Any]:
    """The checked config.json of a flaxgen folder, its "config" section as a Config and its "rule" as a Rule."""
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        what = "holds no config.json" if folder.is_dir() else "is not a folder"
        raise Incomplete(
            f"{folder} {what}; wanted a folder written by flaxgen.save or `python -m convert`. "
            "A checkpoint of another library becomes one with `python -m convert SOURCE TARGET`"
        )
    card = disk.load_json(path)
    if card.get("format") != FORMAT:
        raise Mismatch(
            f'{path}: "format" is {card.get("format")!r}, wanted {FORMAT!r}; this is not a flaxgen folder. '
            f"Convert it first: `python -m convert {folder} TARGET`"
        )
    if card.get("architecture") != "transformer":
        raise Mismatch(f'{path}: "architecture" is {card.get("architecture")!r}, wanted "transformer"; a newer flaxgen may read it')
    try:
        card["config"] = sizes.Config(**card.get("config", {}))
    except (TypeError, ValueError) as error:
        raise Mismatch(f'{path}: "config": {error}; restore the file as it was written') from None
    _check_end(path, card)
    try:
        card["rule"] = rules.Rule(**(card.get("rule") or {"top_p": 0.95}))
        card["rule"].check()
    except (TypeError, ValueError) as error:
        raise Mismatch(f'{path}: "rule": {error}; restore the file as it was written') from None
    return card


def _check_end(path: pathlib.Path, card: dict) -> None:
    end, vocab = card.get("end") or [], card["config"].vocab
    if not (isinstance(end, list) and all(type(i) is int and 0 <= i < vocab for i in end)):
        raise Mismatch(f'{path}: "end" is {end!r}, wanted a list of token ids from 0 to {vocab - 1}, or null')


def load(folder, *, dtype: Literal["float32", "bfloat16"] | None = None):
    """(model, params, text) of a flaxgen folder; text is None where the folder holds no vocabulary.

    dtype is that of parameters and activations. By default it is what the file holds, but on a CPU always float32, where bfloat16 products
    are fifteen times slower. Every checksum, shape and name is verified; a CheckpointError names what is wrong.
    """
    folder = pathlib.Path(folder)
    card = describe(folder)
    config = card["config"]
    entries = tensors.index(folder)
    if config.layers > len(entries):
        raise Mismatch(
            f"{folder}: {config.layers} layers in config.json, {len(entries)} tensors in the file; restore both as they were written"
        )
    check_shapes(folder, {name: entry.shape for name, entry in entries.items()}, sizes.shapes(config))
    if whole := [f"{name}: {entry.dtype.name}" for name, entry in entries.items() if entry.dtype.kind in "iub"]:
        raise Mismatch(errors.listing(f"{folder}: weights that are no floating-point numbers", whole, "Convert or save the model anew"))
    text = load_text(folder, card)
    if dtype is None:
        stored = {entry.dtype.name for entry in entries.values()}
        dtype = "bfloat16" if stored == {"bfloat16"} and jax.default_backend() != "cpu" else "float32"
    flat = {name: jax.device_put(tensors.read(entries[name]).astype(dtype), may_alias=True) for name in sizes.shapes(config)}
    return transformer.Transformer(config, np.dtype(dtype)), nest(flat), text


def load_text(folder, card: dict):
    """The tokenizer of a flaxgen folder, or None; its length must be that of the model's vocabulary."""
    section, vocab = card.get("text"), card["config"].vocab
    text = flaxgen.text.load(pathlib.Path(folder), section)
    if text is None:
        return None
    reserved = section.get("reserved", 0)
    if type(reserved) is not int or len(text) + reserved != vocab:
        raise Mismatch(
            f"{folder}: the vocabulary has {len(text)} entries and {reserved!r} reserved rows, the model {vocab} rows; "
            "put the vocabulary the model was trained with beside it"
        )
    return dataclasses.replace(text, end=tuple(card.get("end") or ()))


def check_shapes(where, got: dict[str, tuple], wanted: dict[str, tuple]) -> None:
    """Mismatch listing every tensor that is missing, unknown or of another shape."""
    wrong = [f"missing: {name} {shape}" for name, shape in wanted.items() if name not in got]
    wrong += [f"unknown: {name} {shape}" for name, shape in got.items() if name not in wanted]
    wrong += [f"shape of {n}: got {got[n]}, wanted {shape}" for n, shape in wanted.items() if n in got and tuple(got[n]) != shape]
    if wrong:
        raise Mismatch(errors.listing(f"{where}: tensors and config.json do not agree", wrong, "Convert or save the model anew"))


def save(
    folder,
    model,
    params: Params,
    text=None,
    *,
    dtype=None,
    end=None,
    rule=None,
    source=None,
    readme: str | None = None,
    force: bool = False,
) -> None:
    """Writes a flaxgen folder whole or not at all; an existing one is left alone without `force`.

    dtype: "float32", "bfloat16" or None for what the leaves have. end: ids that end a text, by default those of `text`.
    rule: fields of the Rule that a Writer draws by. source: JSON-able provenance.
    readme: the model's card, by default the source in a sentence.
    """
    config = model.config
    if end is None and text is not None:
        end = list(text.end) or None
    flat = flatten(params)
    check_shapes("params", {name: leaf.shape for name, leaf in flat.items()}, sizes.shapes(config))
    card = {
        "format": FORMAT,
        "architecture": "transformer",
        "config": dataclasses.asdict(config),
        "text": None,
        "end": end,
        "rule": rule,
        "source": source,
    }
    if text is not None and len(text) > config.vocab:
        raise Mismatch(f"the vocabulary has {len(text)} entries, the model {config.vocab} rows; save the model with its own vocabulary")
    _check_end(pathlib.Path(folder) / "config.json", card | {"config": config})
    wanted = [(name, np.dtype(dtype) if dtype else flat[name].dtype, shape) for name, shape in sizes.shapes(config).items()]
    with folders.staged(pathlib.Path(folder), force=force) as work:
        if text is not None:
            card["text"] = text.save(work) | {"reserved": config.vocab - len(text)}
        (work / "config.json").write_text(json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (work / "README.md").write_text(
            readme or f"# A flaxgen model\n\nSource: {json.dumps(source, ensure_ascii=False)}\n", encoding="utf-8"
        )
        arrays = (np.asarray(flat[name]).astype(kind) for name, kind, _ in wanted)
        tensors.write(work / "model.safetensors", wanted, arrays, {"format": FORMAT})
