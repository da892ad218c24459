import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.models import config, transformer
from flaxgen.tasks import language
from train import step as steps

SIZES = config.Config(29, 7, 12, 2, 3, 20, wiring="between", activation="gelu", dropout=0.0)


def batch(rows=2, width=5, seed=0):
    row_BT = np.random.default_rng(seed).integers(1, 29, (rows, width + 1)).astype(np.int32)
    weight_BT = np.ones((rows, width), np.float32)
    weight_BT[1, 3:] = 0
    return {"token_BT": row_BT[:, :-1], "target_BT": row_BT[:, 1:], "weight_BT": weight_BT}


def init(made):
    return jax.jit(made.init)(jax.random.key(0))


def task(loop="unroll", dropout=0.0, remat="none"):
    sizes = config.Config(**{**vars(SIZES), "dropout": dropout})
    return language.Language(transformer.Transformer(sizes), loop, remat)


RULE = steps.adamw(steps=200, rate=1e-2, warmup=5, decay=0.1, clip=1.0)


def test_the_loss_is_the_weighted_mean_of_negative_log_probabilities():
    made = task()
    params = init(made)
    given = batch()
    loss, (carry, facts) = jax.jit(made.loss)(params, (), jax.random.key(1), given)
    logit_BTV = np.asarray(jax.jit(made.model.apply)(params, given["token_BT"])[0], np.float64)
    log_prob_BTV = logit_BTV - np.log(np.exp(logit_BTV).sum(axis=-1, keepdims=True))
    picked_BT = np.take_along_axis(log_prob_BTV, given["target_BT"][..., None], axis=-1)[..., 0]
    wanted = -(picked_BT * given["weight_BT"]).sum() / 8
    assert carry == () and facts["weight"] == 8
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_what_has_no_weight_changes_nothing():
    made = task()
    params = init(made)
    given = batch()
    other = given | {"target_BT": np.where(given["weight_BT"] > 0, given["target_BT"], 3)}
    loss = jax.jit(made.loss)
    assert loss(params, (), jax.random.key(1), given)[0] == loss(params, (), jax.random.key(1), other)[0]


@pytest.mark.parametrize("remat", ["none", "full"])
def test_scanned_and_unrolled_layers_give_one_loss_and_one_gradient_with_dropout(remat):
    plain, stacked = task(dropout=0.3), task("scan", dropout=0.3, remat=remat)
    params = init(plain)

    def value(made, params):
        return made.loss(params, (), jax.random.key(1), batch())[0]

    grad = jax.jit(jax.value_and_grad(value, argnums=1), static_argnums=0)
    loss, grads = grad(plain, params)
    loss_too, grads_too = grad(stacked, transformer.stack(params))
    np.testing.assert_allclose(loss, loss_too, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, transformer.unstack(grads_too))


def test_it_overfits_one_batch():
    made = task("scan")
    state = steps.start(made, RULE, jax.random.key(0))
    for _ in range(200):
        state, facts = steps.update(made, RULE, state, jax.random.key(1), batch())
    assert float(facts["loss"]) < 0.02


def test_ten_losses_are_pinned():
    made = task("scan")
    state = steps.start(made, RULE, jax.random.key(0))
    losses = []
    for number in range(10):
        state, facts = steps.update(made, RULE, state, jax.random.key(1), batch(seed=number % 2))
        losses.append(float(facts["loss"]))
    np.testing.assert_allclose(losses, PINNED, rtol=2e-5)


PINNED = [3.361182, 3.396491, 3.339514, 3.335259, 3.23284, 3.2196, 3.094284, 3.089713, 2.939312, 2.927809]


def test_the_exported_tree_is_the_models_own():
    made = task("scan")
    params = jax.eval_shape(made.init, jax.random.key(0))
    own = jax.eval_shape(made.model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    assert jax.eval_shape(made.export, params, ()) == own
