import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from flaxgen.models import config, transformer
from flaxgen.tasks import language, lora
from train import partition

SIZES = config.Config(29, 7, 12, 2, 3, 20, wiring="between", activation="gelu", dropout=0.0)


SOME = r"attend/[qv]|mlp/up"


def base(loop="scan", **given):
    return language.Language(transformer.Transformer(SIZES), loop, **given)


def batch(rows=2, width=5, seed=0):
    row_BT = np.random.default_rng(seed).integers(1, 29, (rows, width + 1)).astype(np.int32)
    return {"token_BT": row_BT[:, :-1], "target_BT": row_BT[:, 1:], "weight_BT": np.ones((rows, width), np.float32)}


@functools.cache
def plain(loop="scan"):
    """The base's parameters drawn by numpy, which has nothing to compile."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(base("scan").init, jax.random.key(0))
    draw = lambda path, leaf: jnp.asarray(random.normal(path[-1].key == "scale", 0.2, leaf.shape), jnp.float32)  # noqa: E731
    stacked = jax.tree_util.tree_map_with_path(draw, shapes)
    return stacked if loop == "scan" else transformer.unstack(stacked)


@functools.cache
def adapted(task):
    return jax.jit(task.adapt)(plain(task.task.loop), jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def value(task, params):
    return task.loss(params, (), jax.random.key(1), batch())[0]


def paths(params):
    return {partition.name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


@functools.cache
def trained(task, updates=12):
    """Parameters before and after some updates of the trained tree alone."""
    before = adapted(task)
    learnt, frozen = partition.split(before, lora.FROZEN)
    rule = optax.adam(3e-2)

    @jax.jit
    def update(learnt, state):
        loss = lambda learnt: task.loss(partition.merge(learnt, frozen, lora.FROZEN), (), jax.random.key(1), batch())[0]  # noqa: E731
        moves, state = rule.update(jax.grad(loss)(learnt), state)
        return optax.apply_updates(learnt, moves), state

    state = rule.init(learnt)
    for _ in range(updates):
        learnt, state = update(learnt, state)
    return before, partition.merge(learnt, frozen, lora.FROZEN)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_before_training_it_is_the_base(loop):
    task = lora.Lora(base(loop), 4, 8.0, pattern=SOME)
    params = adapted(task)
    jax.tree.map(np.testing.assert_array_equal, task.merge(params), plain(loop))
    assert value(task, params) == value(task.task, plain(loop))


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_merged_and_unmerged_give_the_same_logits(loop):
    task = lora.Lora(base(loop), 4, 8.0, pattern=SOME)
    before, params = trained(task)
    assert abs(float(value(task, params) - value(task, before))) > 0.1
    np.testing.assert_allclose(value(task, params), value(task.task, task.merge(params)), rtol=1e-6)
    scaled = {path: leaf * (2.0 if path.endswith("kernel_b") else 1.0) for path, leaf in paths(params).items()}
    tree = {"params": traverse_util.unflatten_dict(scaled, sep="/")}
    unmerged = transformer.unstack(tree) if loop == "scan" else tree
    logits = [jax.jit(task.task.model.apply)(given, batch()["token_BT"])[0] for given in (unmerged, task.export(params, ()))]
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_what_is_exported_is_the_base_models_own_tree():
    task = lora.Lora(base(), 4, 8.0)
    own = jax.eval_shape(task.task.model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    assert jax.eval_shape(lambda key: task.export(task.init(key), ()), jax.random.key(0)) == own


def test_only_the_small_matrices_are_trained():
    before, after = map(paths, trained(lora.Lora(base(), 4, 8.0, pattern=SOME)))
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {f"block/{part}/kernel_{end}" for part in ("attend/q", "attend/v", "mlp/up") for end in "ab"}


def test_stacked_and_unrolled_layers_begin_and_learn_alike():
    stacked, unrolled = (trained(lora.Lora(base(loop), 4, 8.0, pattern=SOME)) for loop in ("scan", "unroll"))
    jax.tree.map(np.testing.assert_array_equal, transformer.unstack(stacked[0]), unrolled[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), transformer.unstack(stacked[1]), unrolled[1])


def test_no_two_matrices_begin_alike():
    leaves = paths(adapted(lora.Lora(base("unroll"), 4, 8.0, pattern=SOME)))
    drawn = [leaf[0, 0].item() for path, leaf in leaves.items() if path.endswith("kernel_a")]
    assert len(drawn) == 6 and len(set(drawn)) == 6


def test_a_pattern_of_some_layers_adapts_these_where_layers_lie_apart():
    leaves = paths(adapted(lora.Lora(base("unroll"), 4, 8.0, pattern="block_01/mlp/up")))
    assert [path for path in leaves if path.endswith("_a")] == ["block_01/mlp/up/kernel_a"]
    with pytest.raises(ValueError, match=r'takes block_01/mlp/up/kernel but not all of the 2 layers .* loop="unroll"'):
        adapted(lora.Lora(base("scan"), 4, 8.0, pattern="block_01/mlp/up"))


def test_a_base_in_bfloat16_gets_its_matrices_and_its_sum_in_float32():
    task = lora.Lora(base(dtype="bfloat16"), 4, 8.0)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), plain())
    params = task.adapt(half, jax.random.key(2))
    assert {leaf.dtype for path, leaf in paths(params).items() if path[-2:] in ("_a", "_b")} == {jnp.dtype("float32")}
    assert np.isfinite(value(task, params))
    assert paths(task.merge(params))["block/attend/q/kernel"].dtype == jnp.float32


@pytest.mark.parametrize("given", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}])
def test_a_rank_or_scale_of_nothing_is_refused(given):
    with pytest.raises(ValueError, match="wanted a whole number from 1 up and a number over 0"):
        dataclasses.replace(lora.Lora(base(), 4, 8.0), **given)


def test_a_pattern_without_kernels_is_refused():
    with pytest.raises(ValueError, match="'embed' takes no kernel; the paths are block_00/attend/k/kernel"):
        adapted(lora.Lora(base(), 4, 8.0, pattern="embed"))


def test_parameters_without_the_small_matrices_are_refused():
    task = lora.Lora(base(), 4, 8.0)
    with pytest.raises(ValueError, match=r"make them by Lora\.init"):
        jax.eval_shape(functools.partial(task.loss, batch=batch()), plain(), (), jax.random.key(1))
