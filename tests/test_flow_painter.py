"""Painting with a flow: draws, densities and ways between images."""

import jax
import numpy as np
import pytest

from flaxgen import painter, weights
from flaxgen.errors import Mismatch
from flaxgen.models import flow
from tests import painters


@pytest.fixture(scope="module")
def plain():
    return painters.of_flow(temperature=0.5)


def test_images_are_draws_that_do_not_depend_on_how_many_there_are(plain):
    many_BYXC = plain(3, seed=3)
    assert many_BYXC.shape == (3, 6, 6, 1) and many_BYXC.dtype == np.uint8
    np.testing.assert_array_equal(plain(2, seed=3), many_BYXC[:2])
    assert len(np.unique(many_BYXC.reshape(3, -1), axis=0)) == 3


def test_temperature_multiplies_the_code(plain):
    np.testing.assert_array_equal(plain(3, seed=1), plain(3, seed=1, temperature=0.5))
    cold_BYXC = plain(3, temperature=0.0)
    assert (cold_BYXC == cold_BYXC[:1]).all() and (plain(3) != cold_BYXC).any()


def test_the_log_probability_is_that_of_the_cell():
    made = painters.of_flow(bits=5)
    image_BYXC = painters.images(2, 6, 6, 1)
    half_BYXC = flow.widen(image_BYXC, np.full(image_BYXC.shape, 0.5, np.float32), 5)
    density_B = jax.jit(lambda x_BYXC: made.model.apply(made.params, x_BYXC, method=flow.Flow.log_prob))(half_BYXC)
    np.testing.assert_allclose(made.log_prob(image_BYXC), density_B + 36 * np.log(2 / 2**5), rtol=1e-5)
    in_bits_B = -made.log_prob(image_BYXC) / (36 * np.log(2))
    np.testing.assert_allclose(in_bits_B, flow.bits(density_B, made.model.config), rtol=1e-5)


@pytest.mark.parametrize("way", ["spherical", "linear"])
def test_an_interpolation_goes_from_one_image_to_the_other(plain, way):
    one_YXC, other_YXC = painters.images(2, 6, 6, 1)
    got_BYXC = plain.interpolate(one_YXC, other_YXC, 4, way=way)
    assert got_BYXC.shape == (4, 6, 6, 1)
    np.testing.assert_array_equal(got_BYXC[0], one_YXC)
    np.testing.assert_array_equal(got_BYXC[-1], other_YXC)
    assert len(np.unique(got_BYXC.reshape(4, -1), axis=0)) == 4


def test_a_flow_s_folder_gives_a_flow_painter(plain, tmp_path):
    weights.save(tmp_path / "flow", plain.model, plain.params, sampling={"temperature": 0.5})
    loaded = painter.Painter.load(tmp_path / "flow")
    assert loaded.sampling.temperature == 0.5
    np.testing.assert_array_equal(loaded(3), plain(3))


def test_mistakes_are_refused(plain):
    for call, says in (
        (lambda: plain(0), "samples=0"),
        (lambda: plain(temperature=-1.0), "temperature=-1.0"),
        (lambda: plain(seed=2**32), "seed="),
        (lambda: plain.log_prob(painters.images(1, 5, 6, 1)), "shape"),
        (lambda: plain.interpolate(*painters.images(2, 6, 6), 1), "steps=1"),
        (lambda: plain.interpolate(*painters.images(2, 6, 6), 3, way="crooked"), "way='crooked'"),
        (lambda: plain.interpolate(painters.images(2, 6, 6, 1), painters.images(6, 6)), "one at each end"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
    with pytest.raises(Mismatch, match="is no flow"):
        type(plain)(painters.of_energy().models[0], {})
