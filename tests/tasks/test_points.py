import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen import weights
from flaxgen.measure import density
from flaxgen.models import field, field_config
from flaxgen.tasks import points

MODEL = field.Field(field_config.Config(width=2, hidden=(16, 16), bowl=2.0))
TASK = points.Points(MODEL, chains=7, moves=3, fresh=0.5)


def drawn(seed: int, scale: float = 0.5) -> dict:
    """Random parameters, without the time that compiling their draws takes."""
    noise = np.random.default_rng(seed)
    return weights.nest({path: scale * noise.normal(size=shape).astype(np.float32) for path, shape in MODEL.config.shapes().items()})


def test_the_slope_is_that_of_data_less_that_of_chains_which_are_held():
    params, x_BD = drawn(0), np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    carry = points.Carry(jnp.asarray(np.random.default_rng(2).normal(size=(7, 2)), jnp.float32))
    slope, (after, facts) = jax.jit(jax.grad(TASK.loss, has_aux=True))(params, carry, jax.random.key(3), {"x_BD": x_BD})
    assert after.x_ND.shape == (7, 2) and facts["weight"] == 5 and not np.array_equal(after.x_ND, carry.x_ND)
    wanted = jax.jit(jax.grad(lambda params: MODEL.apply(params, x_BD).mean() - MODEL.apply(params, after.x_ND).mean()))(params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), slope, wanted)


@pytest.mark.nightly
def test_it_learns_a_density_that_is_no_gaussian():
    task, optimizer = points.Points(MODEL, chains=256, moves=5, step=0.1), optax.adam(optax.cosine_decay_schedule(1e-2, 1000), 0.5)

    def update(state, number):
        params, moments, carry = state
        which_key, where_key, key = jax.random.split(jax.random.fold_in(jax.random.key(4), number), 3)
        side_BD = jax.random.rademacher(which_key, (256, 1)).astype(jnp.float32) * jnp.array([[1.5, 0.0]])
        x_BD = side_BD + 0.6 * jax.random.normal(where_key, (256, 2))
        slope, (carry, _) = jax.grad(task.loss, has_aux=True)(params, carry, key, {"x_BD": x_BD})
        change, moments = optimizer.update(slope, moments)
        return (optax.apply_updates(params, change), moments, carry), None

    begun = drawn(1)
    state = (begun, optimizer.init(begun), task.carry(jax.random.key(1)))
    (params, _, _), _ = jax.jit(lambda state: jax.lax.scan(update, state, jnp.arange(1000)))(state)
    line = np.linspace(-4, 4, 61)
    x_ND = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    truth_N = -np.logaddexp(*(-np.square(x_ND - [side, 0]).sum(axis=1) / 0.72 for side in (1.5, -1.5)))
    truth, found, first = map(density.log_probs, (truth_N, *(MODEL.apply(tree, x_ND.astype(np.float32)) for tree in (params, begun))))
    assert density.kl(truth, found) < 0.05 < 0.5 < density.kl(truth, first)


def test_numbers_that_make_no_chain_are_refused():
    for given, complaint in (({"moves": 0}, "moves=0"), ({"step": 0.0}, "step=0.0"), ({"fresh": 2.0}, r"fresh=2.0: wanted a share")):
        with pytest.raises(ValueError, match=complaint):
            points.Points(MODEL, **given)


def test_divergence_on_a_grid_is_that_of_the_sums():
    noise = np.random.default_rng(0)
    one, other = (density.log_probs(noise.normal(size=(5, 7))) for _ in range(2))
    assert np.exp(one).sum() == pytest.approx(1) and density.kl(one, one) == 0
    assert density.kl(one, other) == pytest.approx((np.exp(one) * (one - other)).sum())
    empty = density.log_probs(np.array([0.0, np.inf]))
    assert density.kl(empty, density.log_probs(np.zeros(2))) == pytest.approx(np.log(2))
    assert density.kl(density.log_probs(np.zeros(2)), empty) == np.inf
    for energy in ([np.nan, 0.0], [np.inf, np.inf], [-np.inf, 0.0], []):
        with pytest.raises(ValueError, match=f"with {np.isnan(energy).sum()} NaN"):
            density.log_probs(np.array(energy))
    with pytest.raises(ValueError, match="wanted one grid for both"):
        density.kl(one, other[:2])
