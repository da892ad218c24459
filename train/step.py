"""One update: gradient, clipping, AdamW."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class State:
    """All that a run moves: float32 parameters, the optimizer's moments, what the task carries, and the updates done."""

    params: Any
    opt: Any
    carry: Any
    step: jax.Array


def schedule(*, steps: int, rate: float, warmup: int):
    """Learning rate: a straight line up over `warmup` updates, then half a cosine down to a twentieth."""
    return optax.warmup_cosine_decay_schedule(0.0, rate, min(warmup, steps - 1), steps, end_value=rate / 20)


def adamw(*, steps: int, rate: float, warmup: int, decay: float, clip: float) -> optax.GradientTransformation:
    """AdamW behind a clip by global norm; weight decay reaches kernels and embeddings only, not scales and biases."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(schedule(steps=steps, rate=rate, warmup=warmup), b1=0.9, b2=0.98, weight_decay=decay, mask=decayed),
    )


def decayed(params) -> Any:
    """The tree of `params` with True at kernels and embeddings."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in ("kernel", "embedding"), params)


@functools.partial(jax.jit, static_argnames=("task", "optimizer"))
def start(task, optimizer, key) -> State:
    """The state before the first update."""
    init_key, carry_key = jax.random.split(key)
    params = task.init(init_key)
    return State(params, optimizer.init(params), task.carry(carry_key), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames=("task", "optimizer"), donate_argnames="state")
def update(task, optimizer, state: State, key, batch) -> tuple[State, dict[str, jax.Array]]:
    """The state after one batch, and loss, gradient norm and weight; where a gradient is not finite the parameters stay as they were."""
    draw = jax.random.fold_in(key, state.step)
    (loss, (carry, facts)), grads = jax.value_and_grad(task.loss, has_aux=True)(state.params, state.carry, draw, batch)
    norm = optax.tree.norm(grads)
    moves, opt = optimizer.update(grads, state.opt, state.params)
    new = State(optax.apply_updates(state.params, moves), opt, carry, state.step + 1)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    kept = State(state.params, state.opt, state.carry, state.step + 1)
    new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, kept)
    return new, {"loss": loss, "norm": norm, "weight": facts["weight"]}
