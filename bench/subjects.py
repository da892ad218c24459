"""What is measured: models of published sizes with random weights, and vocabularies to go with them."""

import functools
import itertools

import jax
import numpy as np

import flaxgen
from flaxgen import weights
from flaxgen.models import config, presets
from flaxgen.text import bytepair


def gpt2(size: str = "gpt2", **scales: float) -> tuple[flaxgen.Transformer, dict]:
    """A GPT-2 of a preset's size in float32, normal weights of 0.02 as training begins with; `scales` multiply the kernels so named."""
    c, noise = presets.PRESETS[size], np.random.default_rng(0)
    flat = {}
    for path, shape in config.shapes(c).items():
        *_, part, leaf = path.split("/")
        scale = 0.02 * scales.get(part, 1.0)
        flat[path] = (
            np.full(shape, leaf == "scale", np.float32) if leaf in ("bias", "scale") else noise.standard_normal(shape, np.float32) * scale
        )
    return flaxgen.Transformer(c), weights.nest(
        jax.tree.map(jax.device_put, {path: leaf.astype(np.float32) for path, leaf in flat.items()})
    )


def copier(size: str, cycle: list[int]) -> tuple[flaxgen.Transformer, dict]:
    """A model of the same shape that goes round the tokens of `cycle`, which differ: after each it is sure of the next.

    All it writes to the residual stream elsewhere is made small; in the last MLP neuron j fires at token j of the cycle alone, since random
    embeddings stand at right angles, and writes token j + 1.
    """
    model, params = gpt2(size, token=4, o=1e-3, down=1e-3)  # long embeddings, or the softmax over 50,257 would not be sure
    flat = {path: np.array(leaf) for path, leaf in weights.flatten(params).items()}
    last, count, width = config.block_name(model.config.layers - 1), len(cycle), model.config.width
    if count > model.config.hidden or len(set(cycle)) != count:
        raise ValueError(f"a cycle of {count} tokens, {len(set(cycle))} different; wanted at most {model.config.hidden}, no two alike")
    own_ED = flat["embed/token/embedding"][cycle]
    unit_ED = own_ED / np.linalg.norm(own_ED, axis=1, keepdims=True)
    # A norm makes the residual sqrt(width) long: 8 at the neuron's own token, about -8 at every other.
    flat[f"{last}/mlp/up/kernel"][:count] = 16 / np.sqrt(width) * unit_ED
    flat[f"{last}/mlp/up/bias"][:count] = -8
    flat[f"{last}/mlp/down/kernel"][:, :count] = 2 * np.roll(own_ED, -1, axis=0).T
    return model, weights.nest(jax.tree.map(jax.device_put, flat))


@functools.cache
def text(*paths: str) -> bytepair.BytePair:
    """GPT-2's vocabulary from its two files; without any, one of the same size and kind, of words such as ` babe` and ` kulora`."""
    return bytepair.BytePair.load(*paths) if paths else _made_up(50_257)


def _made_up(size: int) -> bytepair.BytePair:
    bytes_, blank = list(bytepair.alphabet()), bytepair.alphabet()[ord(" ")]
    syllables = [(one, two) for one in "bcdfghjklmnprstvwxyz" for two in "aeiou"]
    plain = ["".join(pair) for pair in syllables]
    double = [(one, two) for one in plain for two in plain]
    triple = ((one + two, three) for one, two in double for three in plain)
    room = size - 1 - len(bytes_) - len(syllables) - 2 * len(double)
    # Every third word stands after a blank too, as most of GPT-2's tokens do.
    merges = [*syllables, *double, *itertools.islice(triple, room), *((blank, one + two) for one, two in double)]
    return bytepair.BytePair((*bytes_, *map("".join, merges), "<|endoftext|>"), tuple(merges))


def words(text, count: int, seed: int = 0) -> list[int]:
    """`count` different tokens, letters only, whose texts joined in any order read as just these tokens."""
    found = []
    for token in np.random.default_rng(seed).permutation(len(text)).tolist():
        shown = text.decode([token])
        apart = shown[:1] == " " or shown > "\u4e00"  # a blank before it, or an ideograph
        if apart and shown.strip().isalpha() and text.encode(shown * 2) == [token, token]:
            found.append(token)
        if len(found) == count:
            return found
    raise ValueError(f"the vocabulary has {len(found)} such tokens, wanted {count}")
