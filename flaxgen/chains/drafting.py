"""Guesses of the next tokens, looked up in what a row has read and written: text that copies is guessed many tokens at a time."""

import jax.numpy as jnp

from flaxgen.protocols import Array

LONGEST = 3  # tokens that must have stood before


def propose(token_BS: Array, length_B: Array, count: int) -> tuple[Array, Array]:
    """(draft_BT, found_B): the `count` tokens after the last place where the row's latest tokens, up to three, stood before.

    token_BS: prompt and answer, length_B of them. Where the copied stretch runs into the end of the row it is repeated from its beginning.

        a b c d e a b  ->  c d e a b ...

    Prompt lookup decoding (Saxena 2023).
    """
    slots = token_BS.shape[1]
    slot_BS = jnp.arange(slots)[None]
    same_BS = jnp.ones(token_BS.shape, jnp.int32)
    agree_BS = jnp.zeros(token_BS.shape, jnp.int32)
    for back in range(LONGEST):
        latest_BT = jnp.take_along_axis(token_BS, jnp.maximum(length_B - 1 - back, 0)[:, None], axis=1)
        earlier_BS = jnp.pad(token_BS, ((0, 0), (back, 0)), constant_values=-1)[:, :slots]
        same_BS = same_BS * ((earlier_BS == latest_BT) & (slot_BS < length_B[:, None] - 1))
        agree_BS += same_BS
    # The longest agreement, and among equals the latest.
    at_B = jnp.argmax(jnp.where(agree_BS > 0, agree_BS * slots + slot_BS, -1), axis=1)
    found_B = jnp.take_along_axis(agree_BS, at_B[:, None], axis=1)[:, 0] > 0
    stretch_B = jnp.maximum(length_B - 1 - at_B, 1)
    place_BT = at_B[:, None] + 1 + jnp.arange(count)[None] % stretch_B[:, None]
    return jnp.take_along_axis(token_BS, jnp.minimum(place_BT, slots - 1), axis=1), found_B
