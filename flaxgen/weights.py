"""A model on disk: config.json, model.safetensors, the tokenizer's files and a README.md in one folder.

    config.json   {"format": "flaxgen-1", "architecture": its name (models.architectures), "config": {sizes}, "text": {tokenizer},
                   "end": [ids], "rule": {what a Writer draws by, unless told otherwise; see rules.as_json},
                   "sampling": {the same of a Painter, or null}, "source": {...}}

The text section's "reserved" counts rows of the embedding that no entry of the vocabulary uses. "weights": "int8" says that kernels and
token embedding are int8 with scales (flaxgen.models.int8); without it they are floating-point numbers.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import jax
import numpy as np

import flaxgen.text
from flaxgen import disk, errors, folders, rules, tensors
from flaxgen.errors import Incomplete, Mismatch
from flaxgen.models import architectures, int8
from flaxgen.models.config import Application
from flaxgen.protocols import Array, Params

FORMAT = "flaxgen-1"
Dtype = Literal["float32", "bfloat16", "int8"]


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


def quantize(params: Params) -> Params:
    """The same tree with kernels and token embedding in int8 and their scales beside them; it runs as it is, and cannot be trained."""
    flat = {}
    for name, leaf in flatten(params).items():
        if int8.coded(name) and leaf.dtype != np.int8:
            on_device = isinstance(leaf, jax.Array)
            flat[name], flat[f"{name}_scale"] = (jax.device_put(each) if on_device else each for each in int8.code(leaf))
        else:
            flat[name] = leaf
    return nest(flat)


def dequantize(params: Params) -> Params:
    """The inverse of `quantize`, to rounding: floating-point numbers everywhere, those that were int8 in float32."""
    flat = flatten(params)
    for name in [name for name, leaf in flat.items() if leaf.dtype == np.int8]:
        decoded = int8.decode(np.asarray(flat[name]), flat.pop(f"{name}_scale"))
        flat[name] = jax.device_put(decoded) if isinstance(flat[name], jax.Array) else decoded
    return nest(flat)


def describe(folder) -> dict[str, Any]:
    """The checked config.json of a flaxgen folder, its "config" section as the architecture's Config and its "rule" as a Rule."""
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "run.json").is_file():
            raise Incomplete(f"{folder} is a run of the trainer; make a flaxgen folder of it: `python -m train export {folder} TARGET`")
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
    try:
        card["config"] = architectures.config(card.get("architecture"), card.get("config"))
    except ValueError as error:
        raise Mismatch(f"{path}: {error}") from None
    _check_end(path, card)
    if card.setdefault("weights", "float") not in ("float", "int8"):
        raise Mismatch(f'{path}: "weights" is {card["weights"]!r}, wanted "float" or "int8"; a newer flaxgen may read it')
    try:
        card["rule"] = rules.of_json(card.get("rule") or {"top_p": 0.95})
    except (TypeError, ValueError) as error:
        raise Mismatch(f'{path}: "rule": {error}; restore the file as it was written') from None
    return card


def _check_end(path: pathlib.Path, card: dict) -> None:
    end, vocab = card.get("end") or [], getattr(card["config"], "vocab", 0)
    if not (isinstance(end, list) and all(type(i) is int and 0 <= i < vocab for i in end)):
        wanted = f"a list of token ids from 0 to {vocab - 1}, or null" if vocab else "null: the model writes no tokens"
        raise Mismatch(f'{path}: "end" is {end!r}, wanted {wanted}')


def load(folder, *, dtype: Dtype | None = None, application: Application | None = None):
    """(model, params, text) of a flaxgen folder; text is None where the folder holds no vocabulary.

    dtype is that of parameters and activations. By default it is what the file holds, but on a CPU always float32 for bfloat16, whose
    products are fifteen times slower there. "int8" rounds kernels and token embedding to a byte, or reads them as they are where the file
    holds them so; all else is float32 then, and activations are bfloat16, on a CPU float32.
    application: who sees whom in a Transformer ("lm", "encoder" or "unilm", see models.config), by default what the folder says.
    Every checksum, shape, type and name is verified; a CheckpointError names what is wrong.
    """
    folder = pathlib.Path(folder)
    _check_dtype(dtype)
    card = describe(folder)
    _check_rounded(card["config"], dtype)
    config, on_cpu = _applied(card["config"], application), jax.default_backend() == "cpu"
    entries = tensors.index(folder)
    layers = getattr(config, "stored_layers", config.layers)
    if layers > len(entries):
        raise Mismatch(f"{folder}: {layers} layers in config.json, {len(entries)} tensors in the file; restore both as they were written")
    check_shapes(folder, {name: entry.shape for name, entry in entries.items()}, _shapes(config, card["weights"]))
    _check_types(folder, {name: entry.dtype for name, entry in entries.items()}, card["weights"])
    text = load_text(folder, card)
    if dtype is None:
        stored = {entry.dtype.name for entry in entries.values()}
        dtype = "int8" if card["weights"] == "int8" else "bfloat16" if stored == {"bfloat16"} and not on_cpu else "float32"
    arrays = _in_dtype(folder, config, dtype, lambda name: tensors.read(entries[name]))
    flat = {name: jax.device_put(array, may_alias=True) for name, array in arrays}
    activations = dtype if dtype != "int8" else "float32" if on_cpu else "bfloat16"
    return architectures.module(config, np.dtype(activations)), nest(flat), text


