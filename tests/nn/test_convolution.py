import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.nn import convolution

WANTED_TD = [
    [-0.65636928, -0.79521046, 0.63252938],
    [1.16725131, 1.46746275, -0.54559533],
    [-0.13073962, -0.43592969, 0.72431975],
    [0.09329118, -0.35586769, 0.85608716],
]


def test_a_gated_layer_gives_the_numbers_of_the_couplet_writer():
    """By a float64 program of ours; x, kernel (taps, in, out) and bias from sines."""
    x_BTD, kernel_JDF, bias_F = (
        size * np.sin(0.7 * k + 1.3 * np.arange(np.prod(shape))).reshape(shape)
        for size, k, shape in ((1, 50, (1, 4, 3)), (0.5, 51, (3, 3, 6)), (0.1, 52, (6,)))
    )
    layer = convolution.Gated(3)
    params = {"params": {"conv": {"kernel": jnp.asarray(kernel_JDF.swapaxes(1, 2), jnp.float32), "bias": jnp.asarray(bias_F, jnp.float32)}}}
    np.testing.assert_allclose(layer.apply(params, jnp.asarray(x_BTD, jnp.float32))[0], WANTED_TD, atol=1e-6)


def test_a_convolution_is_that_of_xla():
    x_BTD, kernel_JFD, bias_F = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 4, 3), (5, 6, 3), (6,)]))
    wanted_BTF = jax.lax.conv_general_dilated(x_BTD, kernel_JFD, (1,), "SAME", dimension_numbers=("NWC", "WOI", "NWC")) + bias_F[None, None]
    np.testing.assert_allclose(convolution.convolve(x_BTD, kernel_JFD, bias_F), wanted_BTF, atol=1e-5)
