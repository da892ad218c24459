"""Images of a flow: codes, drawn or interpolated, through the inverse pass."""

import dataclasses
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen.models import flow
from flaxgen.protocols import Array, Params

Way = Literal["spherical", "linear"]


@struct.dataclass
class State:
    image_BYXC: Array


@dataclasses.dataclass(frozen=True)
class Inverse:
    """`generate(Inverse(model), params, key, draw(model, key_B), steps=1)` gives image_BYXC uint8; nothing is drawn from the key."""

    model: flow.Flow
    compiled: ClassVar[bool] = True

    def check(self, params: Params, key_B: Array, given: Array, steps: int) -> None:
        wanted = self.model.config.dimensions
        if np.ndim(given) != 2 or np.shape(given)[1] != wanted or not jnp.issubdtype(given.dtype, jnp.floating):
            raise ValueError(f"given is {given.dtype} of shape {np.shape(given)}; wanted codes z_BD, floating-point numbers, D = {wanted}")
        if not np.isfinite(given).all():
            raise ValueError("z_BD holds numbers that are not finite; wanted codes, as inverse.draw or the model's forward pass gives them")

    def start(self, params: Params, key_B: Array, given: Array) -> tuple[tuple, State]:
        image_BYXC = self.model.apply(params, given, method=flow.Flow.inverse)
        return (), State(flow.narrow(image_BYXC, self.model.config.bits))

    def step(self, params: Params, memory: tuple, state: State) -> State:
        return state

    def done(self, state: State) -> Array:
        return jnp.ones((len(state.image_BYXC),), bool)

    def read(self, state: State) -> Array:
        return state.image_BYXC


def draw(model: flow.Flow, key_B: Array, temperature: float = 1.0) -> Array:
    """One normal code for every key, of deviation `temperature`."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r}: wanted a finite number of at least 0; below 1 images are plainer, above 1 wilder")
    return temperature * jax.vmap(lambda key: jax.random.normal(key, (model.config.dimensions,)))(key_B)


def between(first_D: Array, last_D: Array, count: int, way: Way = "spherical") -> Array:
    """`count` codes from the first to the last, both among them.

    "spherical" turns from one direction to the other while the length goes evenly from one to the other, so that all the codes are as long
    as drawn ones are; "linear" goes straight.
    """
    if way not in get_args(Way):
        raise ValueError(f"way={way!r}: wanted one of {', '.join(get_args(Way))}")
    if type(count) is not int or count < 2:
        raise ValueError(f"count={count!r}: wanted a whole number of at least 2, the ends among them")
    if np.ndim(first_D) != 1 or np.shape(first_D) != np.shape(last_D):
        raise ValueError(f"codes of shapes {np.shape(first_D)} and {np.shape(last_D)}; wanted two single codes of one length")
    share_B1 = jnp.linspace(0, 1, count)[:, None]
    if way == "linear":
        return (1 - share_B1) * first_D[None] + share_B1 * last_D[None]
    lengths = jnp.linalg.norm(first_D), jnp.linalg.norm(last_D)
    first_D, last_D = (each_D / jnp.maximum(length, 1e-12) for each_D, length in zip((first_D, last_D), lengths, strict=True))
    angle = jnp.arccos(jnp.clip(first_D @ last_D, -1, 1))
    # sin(s angle) / sin(angle), by sinc so that equal codes give s.
    shares_B1 = [s_B1 * jnp.sinc(s_B1 * angle / jnp.pi) / jnp.maximum(jnp.sinc(angle / jnp.pi), 1e-6) for s_B1 in (1 - share_B1, share_B1)]
    turned_BD = shares_B1[0] * first_D[None] + shares_B1[1] * last_D[None]
    return turned_BD * ((1 - share_B1) * lengths[0] + share_B1 * lengths[1])