def _applied(config, application: Application | None):
    if application is None:
        return config
    if application not in get_args(Application):
        raise ValueError(f"application={application!r}: wanted one of {', '.join(get_args(Application))}, or None for the folder's own")
    if config.architecture != "transformer":
        raise ValueError(f"application={application!r}: who sees whom is fixed in the architecture {config.architecture!r}; leave it out")
    if application != "encoder" and not config.speaks:
        raise ValueError(
            f"application={application!r}: the model has no head that gives logits (its outputs: {', '.join(config.outputs) or 'none'}); "
            "convert it from a checkpoint with its MLM head, or use it as an encoder"
        )
    return dataclasses.replace(config, application=application)


def _shapes(config, kind: str) -> dict[str, tuple[int, ...]]:
    return int8.shapes(config) if kind == "int8" else config.shapes()


def _in_dtype(where, config, dtype: str | None, read: Callable[[str], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor in `dtype` (None: as it is), one at a time, from what `read` gives of them in floating-point numbers or in int8."""
    for name in config.shapes():
        array = read(name)
        scale = _checked_scale(where, f"{name}_scale", read(f"{name}_scale")) if array.dtype == np.int8 else None
        if dtype == "int8" and int8.coded(name):
            number, scale = (array, scale) if scale is not None else int8.code(array)
            yield name, number
            yield f"{name}_scale", scale.astype(np.float32)
            continue
        if scale is not None:
            array = int8.decode(array, scale)
        yield name, array.astype("float32" if dtype == "int8" else dtype or array.dtype)


def _checked_scale(where, name: str, scale: np.ndarray) -> np.ndarray:
    wrong = scale[~(np.isfinite(scale) & (scale >= 0))]
    if wrong.size:
        raise Mismatch(f"{where}: {name} holds {wrong[0]}, wanted finite numbers of at least 0; convert or save the model anew")
    return scale


def _check_dtype(dtype) -> None:
    if dtype is not None and dtype not in get_args(Dtype):
        raise ValueError(f"dtype={dtype!r}: wanted one of {', '.join(map(repr, get_args(Dtype)))}, or None for what is there")


def _check_rounded(config, dtype: Dtype | None) -> None:
    if dtype == "int8" and not hasattr(config, "vocab"):
        raise ValueError(f'dtype="int8" rounds language models; the architecture {config.architecture!r} wants float32 or bfloat16')


def load_text(folder, card: dict):
    """The tokenizer of a flaxgen folder, or None; its length must be that of the model's vocabulary."""
    section, vocab = card.get("text"), getattr(card["config"], "vocab", 0)
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


def _check_types(where, got: dict[str, np.dtype], kind: str) -> None:
    """Mismatch listing every tensor that is neither a floating-point number nor int8 where `kind` wants it."""
    numbers = {name for name in got if kind == "int8" and int8.coded(name)}
    wrong = [f"{name}: {dtype.name}" for name, dtype in got.items() if (dtype != np.int8 if name in numbers else dtype.kind in "iub")]
    if wrong:
        what = "wanted int8 kernels and token embedding, all else" if kind == "int8" else "weights that are no"
        raise Mismatch(errors.listing(f"{where}: {what} floating-point numbers", wrong, "Convert or save the model anew"))


def save(
    folder,
    model,
    params: Params,
    text=None,
    *,
    dtype=None,
    end=None,
    rule=None,
    sampling=None,
    source=None,
    readme: str | None = None,
    force: bool = False,
) -> None:
    """Writes a flaxgen folder whole or not at all; an existing one is left alone without `force`.

    dtype: "float32", "bfloat16", "int8" or None for what the leaves have. Leaves that are int8 (see `quantize`) are written as they are, or
    widened where dtype is another. end: ids that end a text, by default those of `text`.
    rule: fields of the Rule that a Writer draws by. sampling: JSON-able, what a Painter draws by. source: JSON-able provenance.
    readme: the model's card, by default the source in a sentence.
    """
    _check_dtype(dtype)
    config, rule = model.config, rules.as_json(rule)
    _check_rounded(config, dtype)
    if end is None and text is not None:
        end = list(text.end) or None
    flat = flatten(params)
    kind = "int8" if any(leaf.dtype == np.int8 for leaf in flat.values()) else "float"
    check_shapes("params", {name: leaf.shape for name, leaf in flat.items()}, _shapes(config, kind))
    _check_types("params", {name: leaf.dtype for name, leaf in flat.items()}, kind)
    if dtype is None and kind == "int8":
        dtype = "int8"
    card = {
        "format": FORMAT,
        "architecture": config.architecture,
        "config": dataclasses.asdict(config),
        "text": None,
        "end": end,
        "rule": rule,
        "sampling": sampling,
        "source": source,
    } | ({"weights": "int8"} if dtype == "int8" else {})
    vocab = getattr(config, "vocab", 0)
    if text is not None and len(text) > vocab:
        raise Mismatch(f"the vocabulary has {len(text)} entries, the model {vocab} rows; save the model with its own vocabulary")
    _check_end(pathlib.Path(folder) / "config.json", card | {"config": config})
    wanted = [(name, _stored(name, dtype, flat), shape) for name, shape in _shapes(config, dtype).items()]
    with folders.staged(pathlib.Path(folder), force=force) as work:
        if text is not None:
            card["text"] = text.save(work) | {"reserved": vocab - len(text)}
        (work / "config.json").write_text(json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (work / "README.md").write_text(
            readme or f"# A flaxgen model\n\nSource: {json.dumps(source, ensure_ascii=False)}\n", encoding="utf-8"
        )
        arrays = (array for _, array in _in_dtype("params", config, dtype, lambda name: np.asarray(flat[name])))
        tensors.write(work / "model.safetensors", wanted, arrays, {"format": FORMAT})


def _stored(name: str, dtype: str | None, flat: dict[str, Array]) -> np.dtype:
    """The type in which a tensor of this name is written."""
    if dtype == "int8":
        return np.dtype("int8" if int8.coded(name) else "float32")
    return np.dtype(dtype or flat[name].dtype)
