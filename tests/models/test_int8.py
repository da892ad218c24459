"""A Transformer with int8 weights, with int8 caches and with both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

from flaxgen import sharding, weights
from flaxgen.models import config as sizes
from flaxgen.models import dispatched, int8, layers, transformer
from flaxgen.nn import attention

WIRINGS = ("pre", "between")
apply = jax.jit(lambda model, *given, **named: model.apply(*given, **named), static_argnums=0, static_argnames="head")


def tiny(wiring):
    model = transformer.Transformer(sizes.Config(37, 23, 12, 2, 3, 20, wiring, "gelu", dropout=0.0))
    noise = np.random.default_rng(3)
    shapes = sizes.shapes(model.config).items()
    return model, weights.nest({name: jnp.asarray(noise.normal(name.endswith("scale"), 0.4, shape), jnp.float32) for name, shape in shapes})


def spread(logit_BTV, other_BTV):
    """The largest difference of two models' logits, as a share of their deviation."""
    return float(jnp.abs(logit_BTV - other_BTV).max() / logit_BTV.std())


def test_rows_are_rounded_to_the_nearest_of_255_numbers_by_their_largest():
    number_FD, scale_F = int8.code(np.array([[1.27, -0.5, 0.004], [0, 0, 0], [-254, 3, 1]], np.float32))
    assert number_FD.tolist() == [[127, -50, 0], [0, 0, 0], [-127, 2, 0]] and number_FD.dtype == np.int8
    np.testing.assert_allclose(scale_F, [0.01, 0, 2], rtol=1e-6)
    tiny_FD = np.full((1, 3), 1e-44, np.float32)
    assert not int8.decode(*int8.code(tiny_FD)).any()
    with pytest.raises(ValueError, match="2 rows hold numbers that are not finite"):
        int8.code(np.array([[1, np.nan], [np.inf, 0], [1, 2]], np.float32))


def test_coding_what_was_coded_gives_the_same_numbers():
    kernel_FD = np.random.default_rng(0).normal(0, 1, (301, 97)).astype(np.float32)
    number_FD, scale_F = int8.code(kernel_FD)
    again_FD, scale_too_F = int8.code(int8.decode(number_FD, scale_F))
    np.testing.assert_array_equal(again_FD, number_FD)
    np.testing.assert_allclose(scale_too_F, scale_F, rtol=2e-7)
    assert (np.abs(int8.decode(number_FD, scale_F) - kernel_FD) <= scale_F[:, None] * 0.50001).all()


@pytest.mark.parametrize("wiring", WIRINGS)
def test_int8_weights_compute_what_their_numbers_stand_for(wiring):
    model, params = tiny(wiring)
    small = weights.quantize(params)
    assert {name: leaf.shape for name, leaf in weights.flatten(small).items()} == int8.shapes(model.config)
    token_BT = np.random.default_rng(0).integers(0, 37, (2, 23))
    given_BTV, _ = apply(model, small, token_BT)
    wanted_BTV, _ = apply(model, weights.dequantize(small), token_BT)
    assert spread(wanted_BTV, given_BTV) <= 2e-3  # activations as two digits
    assert 1e-3 < spread(apply(model, params, token_BT)[0], given_BTV) <= 0.2


@pytest.mark.parametrize("quantized", ["weights", "cache", "both"])
def test_cached_equals_uncached_for_what_is_exact_and_stays_near_for_an_int8_cache(quantized):
    model, params = tiny("pre")
    if quantized != "cache":
        params = weights.quantize(params)
    token_BT = np.random.default_rng(1).integers(0, 37, (2, 17))
    wanted_BTV, _ = apply(model, params, token_BT)
    caches = (model.cache(2, 19, "float" if quantized == "weights" else "int8"),)
    parts = []
    for start, stop in ((0, 8), (8, 16), (16, 17)):
        logit_BTV, caches = apply(model, params, token_BT[:, start:stop], caches=caches)
        parts.append(logit_BTV)
    assert spread(wanted_BTV, jnp.concatenate(parts, axis=1)) <= (2e-3 if quantized == "weights" else 0.1)


