"""Tables over tokens on the device: what a row may draw next, and where that leads.

A table (text.tables) is padded to one of a few sizes, so that another pattern of the same size compiles nothing.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen.protocols import Array
from flaxgen.text import tables

BUCKETS = ((64, 64, 1 << 12), (1 << 12, 1 << 10, 1 << 18), tables.BUDGET)  # states, classes of tokens, cells

# Every token, for ever: as a constraint it refuses nothing, and as stop strings it never hits.
NEUTRAL = tables.Table(
    class_V=np.zeros(0, np.int16),
    base_Q=np.zeros(1, np.int32),
    owner_L=np.zeros(1, np.int16),
    next_L=np.zeros(1, np.int16),
    left_Q=np.zeros(1, np.int32),
)


@struct.dataclass
class Tables:
    """One table a row, as text.tables.Table has it, of Q states and L cells; classes: how many classes C there may be."""

    class_BV: Array
    base_BQ: Array
    owner_BL: Array
    next_BL: Array
    left_BQ: Array
    classes: int = struct.field(pytree_node=False)


def bucket(rows: Sequence[tables.Table | None]) -> tuple[int, int, int]:
    """The least bucket that holds all these tables."""
    sizes = [_size(row) for row in rows if row is not None]
    found = next((bucket for bucket in BUCKETS if all(_fits(size, bucket) for size in sizes)), None)
    if found is None:
        raise ValueError(
            f"constraint: got tables of {sizes} states, classes and cells, wanted at most {BUCKETS[-1]}; make them by text.tables"
        )
    return found


def stacked(rows: Sequence[tables.Table | None], vocab: int, *, size: tuple[int, int, int] | None = None) -> Tables:
    """The tables of a batch side by side (numpy), padded to a bucket, by default the least; None gives a neutral row."""
    size = bucket(rows) if size is None else size
    rows = [NEUTRAL if row is None else row for row in rows]
    for row in rows:
        if not _fits(_size(row), size) or len(row.class_V) > vocab:
            raise ValueError(
                f"constraint: got a table of {_size(row)} states, classes and cells over {len(row.class_V):,} tokens, wanted at most "
                f"{size} over {vocab:,}; make it with the model's own tokenizer, or allow a larger bucket of {BUCKETS}"
            )
    states, classes, cells = size
    return Tables(
        class_BV=_padded([row.class_V for row in rows], vocab, 0),
        base_BQ=_padded([row.base_Q for row in rows], states, 0),
        owner_BL=_padded([row.owner_L for row in rows], cells, -1),
        next_BL=_padded([row.next_L for row in rows], cells, 0),
        left_BQ=_padded([row.left_Q for row in rows], states, tables.NEVER),
        classes=classes,
    )


def _size(row: tables.Table) -> tuple[int, int, int]:
    return len(row.left_Q), int(row.class_V.max(initial=0)) + 1, len(row.owner_L)


def _fits(got: tuple[int, int, int], most: tuple[int, int, int]) -> bool:
    return all(a <= b for a, b in zip(got, most, strict=True))


def _padded(rows: Sequence[np.ndarray], width: int, fill: int) -> np.ndarray:
    padded = np.full((len(rows), width), fill, rows[0].dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded


def allowed(given: Tables, state_B: Array, left_B: Array) -> tuple[Array, Array]:
    """(allowed_BV, accepting_B): the tokens after which left_B more can still reach acceptance; whether the text is accepted as it is."""
    next_BC = _from(given, state_B)
    open_BC = (next_BC >= 0) & (_at(given.left_BQ, next_BC) <= left_B[:, None])
    return _at(open_BC, given.class_BV), _at(given.left_BQ, state_B[:, None])[:, 0] == 0


def walk(given: Tables, state_B: Array, token_B: Array) -> Array:
    """The state after a token; where it is refused, the same state."""
    next_B = _next(given, state_B, _at(given.class_BV, token_B[:, None]))[:, 0]
    return jnp.where(next_B >= 0, next_B, state_B)


def over(given: Tables, state_B: Array, left_B: Array) -> Array:
    """(B,) bool: the text is accepted, and nothing may follow that left_B tokens can bring to acceptance again."""
    next_BC = _from(given, state_B)
    open_BC = (next_BC >= 0) & (_at(given.left_BQ, next_BC) < left_B[:, None])
    return (_at(given.left_BQ, state_B[:, None])[:, 0] == 0) & ~open_BC.any(axis=1)


def hit(given: Tables, state_B: Array) -> Array:
    """(B,) bool: a stop string stands in the text. Nothing follows such a state, by which a neutral row is told from it."""
    return over(given, state_B, jnp.full_like(state_B, tables.NEVER))


def _from(given: Tables, state_B: Array) -> Array:
    """next_BC: the state after each class, -1 where it is refused."""
    return _next(given, state_B, jnp.arange(given.classes)[None])


def _next(given: Tables, state_B: Array, class_BC: Array) -> Array:
    cell_BC = _at(given.base_BQ, state_B[:, None]) + class_BC
    # The last rows of a comb may end before their last classes do: there is no owner behind its end.
    owner_BC = jnp.take_along_axis(given.owner_BL, cell_BC, axis=1, mode="fill", fill_value=-1)
    return jnp.where(owner_BC == state_B[:, None], _at(given.next_BL, cell_BC), -1)


def _at(x_BN: Array, place_BE: Array) -> Array:
    """Each row's entries at its places, of which any may lie outside where nobody looks at the result; whole numbers come as int32."""
    found_BE = jnp.take_along_axis(x_BN, place_BE.astype(jnp.int32), axis=1, mode="clip")
    return found_BE if found_BE.dtype == bool else found_BE.astype(jnp.int32)
