"""The loop that runs any Chain: start, advance, read."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.protocols import Array, Chain, Memory, Params, State

ALL = 2**31 - 1


def generate(chain: Chain, params: Params, key: Array, given: Any, *, steps: int = 128, samples: int = 1) -> Any:
    """The sample of `chain` after `steps` moves, or fewer when every row is done.

    given: what the chain starts from; its leaves begin with the rows. samples: how many grow from each row of `given`, side by side.
    key: one key, folded with the place of each row, or one key for each of the rows * samples. The numbers in `given`, the keys and `steps`
    are traced: new ones do not compile anew, new shapes do.
    """
    memory, state = begin(chain, params, key, given, steps=steps, samples=samples)
    return chain.read(advance(chain, params, memory, state, steps - 1))


def stream(chain: Chain, params: Params, key: Array, given: Any, *, steps: int = 128, samples: int = 1, every: int = 1) -> Iterator[Any]:
    """What `generate` gives, read after the first move and then after `every` more, until all rows are done."""
    if type(every) is not int or every < 1:
        raise ValueError(f"every={every!r}: wanted a whole number of at least 1")
    memory, state = begin(chain, params, key, given, steps=steps, samples=samples)
    yield chain.read(state)
    left = steps - 1
    while left > 0 and not np.all(chain.done(state)):
        state = advance(chain, params, memory, state, min(every, left))
        left -= every
        yield chain.read(state)


def begin(chain: Chain, params: Params, key: Array, given: Any, *, steps: int, samples: int = 1) -> tuple[Memory, State]:
    """Checks, then memory and the state after the first move."""
    for name, value in (("steps", steps), ("samples", samples)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}={value!r}: wanted a whole number of at least 1")
    rows = len(jax.tree.leaves(given)[0]) * samples
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    key_B = key if jnp.ndim(key) else _row_keys(key, rows)
    if key_B.shape != (rows,):
        raise ValueError(f"{key_B.shape[0]} keys for {rows} rows ({samples} samples of each prompt); give one key, or one for every row")
    chain.check(params, key_B, given, steps)
    return (_start if chain.compiled else type(chain).start)(chain, params, key_B, given)


def advance(chain: Chain, params: Params, memory: Memory, state: State, steps: int, *, done: int | None = None) -> State:
    """The state after `steps` more moves, or fewer when `done` rows, by default all, are done; the old state's buffers are reused."""
    if chain.compiled:
        return _advance(chain, params, memory, state, steps, ALL if done is None else done)
    while steps > 0 and _goes_on(chain, state, ALL if done is None else done):
        state, steps = chain.step(params, memory, state), steps - 1
    return state


@partial(jax.jit, static_argnames="chain")
def _start(chain: Chain, params: Params, key_B: Array, given: Any) -> tuple[Memory, State]:
    return chain.start(params, key_B, given)


@partial(jax.jit, static_argnames="chain", donate_argnames="state")
def _advance(chain: Chain, params: Params, memory: Memory, state: State, steps: Array, done: Array) -> State:
    def more(carry):
        return (carry[0] > 0) & _goes_on(chain, carry[1], done)

    return jax.lax.while_loop(more, lambda carry: (carry[0] - 1, chain.step(params, memory, carry[1])), (steps, state))[1]


@partial(jax.jit, static_argnames="chain")
def _goes_on(chain: Chain, state: State, done: Array) -> Array:
    done_B = chain.done(state)
    return done_B.sum() < jnp.minimum(done, done_B.size)


@partial(jax.jit, static_argnames="rows")
def _row_keys(key: Array, rows: int) -> Array:
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))
