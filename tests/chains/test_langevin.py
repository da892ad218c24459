"""Langevin chains on energies whose densities are known."""

import dataclasses
import types
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from flaxgen import energies
from flaxgen.chains import langevin


@dataclasses.dataclass(frozen=True)
class Bowl:
    """E = stiffness |x - centre|² / 2, the parameters being (stiffness, centre)."""

    def apply(self, params, x_BYXC, label_B=None, key_B=None):
        stiffness, centre = params
        label = 0.0 if label_B is None else label_B.reshape(-1, *(1,) * (x_BYXC.ndim - 1)).astype(jnp.float32)
        return stiffness / 2 * jnp.square(x_BYXC - centre - label).reshape(len(x_BYXC), -1).sum(-1)


@dataclasses.dataclass(frozen=True)
class Classed(Bowl):
    """The same with four classes."""

    config: ClassVar = types.SimpleNamespace(classes=4)


BOWL = (jnp.float32(1), jnp.float32(0))


def true(bounds=None):
    return langevin.Langevin(energies.Single(Bowl()), "true", bounds)


def run(chain, params, x, steps, key=0, **settings):
    return np.asarray(flaxgen.generate(chain, params, jax.random.key(key), langevin.start(x, **settings), steps=steps))


def test_the_stationary_variance_of_the_discretised_equation():
    """U = x²/2: variance 1 / (1 - step / 4), for a step of .5 1.142857; 400,000 chains, each long past its beginning."""
    found = run(true(), BOWL, jnp.zeros((4000, 100)), 60, step=0.5, noise=1.0)
    assert found.var() == pytest.approx(1.142857, rel=0.01)
    assert abs(found.mean()) < 0.01


