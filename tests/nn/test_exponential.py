"""The matrix exponential against scipy in float64: values, derivatives, the estimate of the error, and what lies beyond the range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import PartitionSpec as P

from flaxgen.nn import exponential

NOISE = np.random.default_rng(0)
A_BDD = NOISE.normal(0, 1, (5, 3, 3)).astype(np.float32)


def skew(noise, size):
    x_DD, norm = noise.normal(size=(size, size)), 10 ** noise.uniform(-3, 4)
    return (x_DD - x_DD.T) * norm / np.linalg.norm(x_DD - x_DD.T, 2)


def negative(noise, size):
    turn_DD, norm = np.linalg.qr(noise.normal(size=(size, size)))[0], 10 ** noise.uniform(-3, 4)
    rate_D = -(10 ** noise.uniform(-3, np.log10(norm), size))
    rate_D[:2] = -norm, max(rate_D[1], -10.0)
    return (turn_DD * rate_D) @ turn_DD.T


def general(noise, size):
    x_DD = noise.normal(size=(size, size))
    return x_DD * 10 ** noise.uniform(-3, np.log10(30)) / np.linalg.norm(x_DD, 2)


def defective(noise, size):
    turn_DD = noise.normal(size=(size, size))
    x_DD = turn_DD @ (noise.normal() * np.eye(size) + np.eye(size, k=1)) @ np.linalg.inv(turn_DD)
    return x_DD * 10 ** noise.uniform(-3, np.log10(30)) / np.linalg.norm(x_DD, 2)


KINDS = (skew, negative, general, defective)


@pytest.mark.parametrize(
    ("size", "count"), [(5, 40), *(pytest.param(size, 172, marks=pytest.mark.nightly) for size in (2, 3, 5, 8, 16, 33))]
)
def test_values_derivatives_and_estimates_hold_against_scipy_in_float64(size, count):
    """Relative in Frobenius norms, within 1e-5 max(1, |A|_2); nightly 1,032 matrices, which come to 2 % of that."""
    noise = np.random.default_rng(size)
    a_BDD = np.stack([KINDS[row % 4](noise, size) for row in range(count)]).astype(np.float32)
    cotangent_BDD = noise.normal(size=a_BDD.shape).astype(np.float32)
    x_BDD, error_B = jax.jit(exponential.expm_with_error)(a_BDD)
    slope_BDD = jax.jit(lambda a, cotangent: jax.vjp(exponential.expm, a)[1](cotangent)[0])(a_BDD, cotangent_BDD)
    assert np.isfinite(x_BDD).all() and np.isfinite(slope_BDD).all()
    for row, a_DD in enumerate(a_BDD.astype(np.float64)):
        allowed = 1e-5 * max(1, np.linalg.norm(a_DD, 2))
        wanted_DD = scipy.linalg.expm(a_DD)
        off = np.linalg.norm(x_BDD[row] - wanted_DD) / np.linalg.norm(wanted_DD)
        assert off <= allowed and off <= error_B[row], (KINDS[row % 4].__name__, row)
        wanted_DD = scipy.linalg.expm_frechet(a_DD.T, cotangent_BDD[row].astype(np.float64), compute_expm=False)
        assert np.linalg.norm(slope_BDD[row] - wanted_DD) <= allowed * np.linalg.norm(wanted_DD), (KINDS[row % 4].__name__, row)
    assert np.median(error_B) < 1e-2


def test_the_vectors_of_the_article_come_out():
    x_DD = exponential.expm([[1, 2], [3, 4]])
    np.testing.assert_allclose(x_DD, [[51.9689562, 74.73656457], [112.10484685, 164.07380305]], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.det(np.asarray(x_DD, np.float64)), np.exp(5), rtol=1e-4)
    turn_DD = exponential.expm(jnp.array([[0, 2.5], [-2.5, 0]]))
    np.testing.assert_allclose(turn_DD, [[np.cos(2.5), np.sin(2.5)], [-np.sin(2.5), np.cos(2.5)]], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1, 3, 3), (2, 26, 26)])
def test_any_shape_of_squares_goes_through(shape):
    a_DD = NOISE.normal(0, 1, shape).astype(np.float32)
    x_DD = exponential.expm(a_DD)
    assert x_DD.shape == shape and x_DD.dtype == jnp.float32
    np.testing.assert_allclose(x_DD, scipy.linalg.expm(a_DD.astype(np.float64)), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(exponential.expm(np.zeros(shape)), np.broadcast_to(np.eye(shape[-1]), shape))


@pytest.mark.parametrize("shape", [(0, 3, 3), (0, 0), (2, 0, 0)])
def test_of_no_matrices_or_matrices_of_nothing_comes_nothing(shape):
    x_DD, error = exponential.expm_with_error(np.ones(shape, np.float32))
    assert x_DD.shape == shape and error.shape == shape[:-2]


def test_views_of_arrays_in_any_order_of_memory_are_read_right():
    wide = np.asfortranarray(NOISE.normal(0, 1, (6, 6, 10)).astype(np.float32)).transpose(2, 1, 0)[::2, ::2, ::-2]
    np.testing.assert_array_equal(exponential.expm(wide), exponential.expm(np.ascontiguousarray(wide)))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.int32])
def test_half_precision_comes_back_as_it_went_in_and_whole_numbers_as_float32(dtype):
    x_DD, error = exponential.expm_with_error(jnp.array([[1, 1], [0, 1]], dtype))
    assert x_DD.dtype == (dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32)
    wanted_DD = np.e * np.array([[1, 1], [0, 1]])
    assert np.linalg.norm(np.asarray(x_DD, np.float64) - wanted_DD) <= error * np.linalg.norm(wanted_DD) < 0.02


def test_float64_is_computed_in_float64():
    with jax.enable_x64(True):
        a_DD = 30 * A_BDD[0].astype(np.float64)
        x_DD, error = exponential.expm_with_error(a_DD)
        wanted_DD = scipy.linalg.expm(a_DD)
        off = np.linalg.norm(x_DD - wanted_DD) / np.linalg.norm(wanted_DD)
        assert x_DD.dtype == jnp.float64 and off <= 1e-13 and off <= error


def test_what_overflows_is_inf_with_its_sign_and_so_are_its_estimate_and_its_derivative():
    diagonal = [np.diag(rate_D) for rate_D in ([1e4, -1e4, 1], [100, 1, 0], [3e38, 1, -3e38])]
    a_BDD = np.stack([220 * A_BDD[0], 400 * A_BDD[1], *diagonal]).astype(np.float32)
    x_BDD, error_B = exponential.expm_with_error(a_BDD)
    assert not np.isnan(x_BDD).any() and np.isinf(x_BDD).any((1, 2)).all() and np.isposinf(error_B).all()
    wanted_DD = scipy.linalg.expm(a_BDD[0].astype(np.float64))
    np.testing.assert_array_equal(np.isinf(x_BDD[0]), np.abs(wanted_DD) > np.finfo(np.float32).max)
    np.testing.assert_array_equal(np.sign(x_BDD[0]), np.sign(wanted_DD))
    np.testing.assert_allclose(x_BDD[3], np.diag([np.inf, np.e, 1]), rtol=1e-5)
    slope_BDD = jax.vjp(exponential.expm, a_BDD)[1](jnp.ones_like(a_BDD))[0]
    assert not np.isnan(slope_BDD).any() and np.isinf(slope_BDD[:4]).any((1, 2)).all()


def corners(noise, size):
    """Above the diagonal anything up to 1e37, below nothing."""
    return np.diag(noise.normal(size=size)) + np.triu(noise.normal(size=(size, size)) * 10 ** noise.uniform(-5, 37), 1)


def test_elements_unlike_each_other_are_right_or_their_estimate_says_so():
    noise = np.random.default_rng(1)
    a_BDD = np.stack([corners(noise, 3) for _ in range(60)] + [np.diag([c, c], 1) for c in (1e10, 1e18, 1e35)]).astype(np.float32)
    x_BDD, error_B = exponential.expm_with_error(a_BDD)
    assert not np.isnan(x_BDD).any() and (error_B < 1e-3).any() and np.isinf(error_B).any()
    for a_DD, x_DD, error in zip(np.float64(a_BDD), np.float64(x_BDD), error_B, strict=True):
        wanted_DD = scipy.linalg.expm(a_DD)
        assert np.isfinite(x_DD).all() or np.isinf(error)
        assert error == np.inf or np.linalg.norm(x_DD - wanted_DD) <= error * np.linalg.norm(wanted_DD)


def test_a_huge_corner_leaves_the_diagonal_alone_and_has_its_derivative():
    corner = np.array([1, 1e18, 1e33, 1e35, 1e37], np.float32)
    a_BDD = jnp.zeros((5, 2, 2)).at[:, 0, 1].set(corner)
    x_BDD, error_B = exponential.expm_with_error(a_BDD)
    np.testing.assert_array_equal(x_BDD, a_BDD + jnp.eye(2)[None])
    assert error_B[0] < 1e-4 and np.isinf(error_B[2:]).all()
    back = jax.vjp(exponential.expm, a_BDD)[1]
    beside_BDD = jnp.zeros_like(a_BDD).at[:, 1, 0].set(1.0)
    np.testing.assert_array_equal(back(beside_BDD)[0], beside_BDD)
    slope_BDD = back(jnp.ones_like(a_BDD))[0]
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(slope_BDD[:, 1, 0], 1 + corner + corner / 2 * (corner / 3), rtol=1e-5)
    np.testing.assert_allclose(slope_BDD[:2, 0, 0], 1 + corner[:2] / 2, rtol=1e-5)
    assert not np.isnan(slope_BDD).any()
    lost_DD, error = exponential.expm_with_error(3e38 * jnp.eye(2, k=1))
    assert np.isposinf(lost_DD).all() and error == np.inf


def test_derivatives_at_tiny_matrices_are_their_directions():
    for size in (0, 1e-37):
        np.testing.assert_allclose(jax.vjp(exponential.expm, size * A_BDD)[1](A_BDD)[0], A_BDD, rtol=1e-6)


def test_what_underflows_is_zero_with_the_estimate_that_all_is_lost():
    x_BDD, error_B = exponential.expm_with_error(np.array([-1e4, -1e20, -3e38, -80, -1])[:, None, None] * np.eye(3))
    np.testing.assert_array_equal(x_BDD[:3], 0)
    np.testing.assert_array_equal(error_B[:3], 1)
    np.testing.assert_allclose(x_BDD[3], np.exp(-80) * np.eye(3), rtol=80e-5)
    assert error_B[3] < 2e-3


def test_a_matrix_that_is_not_finite_gives_nan_and_leaves_its_neighbours_alone():
    a_BDD = A_BDD.copy()
    a_BDD[1, 0, 0], a_BDD[2, 1, 2], a_BDD[3] = np.nan, -np.inf, np.nan
    x_BDD, error_B = exponential.expm_with_error(a_BDD)
    assert np.isnan(x_BDD[1:4]).any((1, 2)).all() and np.isinf(error_B[1:4]).all()
    np.testing.assert_array_equal(x_BDD[::4], exponential.expm(A_BDD)[::4])
    slope_BDD = jax.vjp(exponential.expm, a_BDD)[1](jnp.ones_like(a_BDD))[0]
    assert np.isfinite(slope_BDD[::4]).all()


def test_a_matrix_has_the_same_bits_whatever_stands_beside_it():
    beside_BDD = A_BDD * np.array([1, 1e4, 1e-9, 100, 1e-40], np.float32)[:, None, None]
    np.testing.assert_array_equal(exponential.expm(beside_BDD)[0], exponential.expm(A_BDD)[0])


def test_derivatives_forward_backward_and_second_agree_with_each_other_and_with_differences():
    direction_BDD, cotangent_BDD = NOISE.normal(0, 1, (2, *A_BDD.shape)).astype(np.float32)
    slope_BDD = jax.jvp(exponential.expm, (A_BDD,), (direction_BDD,))[1]
    back_BDD = jax.vjp(exponential.expm, A_BDD)[1](cotangent_BDD)[0]
    np.testing.assert_allclose((slope_BDD * cotangent_BDD).sum(), (back_BDD * direction_BDD).sum(), rtol=1e-5)

    def slope(a_BDD):
        return jax.vjp(exponential.expm, a_BDD)[1](cotangent_BDD)[0]

    wanted_BDD = (slope(A_BDD + 1e-2 * direction_BDD) - slope(A_BDD - 1e-2 * direction_BDD)) / 2e-2
    forward_BDD = jax.jvp(slope, (A_BDD,), (direction_BDD,))[1]
    np.testing.assert_allclose(forward_BDD, wanted_BDD, atol=1e-3 * np.abs(wanted_BDD).max())
    # Second derivatives are symmetric in the two directions, which backward after backward shows.
    back_BDD = jax.vjp(slope, A_BDD)[1](direction_BDD)[0]
    np.testing.assert_allclose(
        back_BDD, jax.vjp(lambda a: jax.jvp(exponential.expm, (a,), (direction_BDD,))[1], A_BDD)[1](cotangent_BDD)[0], rtol=1e-4, atol=1e-4
    )


def test_mapped_one_by_one_or_together_the_values_and_derivatives_are_equal():
    single = jax.vmap(lambda a, cotangent: jax.vjp(exponential.expm, a)[1](cotangent), in_axes=(1, 0), out_axes=2)
    (slope_DDB,), together_BDD = single(A_BDD.swapaxes(0, 1), A_BDD), jax.vjp(exponential.expm, A_BDD)[1](A_BDD)[0]
    np.testing.assert_allclose(slope_DDB.transpose(2, 0, 1), together_BDD, rtol=1e-5)


def test_the_derivative_keeps_nothing_but_the_matrix():
    kept = jax.tree.leaves(jax.vjp(exponential.expm, 100 * A_BDD)[1])
    assert sum(leaf.size for leaf in kept if hasattr(leaf, "size")) <= A_BDD.size


def test_rows_spread_over_devices_have_the_derivatives_of_one():
    a_BDD = jnp.concatenate([A_BDD, A_BDD[:3]])
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))

    def slope(a_BDD, shared_DD):
        return jax.vjp(exponential.expm, a_BDD)[1](a_BDD + shared_DD[None])[0]

    spread = jax.jit(jax.shard_map(slope, mesh=mesh, in_specs=(P("rows"), P()), out_specs=P("rows")))
    np.testing.assert_allclose(spread(a_BDD, A_BDD[0])[:5], slope(A_BDD, A_BDD[0]), rtol=1e-5)


def test_the_log_of_the_determinant_is_the_trace():
    np.testing.assert_allclose(exponential.logdet(A_BDD), np.linalg.slogdet(exponential.expm(A_BDD))[1], atol=1e-5)
    assert exponential.logdet(jnp.full((257, 257), 1, jnp.bfloat16)) == 257


def test_a_product_of_thin_matrices_needs_only_the_exponential_of_a_small_one():
    u_BDK, v_BKD = NOISE.normal(0, 0.5, (5, 7, 3)).astype(np.float32), NOISE.normal(0, 0.5, (5, 3, 7)).astype(np.float32)
    thin = jax.jit(exponential.expm_thin)
    x_BDD = thin(u_BDK, v_BKD)
    np.testing.assert_allclose(x_BDD, scipy.linalg.expm(np.float64(u_BDK) @ v_BKD), atol=1e-5 * np.abs(x_BDD).max())
    np.testing.assert_allclose(np.linalg.slogdet(x_BDD)[1], exponential.logdet(v_BKD @ u_BDK), atol=1e-4)
    np.testing.assert_allclose(thin(u_BDK, -v_BKD) @ x_BDD, np.broadcast_to(np.eye(7), (5, 7, 7)), atol=1e-4)


def test_phi_is_what_the_exponential_adds_divided_by_the_matrix():
    wanted_BDD = np.linalg.solve(A_BDD.astype(np.float64), scipy.linalg.expm(A_BDD.astype(np.float64)) - np.eye(3))
    np.testing.assert_allclose(exponential.phi(A_BDD), wanted_BDD, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(exponential.phi(np.zeros((5, 3, 3)))[2], np.eye(3))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), ()])
def test_what_is_not_square_is_refused(shape):
    with pytest.raises(ValueError, match=r"a of shape .*want square matrices, \(D, D\) or \(B, D, D\)"):
        exponential.expm(np.ones(shape))


def test_thin_factors_may_be_lists_whole_or_of_half_precision():
    wanted_DD = np.eye(3) + np.outer([1, 0, 1], [0, 2, 2]) * (np.exp(2) - 1) / 2
    for u_DK, v_KD, dtype in (
        ([[1], [0], [1]], [[0, 2, 2]], jnp.float32),
        (np.float16([[1], [0], [1]]), np.float16([[0, 2, 2]]), jnp.float16),
    ):
        x_DD = exponential.expm_thin(u_DK, v_KD)
        assert x_DD.dtype == dtype
        np.testing.assert_allclose(np.float64(x_DD), wanted_DD, rtol=1e-3)


def test_complex_numbers_and_factors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="complex64, want real numbers"):
        exponential.expm(np.ones((2, 2), np.complex64))
    with pytest.raises(ValueError, match=r"u and v of shapes \(7, 3\) and \(7, 3\)"):
        exponential.expm_thin(np.ones((7, 3)), np.ones((7, 3)))
