import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen.models import flow, flow_config
from flaxgen.tasks import likelihood

TASK = likelihood.Likelihood(flow.Flow(flow_config.Config(2, 1, (1,), hidden=3, blocks=0, coupling="affine", mixing="standard", bits=3)))
BATCH = {"image_BYXC": jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1)), jnp.uint8)}
bits = jax.jit(TASK.bits)
loss = jax.jit(TASK.loss)
widened = jax.jit(TASK.widened)


@pytest.fixture(scope="module")
def params():
    return jax.jit(TASK.init)(jax.random.key(0))


def test_the_loss_is_the_mean_of_the_images_bits_and_rows_of_no_weight_do_not_count(params):
    key = jax.random.key(1)
    bits_B = bits(params, key, BATCH)
    found, (carry, facts) = loss(params, (), key, BATCH)
    np.testing.assert_allclose(found, bits_B.mean(), rtol=1e-6)
    assert carry == () and facts["weight"] == 5
    weight_B = jnp.asarray([1.0, 0.0, 0.0, 1.0, 0.0])
    found, (_, facts) = loss(params, (), key, BATCH | {"weight_B": weight_B})
    np.testing.assert_allclose(found, bits_B[np.array([0, 3])].mean(), rtol=1e-6)
    assert facts["weight"] == 2


def test_the_noise_of_an_image_goes_by_its_number_and_stays_within_its_level(params):
    key = jax.random.key(2)
    wide_BYXC = widened(key, BATCH)
    np.testing.assert_array_equal(flow.narrow(wide_BYXC, 3), BATCH["image_BYXC"] >> 5 << 5)
    part = {"image_BYXC": BATCH["image_BYXC"][3:], "row_B": jnp.asarray([3, 4])}
    np.testing.assert_array_equal(widened(key, part), wide_BYXC[3:])
    assert not np.array_equal(widened(jax.random.key(3), BATCH), wide_BYXC)


def test_a_flow_learns_what_is_likely():
    """Images of two kinds take a bit for the whole image: a quarter of a bit each of the four pixels."""
    image_NYXC = np.array([[[0, 255], [255, 0]], [[255, 0], [0, 255]]], np.uint8)[..., None]
    task = likelihood.Likelihood(flow.Flow(flow_config.Config(2, 1, (2,), hidden=8, blocks=0, coupling="affine", mixing="plu", bits=1)))
    draw, adamax = np.random.default_rng(0), optax.adamax(0.03)
    params = task.begin(jax.jit(task.init)(jax.random.key(0)), jax.random.key(1), image_NYXC[draw.integers(0, 2, 64)])

    @jax.jit
    def update(params, moments, key, image_BYXC):
        (value, _), slopes = jax.value_and_grad(task.loss, has_aux=True)(params, (), key, {"image_BYXC": image_BYXC})
        moves, moments = adamax.update(slopes, moments, params)
        return optax.apply_updates(params, moves), moments, value

    moments, values = adamax.init(params), []
    for step in range(200):
        params, moments, value = update(params, moments, jax.random.fold_in(jax.random.key(2), step), image_NYXC[draw.integers(0, 2, 64)])
        values.append(float(value))
    assert values[0] > 0.9 and np.mean(values[-20:]) < 0.7
