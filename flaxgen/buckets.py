"""Few sizes for the lists and tables of controls, so that few programs are compiled and all rows of an engine fit one of them."""

from collections.abc import Iterable

import jax
import numpy as np

from flaxgen import automata, controls

SPARE = 64  # biased and banned tokens that a rule may add to a model's own without another program

Sizes = dict[str, tuple[int, ...]]  # the path of a leaf and its shape, but for the rows; "classes" is that of the tables


def sizes(made: controls.Controls, *, banned: int = 0, tables: int = 0) -> Sizes:
    """What holds these controls, with room for a few biases beside `banned` tokens, and tables of at least the bucket of that number.

    Constraints and stop strings have tables of one size.
    """
    found = {jax.tree_util.keystr(path): leaf.shape[1:] for path, leaf in jax.tree_util.tree_leaves_with_path(made)}
    biases = max(found[".bias_id_BE"], (controls.bias_bucket(banned + SPARE),))
    found |= {".bias_id_BE": biases, ".bias_value_BE": biases}
    if made.constraint is not None:
        got = (made.constraint, made.stop)
        size = max(automata.BUCKETS[tables], *((one.base_BQ.shape[1], one.classes, one.next_BL.shape[1]) for one in got))
        states, classes, cells = size
        for name in (".constraint", ".stop"):
            found |= {f"{name}.base_BQ": (states,), f"{name}.left_BQ": (states,), f"{name}.owner_BL": (cells,), f"{name}.next_BL": (cells,)}
        found["classes"] = (classes,)
    return found


def join(several: Iterable[Sizes]) -> Sizes:
    """The sizes that hold all of these, which are of one family."""
    several = list(several)
    return {name: tuple(np.max([one[name] for one in several], axis=0).tolist()) for name in several[0]}


def within(needed: Sizes, given: Sizes) -> Sizes:
    """The given sizes; ValueError where something needs more than they hold."""
    for name, need in needed.items():
        if any(one > most for one, most in zip(need, given[name], strict=True)):
            raise ValueError(f"{_field(name)}: needs room for {need}, {given[name]} are held here; give a shorter or simpler one")
    return given


def _field(leaf: str) -> str:
    """What of a Rule makes this leaf of Controls as large as it is."""
    fields = {
        "ban_": "ban",
        "bias_": "logit_bias",
        "end_": "end",
        "stop": "stop",
        "constraint": "regex or choices",
        "classes": "regex, choices or stop",
    }
    return next((field for part, field in fields.items() if part in leaf), leaf)


def fitted(made: controls.Controls, sizes: Sizes) -> controls.Controls:
    """`made` with lists and tables padded to `sizes`; what is added means nothing."""

    def pad(path, leaf):
        more = [(0, want - have) for have, want in zip(leaf.shape[1:], sizes[jax.tree_util.keystr(path)], strict=True)]
        if path[-1].name == "ban_BEN":  # the last token of a banned sequence stands last
            more[-1] = more[-1][::-1]
        return np.pad(leaf, [(0, 0), *more], constant_values=-1)

    grown = jax.tree_util.tree_map_with_path(pad, made)
    if made.constraint is None:
        return grown
    (classes,) = sizes["classes"]
    return grown.replace(constraint=grown.constraint.replace(classes=classes), stop=grown.stop.replace(classes=classes))
