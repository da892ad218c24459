"""What is trained and what is not: a tree of parameters cut in two by a regex, and put together again.

Paths are written as "block_07/attend/q/kernel", without "params/". A stacked leaf "block/attend/q/kernel" stands for block_00, block_01 and
so on; where only some of its layers match, both trees hold a leaf of that same path with fewer layers. Which layers each holds is not
stored: it follows from the regex and from their number, so names stay what optimizers and sharding rules know.

    freeze = "block_00/|block_02/"      block/attend/q/kernel [4, D, D]  ->  trained [2, D, D]: layers 1, 3    frozen [2, D, D]: layers 0, 2
"""

import itertools
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from flaxgen.models import config


def split(params: Any, freeze: str) -> tuple[Any, Any]:
    """(trained, frozen): leaves whose path `freeze` matches somewhere are frozen; the empty regex freezes nothing."""
    if not freeze:
        return params, {}
    trained, frozen = {}, {}
    for path, leaf in _flat(params).items():
        if stacked(path):
            learnt, fixed = layers(path, leaf.shape[0], freeze)
            trained |= {path: _take(leaf, learnt)} if learnt else {}
            frozen |= {path: _take(leaf, fixed)} if fixed else {}
        else:
            (frozen if _matches(freeze, path) else trained)[path] = leaf
    if not trained or not frozen:
        number = "nothing" if not frozen else "every parameter"
        raise ValueError(f"the regex {freeze!r} freezes {number}; wanted one that matches some of the paths, which are {_some(params)}")
    return _deep(trained), _deep(frozen)


def merge(trained: Any, frozen: Any, freeze: str) -> Any:
    """The tree that `split` cut by the same regex; a leaf of which some layers are frozen is copied, the others are passed on."""
    if not frozen:
        return trained
    whole = _flat(trained)
    for path, leaf in _flat(frozen).items():
        whole[path] = _interleave(path, whole[path], leaf, freeze) if path in whole else leaf
    return _deep(whole)


def layers(path: str, count: int, freeze: str) -> tuple[list[int], list[int]]:
    """(trained, frozen) layers of the `count` of a stacked leaf."""
    rest = path.partition("block/")[2]
    fixed = [layer for layer in range(count) if freeze and _matches(freeze, f"{config.block_name(layer)}/{rest}")]
    return [layer for layer in range(count) if layer not in fixed], fixed


def stacked(path: str) -> bool:
    """Whether a leaf of this path begins with the layer axis."""
    return short(path).startswith("block/")


def name(path) -> str:
    """The path of a leaf as jax.tree_util gives it, as regexes see it."""
    return short("/".join(str(key.key) for key in path))


def short(path: str) -> str:
    """The path that regexes see."""
    return path.removeprefix("params/")


def _matches(freeze: str, path: str) -> bool:
    try:
        return re.search(freeze, short(path)) is not None
    except re.error as error:
        raise ValueError(f"{freeze!r} is no regular expression: {error}; write for example 'embed/|block_0[0-5]/'") from None


def _interleave(path, learnt, fixed, freeze):
    count = learnt.shape[0] + fixed.shape[0]
    wanted = layers(path, count, freeze)
    if (learnt.shape[0], fixed.shape[0]) != tuple(map(len, wanted)):
        found = f"{learnt.shape[0]} trained and {fixed.shape[0]} frozen layers"
        raise ValueError(f"{short(path)}: {found}, {freeze!r} makes {len(wanted[0])} and {len(wanted[1])}; merge by the regex of split")
    # Runs of layers, so that layers 0 to 5 frozen is one concatenation of two pieces, and its transpose two slices.
    pieces, at = [], {False: 0, True: 0}
    for frozen, run in itertools.groupby(range(count), key=set(wanted[1]).__contains__):
        size = len(list(run))
        pieces.append((fixed if frozen else learnt)[at[frozen] : at[frozen] + size])
        at[frozen] += size
    return jnp.concatenate(pieces)


def _take(leaf, chosen: list[int]):
    return leaf if len(chosen) == leaf.shape[0] else leaf[np.asarray(chosen)]


def _flat(tree) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _deep(leaves: dict[str, Any]):
    return traverse_util.unflatten_dict(leaves, sep="/")


def _some(params) -> str:
    paths = [short(path).replace("block/", "block_00/", 1) if stacked(path) else short(path) for path in _flat(params)]
    more = f", ... ({len(paths)} in all)" if len(paths) > 8 else ""
    return ", ".join(sorted(paths)[:8]) + more
