import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen.models import gated, gated_config
from flaxgen.tasks import tagging

SIZES = gated_config.Config(13, width=6, layers=2, dropout=0.0)
BATCH = {"token_BT": jnp.asarray([[1, 2, 3], [4, 5, 0]]), "target_BT": jnp.asarray([[7, 8, 9], [10, 0, 12]])}


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: leaf + 0.1, tagging.Tagging(gated.Gated(SIZES)).init(jax.random.key(0)))


def by_hand(params, batch):
    logit_BTV = gated.Gated(SIZES).apply(params, batch["token_BT"])
    return -jnp.take_along_axis(jax.nn.log_softmax(logit_BTV), batch["target_BT"][..., None], axis=2)[..., 0]


def test_the_loss_is_the_mean_over_characters_and_unknown_ones_count(params):
    loss, (carry, facts) = tagging.Tagging(gated.Gated(SIZES)).loss(params, (), jax.random.key(1), BATCH)
    np.testing.assert_allclose(loss, by_hand(params, BATCH).mean(), atol=1e-6)
    assert carry == () and facts["weight"] == 6


def test_its_gradient_is_that_of_the_logits(params):
    task = tagging.Tagging(gated.Gated(SIZES))
    found = jax.grad(lambda params: task.loss(params, (), jax.random.key(1), BATCH)[0])(params)
    wanted = jax.grad(lambda params: by_hand(params, BATCH).mean())(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, wanted)


def test_rows_of_no_weight_do_not_count(params):
    task = tagging.Tagging(gated.Gated(SIZES))
    loss, (_, facts) = task.loss(params, (), jax.random.key(1), BATCH | {"weight_B": jnp.asarray([0.0, 1.0])})
    np.testing.assert_allclose(loss, by_hand(params, BATCH)[1].mean(), atol=1e-6)
    assert facts["weight"] == 3


def test_dropout_goes_by_the_row_s_number():
    task = tagging.Tagging(gated.Gated(gated_config.Config(13, width=6, layers=2, dropout=0.5)))
    params, key = task.init(jax.random.key(0)), jax.random.key(1)
    rows = [{name: leaf[row : row + 1] for name, leaf in BATCH.items()} | {"row_B": jnp.asarray([row])} for row in (0, 1)]
    both = [task.loss(params, (), key, row)[0] for row in rows]
    np.testing.assert_allclose(task.loss(params, (), key, BATCH)[0], np.mean(both), atol=1e-6)


@pytest.mark.parametrize("kind", ["gated", "bilstm"])
def test_a_fixed_bijection_is_learnt_to_the_last_character(kind):
    """Couplets made of antonyms: character i is answered by i + 5."""
    draw = np.random.default_rng(0)
    task = tagging.Tagging(gated.Gated(gated_config.Config(11, kind, 12, layers=1, dropout=0.0)))
    params, adam = task.init(jax.random.key(0)), optax.adam(3e-2)

    @jax.jit
    def update(params, moments, batch):
        grads = jax.grad(lambda params: task.loss(params, (), jax.random.key(0), batch)[0])(params)
        moves, moments = adam.update(grads, moments, params)
        return optax.apply_updates(params, moves), moments

    moments = adam.init(params)
    for _ in range(60):
        token_BT = draw.integers(1, 6, (16, 4))
        params, moments = update(params, moments, {"token_BT": token_BT, "target_BT": token_BT + 5})
    token_BT = draw.integers(1, 6, (64, 4))
    assert (task.model.apply(params, token_BT).argmax(axis=-1) == token_BT + 5).all()


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype='float16': wanted one of float32, bfloat16"):
        tagging.Tagging(gated.Gated(SIZES), dtype="float16")
