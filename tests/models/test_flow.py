"""The flow: codes and back, densities, sizes as published."""

import dataclasses
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from flaxgen.models import flow, flow_config
from flaxgen.nn import invertible

SMALL = flow_config.Config(4, 1, (1, 1), hidden=5, blocks=1)
MODEL = flow.Flow(SMALL)
forward = jax.jit(MODEL.apply)
inverse = jax.jit(partial(MODEL.apply, method=flow.Flow.inverse))


def image(config, rows=7):
    return jax.random.uniform(jax.random.key(4), (rows, config.size, config.size, config.channels), minval=-1.0)


def drawn(config, size=0.1):
    """Every parameter drawn, around what changes nothing."""
    draw, flat = np.random.default_rng(3), {}
    for path, shape in config.shapes().items():
        at = invertible.IDENTITY if path.endswith("normalise/scale") else 0.5 if path.endswith("scale") else 0.0
        flat[path] = jnp.asarray(at + size * draw.normal(size=shape), jnp.float32)
    return flaxgen.weights.nest(flat)


@pytest.fixture(scope="module")
def params():
    return drawn(SMALL)


@pytest.mark.parametrize(
    ("name", "wanted"), [("cifar10", 37_683_752), ("imagenet32", 37_683_752), ("imagenet64", 46_615_080), ("cifar10-affine", 37_756_808)]
)
def test_published_sizes_have_the_published_parameters(name, wanted):
    assert sum(map(math.prod, flow_config.PUBLISHED[name].shapes().values())) == wanted


