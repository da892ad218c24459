"""One update: the gradient of a batch, whole or in parts, and what the optimizer makes of it."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from train import partition


@flax.struct.dataclass
class State:
    """All that a run moves: what is trained (in float32), what is not, the optimizer's moments, what the task carries, the updates done."""

    params: Any
    frozen: Any
    opt: Any
    carry: Any
    step: jax.Array


@functools.partial(jax.jit, static_argnames=("task", "optimizer", "freeze", "frozen_dtype"))
def start(task, optimizer, key, given: Any = None, *, freeze: str = "", frozen_dtype: str = "float32") -> State:
    """The state before the first update, from the pair (trained, frozen) where it is given and else from the task's own parameters.

    freeze: a regex of the parameters that are not trained; these are kept in frozen_dtype.
    """
    init_key, carry_key = jax.random.split(key)
    trained, frozen = partition.split(task.init(init_key), freeze) if given is None else given
    frozen = jax.tree.map(lambda leaf: leaf.astype(frozen_dtype), frozen)
    return State(trained, frozen, optimizer.init(trained), task.carry(carry_key), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames=("task", "optimizer", "freeze", "accumulate", "axis", "steep"), donate_argnames="state")
def update(
    task, optimizer, state: State, key, batch, *, freeze: str = "", accumulate: int = 1, axis: str | None = None, steep: float = 0.0
) -> tuple[State, dict[str, jax.Array]]:
    """The state after one batch, and loss, norm, weight and what the task tells besides; only the step goes on where they are not finite.

    accumulate: into how many parts the rows are cut, which are differentiated one after the other and weighed by facts["weight"].
    freeze: the regex that `start` was given.
    axis: name of the pmap axis whose members hold other rows of the same batch.
    steep: a gradient norm beyond which the norm is told as infinite, and so the update a bad one; 0 for none.
    """
    draw = jax.random.fold_in(key, state.step)
    carry, (loss, grads, facts), weight = gradient(task, state, draw, batch, freeze=freeze, accumulate=accumulate, axis=axis)
    norm = optax.tree.norm(grads)
    norm = jnp.where(norm > steep, jnp.inf, norm) if steep else norm
    moves, opt = optimizer.update(grads, state.opt, state.params)
    new = State(optax.apply_updates(state.params, moves), state.frozen, opt, carry, state.step + 1)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state.replace(step=state.step + 1))
    return new, facts | {"loss": loss, "norm": norm, "weight": weight}


def gradient(task, state: State, key, batch, *, freeze: str, accumulate: int, axis: str | None) -> tuple[Any, tuple, jax.Array]:
    """(carry, (loss, gradient, the task's other facts), weight) of all rows of the batch, however they are cut.

    Each is a sum of weight times mean over the sum of weights.
    """

    def mean(params, carry, rows):
        return task.loss(partition.merge(params, state.frozen, freeze), carry, key, rows)

    differentiate = jax.value_and_grad(mean, has_aux=True)

    def part(carry, rows):
        (loss, (carry, facts)), grads = differentiate(state.params, carry, rows)
        return carry, (loss, grads, {name: value for name, value in facts.items() if name != "weight"}), facts["weight"]

    if accumulate == 1 and axis is None:
        return part(state.carry, batch)

    def add(total, rows):
        carry, sums, weight = total
        carry, means, more = part(carry, rows)
        return (carry, jax.tree.map(lambda a, b: a + b * more, sums, means), weight + more), None

    # Part i takes every accumulate-th row, so that each part is spread over the devices as the batch is.
    cut = jax.tree.map(lambda leaf: leaf.reshape(len(leaf) // accumulate, accumulate, *leaf.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(part, state.carry, jax.tree.map(lambda leaf: leaf[0], cut))[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (carry, sums, weight), _ = jax.lax.scan(add, (state.carry, zeros, jnp.zeros((), jnp.float32)), cut)
    if axis is not None:
        sums, weight = jax.lax.psum((sums, weight), axis)
    share = 1 / jnp.where(weight > 0, weight, 1)
    return carry, jax.tree.map(lambda leaf: leaf * share, sums), weight
