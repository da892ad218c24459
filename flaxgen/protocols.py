"""The two protocols of the house, and the legend of its axes.

An array's name ends in its axes; einsum letters are the same letters:

    B batch row   T query step   S cache slot   H head   K head width   D model width   F hidden width   V vocabulary
    N drawn token   W candidate token   E entry of a short list   L layer   Y X C image height, width, channel
    J tap of a convolution   G direction   U unit of a recurrent layer

Scalars and pytrees have no suffix. A model learns through a Task and speaks through a Chain; implementations are frozen dataclasses.
"""

from typing import Any, Protocol

import jax

Array = jax.Array
Params = Any
Memory = Any
State = Any


class Task(Protocol):
    """How a model learns."""

    def init(self, key: Array) -> Params: ...

    def carry(self, key: Array) -> Any:
        """What one step hands to the next: () for most models."""

    def loss(self, params: Params, carry: Any, key: Array, batch: Any) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """A mean, then the new carry and facts; facts["weight"] is what the mean was taken over."""

    def export(self, params: Params, carry: Any) -> Params:
        """What is saved and sampled."""


class Chain(Protocol):
    """How a model speaks. Every leaf of memory and state begins with the rows of the batch (a shared row apart)."""

    compiled: bool  # True: the loop compiles start and step whole; False: they call compiled pieces from the host

    def check(self, params: Params, key_B: Array, given: Any, steps: int) -> None:
        """Refuses, before anything is compiled, what the chain cannot do; values are still concrete here."""

    def start(self, params: Params, key_B: Array, given: Any) -> tuple[Memory, State]:
        """Prefill, noise, or the whole answer; memory is what no step changes."""

    def step(self, params: Params, memory: Memory, state: State) -> State:
        """One move; draws with the row's key folded with the row's own position."""

    def done(self, state: State) -> Array:
        """bool, one per row."""

    def read(self, state: State) -> Any:
        """The sample."""
