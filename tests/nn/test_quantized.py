"""Int8 products against what their numbers stand for, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.models import int8
from flaxgen.nn import attention, quantized


def kernel(out, width, seed=0):
    kernel_FD = np.random.default_rng(seed).normal(0, 1, (out, width)).astype(np.float32)
    return *int8.code(kernel_FD), kernel_FD


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (2, 5), (3, 17)])
@pytest.mark.parametrize(("out", "width"), [(7, 19), (19, 7), (1, 130)])
def test_a_product_is_that_of_the_numbers_to_a_hundredth_of_their_rounding(rows, steps, out, width):
    number_FD, scale_F, _ = kernel(out, width)
    x_BTD = np.random.default_rng(1).normal(0, 1, (rows, steps, width)).astype(np.float32)
    x_BTD[0, 0] *= 1e4  # an outlier coarsens no other token
    wanted_BTF = np.einsum("btd,fd->btf", x_BTD.astype(np.float64), number_FD.astype(np.float64) * scale_F[:, None])
    given_BTF = jax.jit(quantized.project, static_argnums=3)(x_BTD, number_FD, scale_F, np.dtype(np.float32))
    # A digit's rounding is at most max|x| / 127 / 508 for each of the terms, which add up as errors do.
    bound_BTF = np.abs(x_BTD).max(-1)[..., None] / 64516 * np.sqrt(width) * scale_F * 127
    assert (np.abs(given_BTF - wanted_BTF) <= bound_BTF).all()


def test_a_row_has_the_same_bits_whatever_stands_beside_it():
    number_FD, scale_F, _ = kernel(19, 33)
    x_BTD = np.random.default_rng(2).normal(0, 1, (5, 3, 33)).astype(np.float32)
    product = jax.jit(quantized.project, static_argnums=3)
    together = product(x_BTD, number_FD, scale_F, np.dtype(np.float32))
    for row in range(5):
        np.testing.assert_array_equal(product(x_BTD[row : row + 1], number_FD, scale_F, np.dtype(np.float32))[0], together[row])


def test_zeros_give_zeros_and_what_is_not_finite_stays_so():
    number_FD, scale_F, _ = kernel(7, 19)
    x_BTD = np.zeros((1, 4, 19), np.float32)
    x_BTD[0, 1, 2], x_BTD[0, 2, 3] = np.nan, np.inf
    y_BTF = np.asarray(quantized.project(x_BTD, number_FD, scale_F, np.dtype(np.float32)))
    assert (y_BTF[0, [0, 3]] == 0).all() and not np.isfinite(y_BTF[0, 1:3]).any()


def test_activations_learn_through_an_int8_kernel_in_their_own_type():
    number_FD, scale_F, _ = kernel(7, 19)
    x_BTD = jnp.asarray(np.random.default_rng(3).normal(0, 1, (2, 3, 19)), jnp.bfloat16)
    slope_BTD = jax.grad(lambda x: quantized.project(x, number_FD, scale_F, np.dtype(np.float32)).sum())(x_BTD)
    assert slope_BTD.dtype == jnp.bfloat16
    wanted_D = int8.decode(number_FD, scale_F).sum(axis=0)
    np.testing.assert_allclose(slope_BTD.astype(np.float32), np.broadcast_to(wanted_D, (2, 3, 19)), rtol=0.02, atol=0.1)


def test_an_accelerators_form_gives_the_same_numbers(monkeypatch):
    number_FD, scale_F, _ = kernel(7, 19)
    noise = np.random.default_rng(4)
    x_BTD = noise.normal(0, 1, (2, 3, 19)).astype(np.float32)
    q_BTHK, weight_BTHS = noise.normal(0, 1, (2, 5, 6, 4)).astype(np.float32), noise.random((2, 5, 6, 9)).astype(np.float32)
    codes = quantized.code(noise.normal(0, 1, (2, 9, 6, 4)).astype(np.float32))
    scale_BHS = codes.scale.swapaxes(1, 2)
    k, v = (quantized.Codes(codes.number.transpose(*axes), scale_BHS) for axes in ((0, 2, 3, 1), (0, 2, 1, 3)))

    def all_three():
        return (
            quantized.project(x_BTD, number_FD, scale_F, np.dtype(np.float32)),
            quantized.scores(q_BTHK, k),
            quantized.mix(weight_BTHS, v),
        )

    given = all_three()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for one, other in zip(given, all_three(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-4)


def cached(kind, k_BTHK, v_BTHK, slots=9):
    """One layer's buffers with these tokens in their first slots, and the mask under which every query sees them all."""
    rows, steps, heads, width = k_BTHK.shape
    cache = attention.Cache.empty(rows, slots, layers=1, heads=heads, head_width=width, dtype=jnp.float32, kind=kind)
    slot_BT = jnp.tile(jnp.arange(steps), (rows, 1))
    k, v = attention.append(cache.k[0], cache.v[0], jnp.asarray(k_BTHK), jnp.asarray(v_BTHK), slot_BT)
    return k, v, jnp.broadcast_to(jnp.arange(slots) < steps, (rows, steps, slots))


