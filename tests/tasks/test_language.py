import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.models import config, transformer
from flaxgen.tasks import language
from train import optimizers
from train import step as steps

SIZES = config.Config(29, 7, 12, 2, 3, 20, wiring="between", activation="gelu", dropout=0.0)


def batch(rows=2, width=5, seed=0):
    row_BT = np.random.default_rng(seed).integers(1, 29, (rows, width + 1)).astype(np.int32)
    weight_BT = np.ones((rows, width), np.float32)
    weight_BT[1, 3:] = 0
    return {"token_BT": row_BT[:, :-1], "target_BT": row_BT[:, 1:], "weight_BT": weight_BT}


def init(made):
    return jax.jit(made.init)(jax.random.key(0))


def task(loop="unroll", dropout=0.0, **changes):
    sizes = config.Config(**{**vars(SIZES), "dropout": dropout})
    return language.Language(transformer.Transformer(sizes), loop, **changes)


RULE = optimizers.build("adamw", steps=200, rate=1e-2, warmup=5, decay=0.1, clip=1.0)


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


def test_places_beyond_the_targets_do_not_count():
    given = batch()
    given["weight_BT"] *= np.array([5, 1, 4, 2, 3], np.float32)
    few, kept = task(targets=2), given["weight_BT"] >= 4  # of 5 1 4 2 3 and 5 1 4 0 0
    params = init(few)
    loss, (_, facts) = jax.jit(few.loss)(params, (), jax.random.key(1), given)
    wanted, (_, told) = jax.jit(task().loss)(params, (), jax.random.key(1), given | {"weight_BT": given["weight_BT"] * kept})
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    assert facts["weight"] == told["weight"] == 18


@pytest.mark.parametrize("targets", [-1, 1.5, None])
def test_a_number_of_targets_that_is_none_is_refused(targets):
    with pytest.raises(ValueError, match=r"targets=.*0 for all"):
        task(targets=targets)


def test_what_has_no_weight_changes_nothing():
    made = task()
    params = init(made)
    given = batch()
    other = given | {"target_BT": np.where(given["weight_BT"] > 0, given["target_BT"], 3)}
    loss = jax.jit(made.loss)
    assert loss(params, (), jax.random.key(1), given)[0] == loss(params, (), jax.random.key(1), other)[0]


def value(made, params, given):
    return made.loss(params, (), jax.random.key(1), given)[0]


grad = jax.jit(jax.value_and_grad(value, argnums=1), static_argnums=0)


@pytest.mark.parametrize(
    ("loop", "remat", "chunks"), [("scan", "none", 3), ("scan", "full", 1), ("scan", "dots", 29), ("unroll", "dots", 5)]
)
def test_every_loop_remat_and_number_of_chunks_gives_one_loss_and_one_gradient_with_dropout(loop, remat, chunks):
    plain, other = task(dropout=0.3), task(loop, dropout=0.3, remat=remat, chunks=chunks)
    params = init(plain)
    loss, grads = grad(plain, params, batch())
    loss_too, grads_too = grad(other, transformer.stack(params) if loop == "scan" else params, batch())
    np.testing.assert_allclose(loss, loss_too, rtol=1e-6)
    grads_too = transformer.unstack(grads_too) if loop == "scan" else grads_too
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, grads_too)


