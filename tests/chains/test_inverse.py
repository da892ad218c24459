"""Images out of codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import loop
from flaxgen.chains import inverse
from flaxgen.models import flow, flow_config

MODEL = flow.Flow(flow_config.Config(2, 3, (1,), hidden=3, blocks=0, coupling="affine", mixing="standard"))


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))


def test_codes_give_their_images_in_one_move(params):
    image_BYXC = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3)).astype(np.uint8)
    z_BD, _ = jax.jit(MODEL.apply)(params, flow.widen(jnp.asarray(image_BYXC), jnp.full((3, 2, 2, 3), 0.5)))
    found_BYXC = loop.generate(inverse.Inverse(MODEL), params, jax.random.key(0), z_BD, steps=1)
    assert found_BYXC.dtype == np.uint8
    np.testing.assert_array_equal(found_BYXC, image_BYXC)
    (streamed_BYXC,) = loop.stream(inverse.Inverse(MODEL), params, jax.random.key(7), z_BD, steps=9)
    np.testing.assert_array_equal(streamed_BYXC, found_BYXC)


def test_a_drawn_code_goes_by_its_own_key_and_is_as_wide_as_the_temperature():
    key_B = jax.random.split(jax.random.key(0), 500)
    z_BD = inverse.draw(MODEL, key_B, 0.5)
    assert z_BD.shape == (500, 12) and abs(float(z_BD.std()) - 0.5) < 0.02
    np.testing.assert_array_equal(inverse.draw(MODEL, key_B[3:5], 0.5), z_BD[3:5])
    assert not inverse.draw(MODEL, key_B, 0.0).any()


@pytest.mark.parametrize("way", ["spherical", "linear"])
def test_codes_between_begin_and_end_where_they_should(way):
    first_D, last_D = np.random.default_rng(0).normal(size=(2, 700)).astype(np.float32)
    between = jax.jit(inverse.between, static_argnums=(2, 3))
    z_BD = between(first_D, last_D, 5, way)
    np.testing.assert_allclose(z_BD[0], first_D, atol=1e-5)
    np.testing.assert_allclose(z_BD[4], last_D, atol=1e-5)
    length = np.linalg.norm(z_BD[2]) / np.linalg.norm(first_D)
    assert abs(length - (1 if way == "spherical" else 0.7)) < 0.05
    np.testing.assert_allclose(between(first_D, first_D, 5, way), np.tile(first_D, (5, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "z_BD", [np.zeros((2, 11), np.float32), np.zeros(12, np.float32), np.zeros((2, 12), int), np.full((1, 12), np.nan, np.float32)]
)
def test_what_is_no_code_is_refused(z_BD):
    with pytest.raises(ValueError, match="wanted codes"):
        loop.generate(inverse.Inverse(MODEL), {}, jax.random.key(0), z_BD, steps=1)


def test_temperatures_and_ways_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"temperature=-1\.0: wanted a finite number of at least 0"):
        inverse.draw(MODEL, jax.random.split(jax.random.key(0), 2), -1.0)
    for given, words in (((3, "round"), "way='round'"), ((1, "linear"), "count=1"), ((True, "linear"), "count=True")):
        with pytest.raises(ValueError, match=words):
            inverse.between(np.zeros(3), np.zeros(3), *given)
    with pytest.raises(ValueError, match=r"codes of shapes \(3,\) and \(4,\)"):
        inverse.between(np.zeros(3), np.zeros(4), 3)
