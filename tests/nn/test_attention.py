"""Attention as training does it against attention over caches, which jax differentiates by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nn import attention


def arrays():
    noise = np.random.default_rng(0)
    heads = [jnp.asarray(noise.normal(0, 1, (2, 5, 3, 4)), jnp.float32) for _ in range(4)]
    valid_BT, floor_BT = np.array([[True] * 3 + [False] * 2, [True] * 5]), np.array([[1] * 5, [1, 1, 3, 3, 3]])
    sight, _ = attention.look(jnp.tile(jnp.arange(1, 6), (2, 1)), jnp.asarray(valid_BT), (), jnp.asarray(floor_BT))
    return heads, sight.masks[0]


def test_values_and_gradients_are_those_of_attention_over_a_cache_for_padding_and_packed_documents_too():
    (q_BTHK, k_BSHK, v_BSHK, slope_BTHK), mask_BTS = arrays()
    assert not mask_BTS[0, 4].any() and mask_BTS[1, 4].tolist() == [False, False, True, True, True]

    def cached(q_BTHK, k_BSHK, v_BSHK):
        return attention.attend(q_BTHK, (k_BSHK.transpose(0, 2, 3, 1),), (v_BSHK.transpose(0, 2, 1, 3),), (mask_BTS,))

    wanted_BTHK, pull = jax.vjp(cached, q_BTHK, k_BSHK, v_BSHK)
    given_BTHK, pull_too = jax.vjp(lambda *qkv: attention.attend_once(*qkv, mask_BTS), q_BTHK, k_BSHK, v_BSHK)
    np.testing.assert_allclose(given_BTHK, wanted_BTHK, atol=1e-6)
    for given, wanted in zip(pull_too(slope_BTHK), pull(slope_BTHK), strict=True):
        np.testing.assert_allclose(given, wanted, atol=1e-6)


def test_a_gradient_of_a_gradient_goes_through_as_penalties_want_it():
    (q_BTHK, k_BSHK, v_BSHK, slope_BTHK), mask_BTS = arrays()

    def steepness(k_BSHK):
        return jnp.square(jax.grad(lambda k: jnp.sum(attention.attend_once(q_BTHK, k, v_BSHK, mask_BTS) * slope_BTHK))(k_BSHK)).sum()

    way_BSHK = jnp.asarray(np.random.default_rng(1).normal(0, 1, k_BSHK.shape), jnp.float32)
    slope = jnp.vdot(jax.grad(steepness)(k_BSHK), way_BSHK)
    measured = (steepness(k_BSHK + 1e-2 * way_BSHK) - steepness(k_BSHK - 1e-2 * way_BSHK)) / 2e-2
    np.testing.assert_allclose(slope, measured, rtol=5e-3)


def grown(cache, token_BTHK, valid_BT):
    """The cache with the same numbers as keys and as values of new tokens, and their sight."""
    rank_BT = cache.length_B[:, None] + jnp.cumsum(valid_BT, axis=1)
    sight, last = attention.look(rank_BT, valid_BT, (cache,))
    k_BHKS = jax.vmap(lambda k, new, slot: k.at[:, :, slot].set(new, mode="drop"))(
        cache.k[0], token_BTHK.transpose(0, 2, 3, 1), sight.slot_BT
    )
    v_BHSK = jax.vmap(lambda v, new, slot: v.at[:, slot].set(new, mode="drop"))(cache.v[0], token_BTHK.transpose(0, 2, 1, 3), sight.slot_BT)
    return last.replace(k=(k_BHKS,), v=(v_BHSK,)), sight


def read(cache, q_BTHK, sight):
    return attention.attend(q_BTHK, cache.k, cache.v, sight.masks)


def test_a_rewound_cache_goes_on_as_if_the_later_tokens_had_never_been_read():
    noise = np.random.default_rng(2)
    token_BTHK = jnp.asarray(noise.normal(0, 1, (2, 7, 3, 4)), jnp.float32)
    empty = attention.Cache.empty(2, 9, layers=1, heads=3, head_width=4, dtype=jnp.float32)
    valid_BT = jnp.asarray([[True] * 5, [True] * 3 + [False] * 2])
    read_B = jnp.array([2, 3])
    whole, _ = grown(empty, token_BTHK[:, :5], valid_BT)
    assert whole.length_B.tolist() == [5, 3]
    back = jax.jit(attention.rewind)(whole, read_B)
    assert back.length_B.tolist() == [2, 3] and (back.rank_BS[0, 2:] == attention.HIDDEN).all() and back.rank_BS[0, :2].tolist() == [1, 2]
    short, _ = grown(empty, token_BTHK[:, :5], jnp.arange(5)[None] < read_B[:, None])
    new_BT = jnp.ones((2, 2), bool)
    (given, sight), (wanted, sight_too) = (grown(cache, token_BTHK[:, 5:], new_BT) for cache in (back, short))
    for one, other in ((given.rank_BS, wanted.rank_BS), (given.length_B, wanted.length_B)):
        np.testing.assert_array_equal(one, other)
    q_BTHK = token_BTHK[:, 5:]
    np.testing.assert_array_equal(read(given, q_BTHK, sight), read(wanted, q_BTHK, sight_too))


def test_rewinding_beyond_what_was_read_changes_nothing():
    token_BTHK = jnp.ones((2, 5, 3, 4))
    cache, _ = grown(
        attention.Cache.empty(2, 6, layers=1, heads=3, head_width=4, dtype=jnp.float32),
        token_BTHK,
        jnp.arange(5)[None] < jnp.array([[5], [2]]),
    )
    again = attention.rewind(cache, jnp.array([6, 4]))
    assert jax.tree.all(jax.tree.map(np.array_equal, again, cache))


def test_a_wider_cache_holds_the_same_tokens_and_takes_more():
    noise = np.random.default_rng(3)
    token_BTHK = jnp.asarray(noise.normal(0, 1, (2, 5, 3, 4)), jnp.float32)
    narrow, large = (attention.Cache.empty(2, slots, layers=1, heads=3, head_width=4, dtype=jnp.float32) for slots in (3, 8))
    (narrow, _), (large, _) = (grown(cache, token_BTHK[:, :3], jnp.ones((2, 3), bool)) for cache in (narrow, large))
    wide = attention.widen(narrow, 8)
    assert jax.tree.all(jax.tree.map(np.array_equal, wide, large))
    with pytest.raises(ValueError, match="slots=2: the cache has 3 already"):
        attention.widen(narrow, 2)
