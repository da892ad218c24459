"""How a model's images are drawn: the numbers that its folder says, and the noise that each row starts from."""

import dataclasses
import numbers
from functools import partial
from typing import Any, Literal, get_args

import jax
import numpy as np

from flaxgen.chains import langevin
from flaxgen.errors import Mismatch
from flaxgen.protocols import Array

Noise = Literal["uniform", "normal"]
SEEDS = 2**32
MOST = 100_000  # images of a call, and moves of a chain
LARGEST = 1e30  # of a chain's numbers, which float32 holds


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What config.json keeps in "sampling"; what is not there is as published.

    moves: of the chain, from noise to an image. step, noise, clip, kind: of a move, see flaxgen.chains.langevin.
    temperature: of a flow, the standard deviation of its codes; below 1 plays safe. classes: the names of a conditional model's labels.
    """

    moves: int = 60
    step: float = 10.0
    noise: float = 0.005
    clip: float = 0.01
    kind: langevin.Kind = "published"
    temperature: float = 1.0
    classes: tuple[str, ...] = ()

    def __post_init__(self):
        whole("moves", self.moves, 1)
        for name in ("step", "noise", "clip", "temperature"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= LARGEST:
                raise ValueError(f"{name}={value!r}: wanted a number from 0 to {LARGEST:g}")
        if self.kind not in get_args(langevin.Kind):
            raise ValueError(f"kind={self.kind!r}: wanted one of {', '.join(get_args(langevin.Kind))}")
        if not isinstance(self.classes, list | tuple) or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes={self.classes!r}: wanted a list of names")
        object.__setattr__(self, "classes", tuple(self.classes))

    def changed(self, **wishes: Any) -> "Sampling":
        """With these in the place of its own, those that are None left out."""
        return dataclasses.replace(self, **{name: value for name, value in wishes.items() if value is not None})


def of(card: dict[str, Any]) -> Sampling:
    """What a folder's config.json says, in any case the fields that a Sampling has."""
    said = card.get("sampling") or {}
    try:
        return Sampling(**{field.name: said[field.name] for field in dataclasses.fields(Sampling) if field.name in said})
    except (TypeError, ValueError) as error:
        raise Mismatch(f'"sampling" of config.json: {error}; restore the file as it was written') from None


def whole(name: str, value: Any, least: int) -> int:
    """The value, or a ValueError where it is no whole number from `least` to MOST."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= MOST:
        raise ValueError(f"{name}={value!r}: wanted a whole number from {least} to {MOST}")
    return int(value)


def key(seed: int) -> Array:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < SEEDS:
        raise ValueError(f"seed={seed!r}: wanted a whole number from 0 to {SEEDS - 1}")
    return jax.random.key(seed)


@partial(jax.jit, static_argnames=("shape", "noise"))
def drawn(key: Array, row_B: Array, shape: tuple[int, ...], noise: Noise) -> tuple[Array, Array]:
    """(noise of that shape for each row, key_B that the rest of the row draws with): functions of the key and the row's number alone."""

    def one(row):
        start, rest = jax.random.split(jax.random.fold_in(key, row))
        return (jax.random.uniform if noise == "uniform" else jax.random.normal)(start, shape), rest

    return jax.vmap(one)(row_B)
