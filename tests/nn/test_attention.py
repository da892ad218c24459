"""Attention as training does it against attention over caches, which jax differentiates by itself."""

import jax
import jax.numpy as jnp
import numpy as np

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