def test_published_moves_put_the_noise_first_then_clip_the_slope_and_the_image():
    chain = langevin.Langevin(energies.Single(Bowl()))
    params, x = (jnp.float32(1), jnp.float32(0.2)), jnp.asarray([[0.5, 0.2, 0.0], [1.0, 0.9, 0.1]])
    step, noise, clip = 0.7, 0.05, 0.3
    key_B = jax.random.split(jax.random.key(4), 2)
    given = langevin.start(x, step=step, noise=noise, clip=clip)
    found = np.asarray(flaxgen.generate(chain, params, key_B, given, steps=2))
    wanted = np.asarray(x)
    for count in range(2):
        draw = np.stack([jax.random.normal(jax.random.fold_in(key, count), (3,)) for key in key_B])
        wanted = wanted + noise * draw
        wanted = np.clip(wanted - step * np.clip(wanted - 0.2, -clip, clip), 0, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_pixel_moves_at_most_by_step_times_clip_and_its_noise():
    chain = langevin.Langevin(energies.Single(Bowl()))
    x = jnp.full((2, 3), 0.5)
    still = run(chain, (jnp.float32(1e6), jnp.float32(0)), x, 1, step=10.0, noise=0.0, clip=0.01)
    np.testing.assert_allclose(still, 0.4, atol=1e-6)


def test_without_a_clip_the_slope_is_taken_whole():
    chain = langevin.Langevin(energies.Single(Bowl()))
    found = run(chain, BOWL, jnp.full((2, 3), 0.8), 1, step=0.5, noise=0.0, clip=0.0)
    np.testing.assert_allclose(found, 0.4, atol=1e-6)


def test_a_row_does_not_depend_on_its_neighbours():
    chain = langevin.Langevin(energies.Single(Bowl()))
    key_B, x = jax.random.split(jax.random.key(1), 4), jax.random.uniform(jax.random.key(2), (4, 3))
    whole = flaxgen.generate(chain, BOWL, key_B, langevin.start(x, step=0.1, noise=0.1), steps=3)
    part = flaxgen.generate(chain, BOWL, key_B[1:3], langevin.start(x[1:3], step=0.1, noise=0.1), steps=3)
    np.testing.assert_allclose(whole[1:3], part, atol=1e-6)


def test_new_numbers_compile_nothing_anew():
    chain = langevin.Langevin(energies.Single(Bowl()))
    run(chain, BOWL, jnp.zeros((2, 3)), 4, step=0.1, noise=1.0)
    before = flaxgen.loop._advance._cache_size(), flaxgen.loop._start._cache_size()
    run(chain, BOWL, jnp.zeros((2, 3)), 9, key=5, step=0.3, noise=0.2, clip=0.5)
    assert (flaxgen.loop._advance._cache_size(), flaxgen.loop._start._cache_size()) == before


def test_what_is_kept_does_not_move():
    kept = jnp.asarray([[True, False, True]])
    chain = langevin.Langevin(energies.Single(Bowl()))
    found = run(chain, BOWL, jnp.full((1, 3), 0.75), 5, step=0.2, noise=0.01, kept_BYXC=kept)
    assert found[0, [0, 2]].tolist() == [0.75, 0.75] and found[0, 1] < 0.5


def test_labels_reach_the_energy():
    found = run(true(), (jnp.float32(1), jnp.float32(0)), jnp.zeros((2, 1)), 80, step=0.2, noise=0.0, label_B=jnp.asarray([3, 5]))
    np.testing.assert_allclose(found[:, 0], [3, 5], atol=1e-2)


def test_the_sum_of_two_energies_has_the_product_of_their_densities():
    """Normal densities of variances 1 and 1/3 around 0 and 4: the product has variance 1/4 and mean 3."""
    chain = langevin.Langevin(energies.total(Bowl(), Bowl()), "true", None)
    params = (BOWL, (jnp.float32(3), jnp.float32(4)))
    found = run(chain, params, jnp.zeros((1000, 20)), 150, step=0.02, noise=1.0)
    assert found.mean() == pytest.approx(3, abs=0.02)
    assert found.var() == pytest.approx(1 / 4 / (1 - 0.02 * 4 / 4), rel=0.05)


def test_the_ensemble_of_a_model_with_itself_is_the_model():
    twice = langevin.Langevin(energies.mean(Bowl(), Bowl()), "true", None)
    x = jnp.ones((2, 3))
    np.testing.assert_allclose(run(twice, (BOWL, BOWL), x, 3, step=0.1, noise=1.0), run(true(), BOWL, x, 3, step=0.1, noise=1.0), atol=1e-6)


def test_each_model_of_a_sum_may_have_its_own_label():
    chain = langevin.Langevin(energies.total(Bowl(), Bowl()), "true", None)
    labels = (jnp.asarray([1, 0]), jnp.asarray([3, 8]))
    found = run(chain, (BOWL, BOWL), jnp.zeros((2, 1)), 80, step=0.2, noise=0.0, label_B=labels)
    np.testing.assert_allclose(found[:, 0], [2, 4], atol=1e-2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((2, 3)), "given is a ndarray; wanted a langevin.Start"),
        (langevin.start(jnp.full((2, 3), 1.5), step=0.1, noise=0.0), "wanted finite floating-point numbers from 0 to 1"),
        (langevin.start(jnp.full((2, 3), jnp.nan), step=0.1, noise=0.0), "wanted finite floating-point numbers"),
        (langevin.start(jnp.zeros((2, 3), jnp.uint8), step=0.1, noise=0.0), "x of uint8"),
        (langevin.start(jnp.zeros((2, 3)), step=-1, noise=0.0), "step_B .*wanted 2 finite numbers of at least 0"),
        (langevin.start(jnp.zeros((2, 3)), step=1, noise=float("nan")), "noise_B"),
        (langevin.start(jnp.zeros((2, 3)), step=1, noise=0, clip=-1), "clip_B"),
        (langevin.start(jnp.zeros((2, 3)), step=1, noise=0, label_B=np.array([0, 4])), "wanted 2 whole numbers from 0 to 3"),
        (langevin.start(jnp.zeros((2, 3)), step=1, noise=0, label_B=np.array([0, -1])), "wanted 2 whole numbers"),
        (langevin.start(jnp.zeros((2, 3)), step=1, noise=0, label_B=np.array([0.0, 1.0])), "label_B is float64"),
        (langevin.start(jnp.zeros((2, 3)), step=1, noise=0, label_B=np.array([[0, 1]])), "one for each row"),
        (langevin.start(jnp.zeros((2, 3)), step=1, noise=0, kept_BYXC=np.ones((2, 3))), "kept is float64"),
        (langevin.start(jnp.zeros((2, 3)), step=1, noise=0, kept_BYXC=np.ones((2, 1), bool)), r"wanted bool of the shape of x, \(2, 3\)"),
    ],
)
def test_what_cannot_be_walked_is_refused_before_anything_is_compiled(given, words):
    with pytest.raises(ValueError, match=words):
        flaxgen.generate(langevin.Langevin(energies.Single(Classed())), BOWL, jax.random.key(0), given, steps=2)


def test_labels_of_a_sum_are_one_for_all_or_one_for_each():
    given = langevin.start(jnp.zeros((2, 3)), step=1, noise=0, label_B=(np.array([0, 1]),) * 3)
    with pytest.raises(ValueError, match="labels for 3 models of 2"):
        flaxgen.generate(langevin.Langevin(energies.total(Bowl(), Bowl())), (BOWL, BOWL), jax.random.key(0), given, steps=2)


def test_unknown_kinds_and_empty_bounds_are_refused():
    with pytest.raises(ValueError, match="kind='hmc': wanted one of published, true"):
        langevin.Langevin(energies.Single(Bowl()), "hmc")
    with pytest.raises(ValueError, match="bounds"):
        langevin.Langevin(energies.Single(Bowl()), bounds=(1.0, 1.0))
    with pytest.raises(ValueError, match="2 models with 1 weights"):
        energies.Sum((Bowl(), Bowl()), (1.0,))
    for join in (energies.total, energies.mean):
        with pytest.raises(ValueError, match="0 models with 0 weights"):
            join()