@pytest.mark.parametrize("fields", [{}, {"coupling": "affine", "mixing": "plu"}, {"coupling": "low-rank", "rank": 2}])
def test_the_sizes_name_every_parameter_that_the_model_makes(fields):
    config = dataclasses.replace(SMALL, **fields)
    made = jax.eval_shape(flow.Flow(config).init, jax.random.key(0), image(config))
    assert {path: leaf.shape for path, leaf in flaxgen.weights.flatten(made).items()} == config.shapes()
    again = flow_config.Config(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config and hash(again) == hash(config)


def test_matrices_of_more_than_24_channels_are_of_low_rank():
    config = flow_config.Config(8, 16, (1, 1), hidden=2, blocks=0)
    assert config.levels() == [(4, 64), (2, 128)] and config.kind(24) == "exponential" and config.kind(25) == "low-rank"
    assert config.shapes()["block_01/couple/net/kernel"] == (3, 3, 2, 64 * 7)


def test_codes_go_back_to_their_images_and_rows_do_not_look_at_each_other(params):
    image_BYXC = image(SMALL)
    z_BD, logdet_B = forward(params, image_BYXC)
    assert z_BD.shape == (7, SMALL.dimensions) and z_BD.dtype == logdet_B.dtype == jnp.float32
    back_BYXC = inverse(params, z_BD)
    np.testing.assert_allclose(back_BYXC, image_BYXC, atol=1e-5)
    swapped_BD, _ = forward(params, image_BYXC.at[0].set(0.5))
    assert np.abs(swapped_BD[0] - z_BD[0]).min() > 0
    np.testing.assert_array_equal(swapped_BD[1:], z_BD[1:])


def test_the_log_determinant_is_that_of_the_jacobian_of_images_of_four_channels():
    model = flow.Flow(flow_config.Config(2, 4, (2,), hidden=5, blocks=1))
    image_BYXC = image(model.config, rows=1)
    params = drawn(model.config)

    def code(x_BYXC):
        z_BD, logdet_B = model.apply(params, x_BYXC)
        return z_BD[0], logdet_B[0]

    slope, logdet = jax.jit(jax.jacrev(code, has_aux=True))(image_BYXC)
    wanted = np.linalg.slogdet(np.float64(slope.reshape(16, 16)))[1]
    assert abs(wanted) > 0.5
    np.testing.assert_allclose(logdet, wanted, atol=1e-4)


def test_what_is_no_image_and_no_code_is_refused(params):
    for shape, dtype in (((2, 2, 2, 1), float), ((4, 4, 1), float), ((2, 4, 4, 3), float), ((2, 4, 4, 1), np.uint8)):
        with pytest.raises(ValueError, match=r"want floating-point numbers from -1 to 1 of shape \(B, 4, 4, 1\)"):
            MODEL.apply(params, jnp.zeros(shape, dtype))
    for shape in ((16,), (2, 32)):
        with pytest.raises(ValueError, match=r"want codes \(B, 16\)"):
            MODEL.apply(params, jnp.zeros(shape), method=flow.Flow.inverse)
    empty = jax.eval_shape(MODEL.apply, params, jnp.zeros((0, 4, 4, 1)))
    assert [leaf.shape for leaf in empty] == [(0, 16), (0,)]


def test_what_changes_nothing_gives_the_middle_of_the_range_8_bits_and_a_third():
    model = flow.Flow(flow_config.Config(2, 1, (1,), hidden=3, blocks=0))
    same = drawn(model.config, size=0.0)
    log_prob_B = jax.jit(partial(model.apply, method=flow.Flow.log_prob))(same, jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_allclose(flow.bits(log_prob_B, model.config), 8.32574806, atol=1e-6)


def test_fitted_codes_have_mean_0_and_deviation_1(params):
    flat = flaxgen.weights.flatten(params)
    still = ("mix/kernel", "net/kernel", "net/bias", "couple/shift", "couple/reshift")
    begun = flaxgen.weights.nest({path: jnp.zeros_like(leaf) if path.endswith(still) else leaf for path, leaf in flat.items()})
    image_BYXC = image(SMALL) * 0.3 + 0.5
    fitted = jax.jit(partial(MODEL.apply, method=flow.Flow.fitted))(begun, image_BYXC)
    assert jax.tree.structure(fitted) == jax.tree.structure(begun)
    z_BD, _ = forward(fitted, image_BYXC)
    np.testing.assert_allclose(z_BD.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z_BD.std(0), 1, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 4, 1])
def test_images_are_widened_and_narrowed_to_their_levels(bits):
    image_BYXC = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    low, high = (np.full(image_BYXC.shape, noise, np.float32) for noise in (0.0, 0.999))
    for noise in (low, high):
        wide_BYXC = flow.widen(jnp.asarray(image_BYXC), noise, bits)
        assert wide_BYXC.min() >= -1 and wide_BYXC.max() < 1
        np.testing.assert_array_equal(flow.narrow(wide_BYXC, bits), image_BYXC >> (8 - bits) << (8 - bits))
    beyond = flow.narrow(jnp.asarray([[[[-3.0, 3.0]]]]), bits)
    assert beyond.ravel().tolist() == [0, 256 - 2 ** (8 - bits)]


def test_a_saved_flow_loads_and_gives_the_same_codes(params, tmp_path):
    flaxgen.save(tmp_path / "model", MODEL, params)
    again, loaded, text = flaxgen.load(tmp_path / "model")
    assert text is None and again.config == SMALL
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 6}, "'size' is 6; wanted a multiple of 4"),
        ({"size": 0}, "'size' is 0; wanted a positive whole number"),
        ({"channels": True}, "'channels' is True"),
        ({"flows": ()}, r"'flows' is \(\); wanted the number of steps"),
        ({"flows": (2, 0)}, r"'flows' is \(2, 0\)"),
        ({"flows": 3}, "'flows' is 3"),
        ({"blocks": -1}, "'blocks' is -1; wanted a whole number of at least 0"),
        ({"coupling": "linear"}, "'coupling' is 'linear'; wanted one of exponential, low-rank, affine, additive"),
        ({"mixing": "lu"}, "'mixing' is 'lu'; wanted one of exponential, plu, standard"),
        ({"least": 0}, "'least' is 0; wanted a finite number above 0"),
        ({"bits": 9}, "'bits' is 9; wanted a whole number from 1 to 8"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **fields)