@pytest.mark.parametrize("heads", [3, 8])
def test_attention_over_int8_buffers_is_that_over_what_their_numbers_stand_for(heads):
    noise = np.random.default_rng(5)
    q_BTHK, k_BTHK, v_BTHK = (noise.normal(0, 1, (2, 5, heads, 4)).astype(np.float32) for _ in range(3))
    k, v, mask_BTS = cached("int8", k_BTHK, v_BTHK)
    assert k.number.dtype == v.number.dtype == jnp.int8
    k_BHKS, v_BHSK = k.number * k.scale[:, :, None], v.number * v.scale[..., None]
    wanted_BTHK = attention.attend(q_BTHK, (k_BHKS,), (v_BHSK,), (mask_BTS,))
    np.testing.assert_allclose(attention.attend(q_BTHK, (k,), (v,), (mask_BTS,)), wanted_BTHK, atol=1e-6)
    # And that is near what was never rounded: a number is off by half of max / 127 at most.
    assert np.abs(k_BHKS[..., :5].transpose(0, 3, 1, 2) - k_BTHK).max() <= np.abs(k_BTHK).max() / 254 * 1.001
    assert np.abs(v_BHSK[:, :, :5].swapaxes(1, 2) - v_BTHK).max() <= np.abs(v_BTHK).max() / 254 * 1.001


@pytest.mark.parametrize("kind", ["float", "int8"])
@pytest.mark.parametrize("where", ["key", "value"])
@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_what_is_not_finite_is_seen_by_those_that_see_it_and_leaks_from_no_hidden_slot(kind, where, what):
    noise = np.random.default_rng(6)
    q_BTHK, k_BTHK, v_BTHK = (noise.normal(0, 1, (2, 5, 3, 4)).astype(np.float32) for _ in range(3))
    sees_BTS = jnp.broadcast_to(jnp.arange(9) < 4, (2, 5, 9))
    k, v, _ = cached(kind, k_BTHK[:, :4], v_BTHK[:, :4])
    clean_BTHK = attention.attend(q_BTHK, (k,), (v,), (sees_BTS,))
    (k_BTHK if where == "key" else v_BTHK)[0, 4, 1, 2] = what
    k, v, mask_BTS = cached(kind, k_BTHK, v_BTHK)
    np.testing.assert_array_equal(attention.attend(q_BTHK, (k,), (v,), (sees_BTS,)), clean_BTHK)
    seen = np.isfinite(attention.attend(q_BTHK, (k,), (v,), (mask_BTS,)))
    assert not seen[0, :, 1].any() and seen[1].all()


def test_an_unknown_kind_of_cache_is_refused():
    with pytest.raises(ValueError, match="kind='int4': wanted"):
        attention.Cache.empty(1, 2, layers=1, heads=1, head_width=1, dtype=jnp.float32, kind="int4")
