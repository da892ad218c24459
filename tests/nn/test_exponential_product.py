import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from flaxgen.nn import exponential_product


def drawn(size, pixels, scale):
    draw = np.random.default_rng(size)
    a_FDP = draw.normal(size=(size, size, pixels)) * scale / size
    return a_FDP, draw.normal(size=(size, pixels)), draw.normal(size=(size, pixels))


def by_scipy(a_FDP, x_DP, drift_DP):
    """The corner of exp([[A, drift], [0, 0]]) (x, 1)."""
    ends = []
    for a_FD, x_D, drift_D in zip(a_FDP.transpose(2, 0, 1), x_DP.T, drift_DP.T, strict=True):
        whole = np.block([[a_FD, drift_D[:, None]], [np.zeros((1, len(x_D) + 1))]])
        ends.append((scipy.linalg.expm(whole) @ np.append(x_D, 1))[:-1])
    return np.stack(ends, axis=1)


@pytest.mark.parametrize(("size", "scale"), [(1, 1.0), (2, 0.01), (3, 5.0), (7, 9.0), (24, 2.0)])
def test_the_motion_is_scipy_s(size, scale):
    given = drawn(size, 5, scale)
    wanted_DP = by_scipy(*given)
    np.testing.assert_allclose(
        jax.jit(exponential_product.move)(*map(jnp.float32, given)), wanted_DP, rtol=1e-5, atol=1e-5 * np.abs(wanted_DP).max()
    )


def test_gradients_are_those_of_finite_differences_in_float64():
    given, turn = drawn(3, 2, 4.0), np.random.default_rng(7)
    weight_DP = turn.normal(size=(3, 2))
    ways = [turn.normal(size=each.shape) for each in given]
    slopes = jax.jit(jax.grad(lambda given: (exponential_product.move(*given) * weight_DP.astype(np.float32)).sum()))(
        tuple(map(jnp.float32, given))
    )
    for index, (slope, way) in enumerate(zip(slopes, ways, strict=True)):
        ends = [
            (by_scipy(*(each + (sign * 1e-6 * way if place == index else 0) for place, each in enumerate(given))) * weight_DP).sum()
            for sign in (1, -1)
        ]
        np.testing.assert_allclose((slope * way).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-4)


def test_a_pixel_gets_the_same_whatever_its_neighbours_and_one_of_too_large_a_norm_is_not_a_number():
    a_FDP, x_DP, drift_DP = map(np.float32, drawn(3, 4, 2.0))
    move = jax.jit(exponential_product.move)
    mild_DP = move(a_FDP, x_DP, drift_DP)
    a_FDP[:, :, 1], a_FDP[0, 1, 2], a_FDP[:, :, 3] = 11.0, np.nan, 0
    a_FDP[0, 1, 3], x_DP[:, 3], drift_DP[:, 3] = 32, 1, 0
    end_DP = move(a_FDP, x_DP, drift_DP)
    np.testing.assert_array_equal(end_DP[:, 0], mild_DP[:, 0])
    assert np.isfinite(end_DP).all(axis=0).tolist() == [True, False, False, True]
    np.testing.assert_allclose(end_DP[:, 3], [33, 1, 1], rtol=1e-6)
