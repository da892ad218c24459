"""Spectral normalisation against singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nn import spectral

SHAPE = (3, 3, 4, 5)


def kernels(scale: float) -> dict:
    return {"a": scale * jax.random.normal(jax.random.key(1), SHAPE)}


def norm(kernel) -> float:
    return float(np.linalg.norm(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]), 2))


def test_after_a_thousand_steps_the_largest_singular_value_is_one():
    given = kernels(7.0)
    power = spectral.begin(given, jax.random.key(2))
    step = jax.jit(lambda power: spectral.normalise(given, power, {"a": "full"}))
    for _ in range(1000):
        made, power = step(power)
    assert norm(made["a"]) == pytest.approx(1, abs=1e-3)
    singular = np.linalg.svd(np.asarray(given["a"], np.float64).reshape(-1, 5))[2][0]
    np.testing.assert_allclose(np.abs(power["a"]), np.abs(singular), atol=1e-4)


def test_several_steps_at_once_are_as_many_steps_one_by_one():
    given = kernels(1.0)
    power = spectral.begin(given, jax.random.key(2))
    at_once = spectral.normalise(given, power, {"a": "full"}, iterations=3)
    for _ in range(3):
        one_by_one = spectral.normalise(given, power, {"a": "full"})
        power = one_by_one[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), at_once, one_by_one)


@pytest.mark.parametrize("scale", [1e-10, 1e-3])
def test_a_kernel_near_nothing_stays_as_it_is_under_the_lower_bound(scale):
    given = kernels(scale)
    made, power = spectral.normalise(given, spectral.begin(given, jax.random.key(2)), {"a": "lower"}, iterations=20)
    np.testing.assert_allclose(made["a"], given["a"], rtol=1e-6)
    assert float(jnp.linalg.norm(power["a"])) == pytest.approx(1, abs=1e-4)


def test_a_large_kernel_comes_down_to_one_under_the_lower_bound():
    given = kernels(3.0)
    made, _ = spectral.normalise(given, spectral.begin(given, jax.random.key(2)), {"a": "lower"}, iterations=200)
    assert norm(made["a"]) == pytest.approx(1, abs=1e-3)


def test_the_gradient_takes_the_singular_vectors_for_constants():
    given, key = kernels(1.0), jax.random.key(2)
    power = spectral.begin(given, key)
    grad = jax.grad(lambda given: spectral.normalise(given, power, {"a": "full"}, iterations=200)[0]["a"].sum())(given)["a"]
    w = np.asarray(given["a"], np.float64).reshape(-1, 5)
    left, values, right = np.linalg.svd(w, full_matrices=False)
    wanted = np.ones_like(w) / values[0] - w.sum() / values[0] ** 2 * np.outer(left[:, 0], right[0])
    np.testing.assert_allclose(np.asarray(grad).reshape(-1, 5), wanted, atol=1e-5)