def test_samples_share_an_int8_prompt_and_any_mixture_of_caches_is_read():
    model, params = tiny("pre")
    noise = np.random.default_rng(2)
    prompt_BT, answer_BT = noise.integers(0, 37, (2, 5)), noise.integers(0, 37, (6, 4))
    whole_BT = np.concatenate([np.repeat(prompt_BT, 3, axis=0), answer_BT], axis=1)
    wanted_BTV = apply(model, params, whole_BT)[0][:, 5:]
    for kinds in (("int8", "int8"), ("int8", "float")):
        _, (prompt,) = apply(model, params, prompt_BT, caches=(model.cache(2, 7, kinds[0]),))
        logit_BTV, _ = apply(model, params, answer_BT, caches=(prompt, model.cache(6, 4, kinds[1])))
        assert spread(wanted_BTV, logit_BTV) <= 0.1


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_a_rewound_and_widened_cache_goes_on_bit_for_bit(kind):
    model, params = tiny("between")
    token_BT = np.random.default_rng(4).integers(0, 37, (2, 12))
    _, (whole,) = apply(model, params, token_BT[:, :7], caches=(model.cache(2, 9, kind),))
    back = attention.widen(attention.rewind(whole, jnp.array([4, 7])), 12)
    assert back.length_B.tolist() == [4, 7] and (back.rank_BS[0, 4:] == attention.HIDDEN).all()

    def cleared(leaf, axis):
        hidden_BS = np.expand_dims(back.rank_BS == attention.HIDDEN, [place for place in range(1, leaf.ndim) if place != axis % leaf.ndim])
        assert (leaf * hidden_BS).any()  # the numbers of freed slots lie there still
        return jnp.where(hidden_BS, 0, leaf)

    clean = back.replace(k=jax.tree.map(lambda leaf: cleared(leaf, -1), back.k), v=jax.tree.map(lambda leaf: cleared(leaf, 2), back.v))
    after = [apply(model, params, token_BT[:, 7:], caches=(cache,)) for cache in (back, clean)]
    np.testing.assert_array_equal(after[0][0], after[1][0])
    assert after[0][1][0].length_B.tolist() == [9, 12]


def test_int8_caches_are_about_a_quarter_of_float32_ones():
    model = transformer.Transformer(sizes.Config(37, 23, 192, 2, 3, 20, "pre", "gelu"))
    size = {kind: sum(leaf.nbytes for leaf in jax.tree.leaves(model.cache(2, 128, kind))) for kind in ("float", "int8")}
    assert size["int8"] < 0.28 * size["float"]


def test_every_loop_over_the_layers_and_a_mesh_give_the_same():
    model, params = tiny("pre")
    params = weights.quantize(params)
    token_BT = np.random.default_rng(5).integers(0, 37, (2, 6))
    wanted_BTD, _ = apply(model, params, token_BT, head="hidden")
    hidden_BTD, _ = dispatched.apply(model, params, token_BT, caches=(model.cache(2, 7),))
    np.testing.assert_allclose(hidden_BTD, wanted_BTD, atol=1e-3)
    scanned = transformer.stack(params)
    np.testing.assert_allclose(jax.jit(layers.hidden, static_argnums=0)(model, scanned, token_BT), wanted_BTD, atol=1e-3)
    mesh = jax.make_mesh((2, 1), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    specs = sharding.specs(params, transformer.SHARDING, {"fsdp": 2, "tensor": 1})
    placed = jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), params, specs)
    np.testing.assert_allclose(apply(model, placed, token_BT, head="hidden")[0], wanted_BTD, atol=1e-3)


def test_training_int8_weights_is_refused_and_low_rank_updates_over_them_learn():
    model, params = tiny("pre")
    small = weights.quantize(params)
    token_BT = np.random.default_rng(6).integers(0, 37, (2, 6))
    with pytest.raises(TypeError, match="int8"):
        jax.grad(lambda params: model.apply(params, token_BT)[0].sum())(small)
    flat = weights.flatten(small)
    noise = np.random.default_rng(7)
    added = {
        f"block_01/attend/q/kernel_{end}": noise.normal(0, 0.2, shape).astype(np.float32) for end, shape in (("a", (2, 12)), ("b", (12, 2)))
    }

    def loss(added, flat):
        return jnp.square(model.apply(weights.nest({**flat, **added}), token_BT)[0]).mean()

    gradient = jax.jit(jax.grad(loss))
    slope = gradient(added, flat)
    wanted = gradient(added, weights.flatten(weights.dequantize(small)))
    for name in added:
        np.testing.assert_allclose(slope[name], wanted[name], rtol=1e-2, atol=1e-3 * np.abs(wanted[name]).max())


def test_an_update_merged_into_int8_and_numbers_without_scales_are_refused():
    model, params = tiny("pre")
    small = weights.flatten(weights.quantize(params))
    merged = dict(small, **{"block_01/mlp/up/kernel": small["block_01/mlp/up/kernel"] + 0.5})
    with pytest.raises(ValueError, match=r"kernel is float32 with kernel_scale.*dequantize"):
        jax.eval_shape(model.apply, weights.nest(merged), np.zeros((1, 2), int))
    bare = {name: leaf for name, leaf in small.items() if name != "embed/token/embedding_scale"}
    with pytest.raises(ValueError, match="embedding is int8 without embedding_scale"):
        jax.eval_shape(model.apply, weights.nest(bare), np.zeros((1, 2), int))


def test_bfloat16_activations_over_int8_weights_stay_near():
    model, params = tiny("pre")
    small = weights.quantize(params)
    token_BT = np.random.default_rng(8).integers(0, 37, (2, 11))
    half = transformer.Transformer(model.config, jnp.bfloat16)
    logit_BTV, _ = apply(half, small, token_BT)
    assert logit_BTV.dtype == jnp.float32 and spread(apply(model, small, token_BT)[0], logit_BTV) <= 0.2
