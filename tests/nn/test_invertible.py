"""Scales, mixings and couplings: what they give, undo, and say of their determinants."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from flaxgen.nn import coupling, invertible

KINDS = ("exponential", "low-rank", "affine", "additive")


def image(rows=2, channels=5, shape=(3, 4)):
    return jax.random.normal(jax.random.key(8), (rows, *shape, channels))


def moved(params, seed=5, size=0.3):
    """Every parameter shifted by chance."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + size * draw.normal(size=leaf.shape).astype(np.float32), params)


def made(kind, channels, rank=2):
    outputs = {"exponential": channels // 2 + 1, "low-rank": 2 * rank + 1, "affine": 2, "additive": 1}[kind] * (channels // 2)
    model = coupling.Coupling(kind, rank, channels, 7, 1, outputs)
    return model, jax.jit(model.init)(jax.random.key(0), image(channels=channels))


@pytest.mark.parametrize("kind", ["exponential", "plu", "standard"])
def test_a_mixing_begins_orthogonal_is_undone_and_knows_its_determinant(kind):
    model, x_BYXC = invertible.Mix(kind, 5), image()
    begun = jax.jit(model.init)(jax.random.key(1), x_BYXC, jnp.eye(5))

    @jax.jit
    def run(params):
        bound = model.bind(params)
        y_BYXC, logdet = bound(x_BYXC, bound.matrix())
        return bound.matrix(), y_BYXC, logdet, invertible.at_pixels(bound.undone(), y_BYXC)

    matrix_FC = np.float64(run(begun)[0])
    np.testing.assert_allclose(matrix_FC @ matrix_FC.T, np.eye(5), atol=1e-5)
    params = {"params": begun["params"] | {"kernel": begun["params"]["kernel"] + 0.1 * jnp.arange(25.0).reshape(5, 5) / 25}}
    matrix_FC, y_BYXC, logdet, same_BYXC = run(params)
    np.testing.assert_allclose(y_BYXC, np.einsum("BYXC,FC->BYXF", x_BYXC, matrix_FC), atol=1e-5)
    np.testing.assert_allclose(logdet, 12 * np.linalg.slogdet(np.float64(matrix_FC))[1], atol=1e-4)
    assert abs(logdet) > 0.1
    np.testing.assert_allclose(same_BYXC, x_BYXC, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_the_logarithm_of_a_rotation_is_skew_and_of_angles_up_to_pi(size):
    log_FC = np.float64(invertible.rotation(jax.random.key(3), size))
    np.testing.assert_array_equal(log_FC, -log_FC.T)
    angles = np.sort(np.abs(np.linalg.eigvals(log_FC).imag))
    assert angles.max(initial=0) <= np.pi + 1e-5 and (angles[size % 2 :] > 1e-3).all()
    np.testing.assert_allclose(np.linalg.det(scipy.linalg.expm(log_FC)), 1)


def matrices(kind, factors):
    """S of every pixel, in float64."""
    first, *rest = map(np.float64, factors)
    if kind in ("affine", "additive"):
        return np.einsum("FP,FD->PFD", first, np.eye(len(first)))
    return np.einsum("FKP,KDP->PFD", first, *rest) if rest else first.transpose(2, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_coupling_begins_as_nothing_multiplies_by_exponentials_knows_their_determinants_and_is_undone(kind):
    model, begun = made(kind, channels=7)
    x_BYXC = image(channels=7)

    @jax.jit
    def run(params, x_BYXC):
        bound = model.bind(params)
        y_BYXC, logdet_B = bound(x_BYXC)
        return y_BYXC, logdet_B, bound.inverse(y_BYXC), bound._read(x_BYXC[..., :4])

    y_BYXC, logdet_B, *_ = run(begun, x_BYXC)
    np.testing.assert_array_equal(y_BYXC, x_BYXC)
    np.testing.assert_array_equal(logdet_B, 0)
    y_BYXC, logdet_B, same_BYXC, (shift_DP, factors) = run(moved(begun), x_BYXC)
    s_PFD = matrices(kind, factors)
    assert np.abs(s_PFD).max() > 0.01 or kind == "additive"
    moved_DP = np.einsum("PFD,PD->FP", scipy.linalg.expm(s_PFD), x_BYXC[..., 4:].reshape(-1, 3)) + shift_DP
    np.testing.assert_array_equal(y_BYXC[..., :4], x_BYXC[..., :4])
    np.testing.assert_allclose(y_BYXC[..., 4:].reshape(-1, 3).T, moved_DP, atol=1e-5)
    np.testing.assert_allclose(logdet_B, np.linalg.slogdet(scipy.linalg.expm(s_PFD))[1].reshape(2, -1).sum(1), atol=1e-4)
    np.testing.assert_allclose(same_BYXC, x_BYXC, atol=1e-5)


def test_scales_are_fitted_to_what_passes_and_constant_activations_stay_finite():
    model, x_BYXC = invertible.Normalise((3, 4, 5), 1e-8), image(rows=31) * 7 - 2
    x_BYXC = x_BYXC.at[:, 0, 0, 0].set(4.0)
    params, apply = jax.jit(model.init)(jax.random.key(0), x_BYXC), jax.jit(model.apply)
    same_BYXC, logdet = apply(params, x_BYXC)
    np.testing.assert_allclose(same_BYXC, x_BYXC, rtol=1e-6)
    assert abs(logdet) < 1e-5
    (first_BYXC, _), fitted = jax.jit(partial(model.apply, mutable=["params"]))(params, x_BYXC)
    y_BYXC, _ = apply(fitted, x_BYXC)
    np.testing.assert_allclose(y_BYXC, first_BYXC, atol=1e-4)
    np.testing.assert_allclose(y_BYXC.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.delete(y_BYXC.reshape(31, -1), 0, 1).std(0), 1, atol=1e-5)
    np.testing.assert_allclose(model.apply(fitted, y_BYXC, method="inverse"), x_BYXC, atol=1e-4)
