"""A prompt that was read already, as a value: kept, saved, extended, and the beginning of as many texts as one likes."""

import dataclasses
import hashlib
import json
import pathlib

import google_crc32c
import jax
import numpy as np

from flaxgen import disk, folders, tensors, weights
from flaxgen.chains import autoregressive
from flaxgen.errors import Mismatch
from flaxgen.models import transformer
from flaxgen.nn import attention
from flaxgen.protocols import Params

FORMAT = "flaxgen-context-1"
SLOTS = 64  # a context's cache holds a multiple of it
CARD, ARRAYS = "context.json", "cache.safetensors"


@dataclasses.dataclass(frozen=True)
class Context:
    """A text, its token ids, and what a model made of all of them but the last, which whoever goes on reads first."""

    text: str
    tokens: tuple[int, ...]
    cache: attention.Cache  # one row
    model: str  # the fingerprint of what read it

    def save(self, folder, *, force: bool = False) -> None:
        """Writes a folder whole or not at all; an existing one is left alone without `force`. It holds the text as it is, unencrypted."""
        named = _named(self.cache)
        card = {"format": FORMAT, "text": self.text, "tokens": list(self.tokens), "model": self.model}
        with folders.staged(pathlib.Path(folder), force=force) as work:
            (work / CARD).write_text(json.dumps(card, ensure_ascii=False) + "\n", encoding="utf-8")
            wanted = [(name, leaf.dtype, leaf.shape) for name, leaf in named.items()]
            tensors.write(work / ARRAYS, wanted, map(np.asarray, named.values()), {"format": FORMAT})


def load(folder, chain: autoregressive.Autoregressive, model: str) -> Context:
    """The Context of a folder, for the model with this fingerprint, which `chain` runs.

    A CheckpointError where the folder is damaged, or was written by other parameters: their cache would give wrong text, silently.
    """
    folder = pathlib.Path(folder)
    card = disk.load_json(folder / CARD)
    if card.get("format") != FORMAT:
        raise Mismatch(f'{folder / CARD}: "format" is {card.get("format")!r}, wanted {FORMAT!r}; name a folder that Context.save wrote')
    if card.get("model") != model:
        raise Mismatch(f"{folder}: read by the weights {card.get('model')!r}, these are {model!r}; read the text again: writer.read(text)")
    text, tokens = card.get("text"), card.get("tokens")
    if not isinstance(text, str) or not isinstance(tokens, list) or not tokens or not all(type(one) is int for one in tokens):
        raise Mismatch(f'{folder / CARD}: "text" or "tokens" is no text or no list of ids; read the text again')
    blank = jax.eval_shape(lambda: chain.empty(1, slots(len(tokens), chain)))
    entries, wanted = tensors.index(folder / ARRAYS), _named(blank)
    got = {name: (*entry.shape, entry.dtype.name) for name, entry in entries.items()}
    weights.check_shapes(folder, got, {name: (*leaf.shape, leaf.dtype.name) for name, leaf in wanted.items()})
    cache = jax.tree.unflatten(jax.tree.structure(blank), [jax.device_put(tensors.read(entries[name])) for name in wanted])
    if int(cache.length_B[0]) != len(tokens) - 1:
        raise Mismatch(
            f"{folder}: a cache of {int(cache.length_B[0])} tokens for {len(tokens)}, wanted all but the last; read the text again"
        )
    return Context(text, tuple(tokens), cache, model)


def read(
    chain: autoregressive.Autoregressive, params: Params, text: str, tokens: list[int], model: str, after: Context | None = None
) -> Context:
    """The Context of a prompt; of `after`, the tokens that both begin with are not read again.

    chain: one that reads in chunks. The chunks of a text that is read in two parts lie elsewhere, which changes nothing but rounding, and
    under the engine not even that (NOTES.md).
    """
    shared = 0 if after is None else _shared(after.tokens[:-1], tokens[:-1])
    cache = chain.empty(1, chain.slots) if after is None else attention.widen(after.cache, chain.slots)
    cache = attention.rewind(cache, np.array([shared], np.int32))
    rest = tokens[shared:-1]
    if rest:
        token_BT = np.zeros((1, chain.slots), np.int32)
        token_BT[0, : len(rest)] = rest
        _, cache = chain.prefill(params, token_BT, np.array([len(rest)], np.int32), cache)
    return Context(text, tuple(tokens), attention.narrow(cache, slots(len(tokens), chain)), model)


def slots(tokens: int, chain: autoregressive.Autoregressive) -> int:
    """The slots that a context of so many tokens keeps."""
    return min(-(-tokens // SLOTS) * SLOTS, chain.model.config.positions)


def fingerprint(model: transformer.Transformer, params: Params, cache: attention.Kind) -> str:
    """A digest of sizes, types, every parameter and the kind of cache."""
    sums = {name: google_crc32c.value(np.ascontiguousarray(leaf).view(np.uint8)) for name, leaf in weights.flatten(params).items()}
    return hashlib.sha256(repr((model, cache, sorted(sums.items()))).encode()).hexdigest()


def _shared(one, other) -> int:
    """How many tokens two texts begin with together."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _named(cache: attention.Cache) -> dict[str, jax.Array]:
    return {jax.tree_util.keystr(key, simple=True, separator="/"): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(cache)}
