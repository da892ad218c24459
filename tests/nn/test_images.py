import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nn import images, winograd

RNG = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def defined(x_BYXC: np.ndarray, kernel_YXCF: np.ndarray) -> np.ndarray:
    """The convolution by its definition, in float64."""
    (_, height, width, _), (tall, wide, _, _) = x_BYXC.shape, kernel_YXCF.shape
    edges = ((0, 0), (tall // 2, tall // 2), (wide // 2, wide // 2), (0, 0))
    padded_BYXC, kernel_YXCF = np.pad(x_BYXC.astype(np.float64), edges), kernel_YXCF.astype(np.float64)
    taps = itertools.product(range(tall), range(wide))
    return sum(np.einsum("BYXC,CF->BYXF", padded_BYXC[:, i : i + height, j : j + width], kernel_YXCF[i, j]) for i, j in taps)


def by_kernel(x_BYXC: np.ndarray, slope_BYXF: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The derivative of the convolution times a slope by each of its taps, by the definition."""
    (_, height, width, _), (tall, wide) = x_BYXC.shape, size
    padded_BYXC = np.pad(x_BYXC.astype(np.float64), ((0, 0), (tall // 2, tall // 2), (wide // 2, wide // 2), (0, 0)))
    taps = [[padded_BYXC[:, i : i + height, j : j + width].reshape(-1, x_BYXC.shape[3]) for j in range(wide)] for i in range(tall)]
    return np.stack([np.stack([tap_NC.T @ slope_BYXF.reshape(len(tap_NC), -1) for tap_NC in row]) for row in taps])


def apart(made, wanted) -> float:
    return float(np.abs(np.asarray(made, np.float64) - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("shape", [(2, 5, 7, 3, 4), (3, 4, 6, 2, 5), (1, 1, 1, 2, 3)])
def test_winograd_is_the_convolution_by_its_definition(shape):
    rows, height, width, channels, filters = shape
    x_BYXC, kernel_YXCF = drawn(rows, height, width, channels), drawn(3, 3, channels, filters)
    assert apart(jax.jit(winograd.conv)(x_BYXC, kernel_YXCF), defined(x_BYXC, kernel_YXCF)) < 1e-5


# The first two by XLA, the third by few filters and the fourth by Winograd, as a CPU does.
@pytest.mark.parametrize(
    "shape, size",
    [((2, 5, 7, 3, 4), (3, 3)), ((2, 6, 5, 2, 3), (1, 5)), ((3, 19, 20, 64, 15), (3, 5)), ((3, 19, 20, 30, 31), (3, 3))],
)
def test_a_convolution_and_both_its_gradients_are_right(shape, size):
    rows, height, width, channels, filters = shape
    x_BYXC, kernel_YXCF, slope_BYXF = drawn(rows, height, width, channels), drawn(*size, channels, filters), drawn(*shape[:3], filters)

    @jax.jit
    def both(x_BYXC, kernel_YXCF):
        y_BYXF, back = jax.vjp(images.conv, x_BYXC, kernel_YXCF)
        return y_BYXF, *back(slope_BYXF)

    y_BYXF, to_x_BYXC, to_kernel_YXCF = both(x_BYXC, kernel_YXCF)
    assert apart(y_BYXF, defined(x_BYXC, kernel_YXCF)) < 1e-5
    assert apart(to_x_BYXC, defined(slope_BYXF, kernel_YXCF[::-1, ::-1].swapaxes(2, 3))) < 1e-5
    assert apart(to_kernel_YXCF, by_kernel(x_BYXC, slope_BYXF, size)) < 1e-5


def test_the_quick_way_is_taken_where_it_pays_and_gives_second_derivatives():
    x_BYXC, kernel_YXCF = drawn(3, 19, 20, 31), drawn(3, 3, 31, 30)
    quick, plain = (jax.jit(images.conv).lower(x_BYXC[:rows], kernel_YXCF).as_text() for rows in (3, 1))
    assert winograd.share(4, 6) == 4 / 9 < winograd.share(7, 7) < winograd.share(3, 3)
    if jax.default_backend() == "cpu":
        assert "stablehlo.convolution" not in quick and "stablehlo.convolution" in plain

    def slope(kernel_YXCF):
        return jax.grad(lambda x_BYXC: (images.conv(x_BYXC, kernel_YXCF) ** 2).sum())(x_BYXC).sum()

    def direct(kernel_YXCF):
        return jax.grad(lambda x_BYXC: (images._direct(x_BYXC, kernel_YXCF) ** 2).sum())(x_BYXC).sum()

    found, wanted = (jax.jit(jax.grad(function))(kernel_YXCF) for function in (slope, direct))
    assert apart(found, np.asarray(wanted, np.float64)) < 1e-5


def test_a_convolution_without_rows_and_one_in_bfloat16_pass():
    assert images.conv(jnp.zeros((0, 5, 7, 3)), drawn(3, 3, 3, 4)).shape == (0, 5, 7, 4)
    made = images.conv(jnp.ones((2, 20, 30, 16), jnp.bfloat16), jnp.ones((3, 3, 16, 16), jnp.bfloat16))
    assert made.dtype == jnp.bfloat16 and float(made[0, 5, 5, 0]) == 144


def test_squeezing_is_undone_and_keeps_the_pixels_of_a_square_together():
    x_BYXC = drawn(2, 4, 6, 3)
    squeezed_BYXC = images.squeeze(x_BYXC)
    assert squeezed_BYXC.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(squeezed_BYXC[1, 0, 2].reshape(2, 2, 3), x_BYXC[1, :2, 4:])
    np.testing.assert_array_equal(images.unsqueeze(squeezed_BYXC), x_BYXC)
    x_BYXC = drawn(1, 3, 6, 2)
    np.testing.assert_array_equal(images.unsqueeze(images.squeeze(x_BYXC, 3), 3), x_BYXC)


def test_a_mean_pool_leaves_out_an_odd_last_row_and_column():
    x_BYXC = drawn(2, 5, 7, 3)
    pooled_BYXC = images.mean_pool(x_BYXC)
    assert pooled_BYXC.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(pooled_BYXC[1, 1, 2], x_BYXC[1, 2:4, 4:6].mean((0, 1)), rtol=1e-6)