def test_a_row_draws_its_dropout_by_its_number_in_the_whole_batch():
    made = task(dropout=0.3)
    params, given = init(made), batch(rows=4)
    loss = jax.jit(made.loss)
    whole, (_, facts) = loss(params, (), jax.random.key(1), given)
    parts = []
    for row_B in (np.array([2, 0]), np.array([3, 1])):
        mean, (_, own) = loss(params, (), jax.random.key(1), {name: rows[row_B] for name, rows in given.items()} | {"row_B": row_B})
        parts.append(mean * own["weight"])
    np.testing.assert_allclose(sum(parts), whole * facts["weight"], rtol=1e-6)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_packed_documents_have_the_loss_and_the_gradient_of_rows_of_their_own(loop):
    made = task(loop)
    params, given = init(made), batch()
    packed = {name: np.concatenate([rows[0, :4], rows[1, :3]])[None] for name, rows in given.items()}
    packed["floor_BT"] = np.array([[1] * 4 + [5] * 3])
    alone = {name: rows[:, :4].copy() for name, rows in given.items()}
    (loss, grads), (loss_too, grads_too) = grad(made, params, packed), grad(made, params, alone)
    np.testing.assert_allclose(loss, loss_too, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, grads_too)
    # nats counts every target, and so the one that weighs nothing.
    np.testing.assert_allclose(jax.jit(made.nats)(params, packed)[0, 4:], jax.jit(made.nats)(params, alone)[1, :3], rtol=1e-5)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_bfloat16_activations_give_float32_gradients_near_those_of_float32(loop):
    plain, half = task(loop), task(loop, dtype="bfloat16", remat="full", chunks=2)
    params = init(plain)
    (loss, grads), (loss_too, grads_too) = grad(plain, params, batch()), grad(half, params, batch())
    np.testing.assert_allclose(loss, loss_too, rtol=5e-3)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(grads_too))
    norm, difference = (
        np.sqrt(sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(tree)))
        for tree in (grads, jax.tree.map(jnp.subtract, grads, grads_too))
    )
    assert difference < 0.02 * norm


@pytest.mark.parametrize(("name", "given"), [("loop", "map"), ("remat", "some"), ("dtype", "float16"), ("chunks", 0), ("chunks", 30)])
def test_a_setting_that_makes_no_sense_is_refused_by_its_name(name, given):
    with pytest.raises(ValueError, match=f"{name}={given!r}: wanted"):
        language.Language(transformer.Transformer(SIZES), **{name: given})


def test_it_overfits_one_batch():
    made = task("scan")
    state = steps.start(made, RULE, jax.random.key(0))
    for _ in range(200):
        state, facts = steps.update(made, RULE, state, jax.random.key(1), batch())
    assert float(facts["loss"]) < 0.02


def ten_losses(params):
    made = task("scan")
    state = steps.start(made, RULE, jax.random.key(0))
    state = state if params is None else state.replace(params=params)
    losses = []
    for number in range(10):
        state, facts = steps.update(made, RULE, state, jax.random.key(1), batch(seed=number % 2))
        losses.append(float(facts["loss"]))
    return losses


def test_ten_losses_are_pinned():
    np.testing.assert_allclose(ten_losses(None), PINNED, rtol=2e-5)


def test_ten_losses_from_the_models_own_init_are_pinned():
    key, _ = jax.random.split(jax.random.key(0))
    params = transformer.stack(task().model.init(key, jnp.zeros((1, 1), jnp.int32)))
    np.testing.assert_allclose(ten_losses(params), PINNED_OWN, rtol=2e-5)


PINNED = [3.35427, 3.3808, 3.327662, 3.319375, 3.202779, 3.18696, 3.055465, 3.012504, 2.895757, 2.832921]
PINNED_OWN = [3.361182, 3.396491, 3.339514, 3.335259, 3.23284, 3.2196, 3.094284, 3.089713, 2.939312, 2.927809]


def test_the_exported_tree_is_the_models_own():
    made = task("scan")
    params = jax.eval_shape(made.init, jax.random.key(0))
    own = jax.eval_shape(made.model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    assert jax.eval_shape(made.export, params, ()) == own


@pytest.mark.parametrize("chunks", [1, 3])
def test_off_the_cpu_bfloat16_meets_bfloat16_in_every_product_forward_and_backward(monkeypatch, chunks):
    made = task("scan", dtype="bfloat16", remat="full", chunks=chunks, dropout=0.1)
    params = jax.eval_shape(made.init, jax.random.key(0))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    step = jax.jit(jax.grad(lambda params: made.loss(params, (), jax.random.key(1), batch())[0]))
    program = step.trace(params).lower(lowering_platforms=("cuda",)).as_text().splitlines()
    factors = [re.findall(r"x(bf16|f32)>", line.split(" : ")[-1])[:2] for line in program if "stablehlo.dot_general" in line]
    assert len(factors) > 20 and all(pair == ["bf16", "bf16"] for pair in factors)
