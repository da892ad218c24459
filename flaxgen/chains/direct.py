"""Speaking in one pass: log-probabilities of all places at once, as of a model that labels every character."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen.protocols import Array, Params


@struct.dataclass
class State:
    log_prob_BTV: Array


@dataclasses.dataclass(frozen=True)
class Direct:
    """`generate(Direct(model), params, key, token_BT, steps=1)` gives log_prob_BTV in float32; nothing is drawn, so the key means nothing.

    model: a Linen module whose `apply(params, token_BT)` gives logit_BTV, such as flaxgen.models.gated.Gated.
    """

    model: Any
    compiled: ClassVar[bool] = True

    def check(self, params: Params, key_B: Array, given: Array, steps: int) -> None:
        vocab = self.model.config.vocab
        if np.ndim(given) != 2 or not np.issubdtype(given.dtype, np.integer):
            raise ValueError(f"given is {given.dtype} of shape {np.shape(given)}; wanted token_BT, whole numbers, rows of one length")
        if np.size(given) == 0 or np.min(given) < 0 or np.max(given) >= vocab:
            raise ValueError(f"token_BT is empty or holds ids outside 0 to {vocab - 1}; encode the texts with the model's own vocabulary")

    def start(self, params: Params, key_B: Array, given: Array) -> tuple[tuple, State]:
        return (), State(jax.nn.log_softmax(self.model.apply(params, given).astype(jnp.float32), axis=-1))

    def step(self, params: Params, memory: tuple, state: State) -> State:
        return state

    def done(self, state: State) -> Array:
        return jnp.ones((len(state.log_prob_BTV),), bool)

    def read(self, state: State) -> Array:
        return state.log_prob_BTV
