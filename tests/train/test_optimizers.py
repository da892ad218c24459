import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flaxgen import sharding
from train import optimizers, partition

NAMES = typing.get_args(optimizers.Name)
LAYERS, OUT, IN = 3, 130, 129  # beyond optax's 128, so that adafactor factors


def layer(random):
    kernel, bias = random.normal(size=(OUT, IN)), random.normal(size=OUT)
    return {"mlp": {"up": {"kernel": kernel, "bias": bias}}, "norm_0": {"scale": random.normal(size=IN)}}


def tree(seed, size=1.0):
    """An unrolled tree of three layers whose numbers differ in size from layer to layer."""
    random = np.random.default_rng(seed)
    blocks = {f"block_{i:02d}": jax.tree.map(lambda leaf, i=i: leaf * 3.0**i, layer(random)) for i in range(LAYERS)}
    ends = {"embed": {"token": {"embedding": random.normal(size=(17, IN))}}, "norm": {"scale": random.normal(size=IN)}}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf * size, jnp.float32), {"params": blocks | ends})


def stack(params):
    own = dict(params["params"])
    blocks = [own.pop(f"block_{i:02d}") for i in range(LAYERS)]
    return {"params": own | {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}}


def build(name, **given):
    return optimizers.build(name, **{"steps": 9, "rate": 1e-2, "decay": 0.1, "clip": 1.0, "schedule": "constant", **given})


def moves(rule, params, grads):
    """The parameters after each of the gradients, and the optimizer's last state."""
    state, seen, update = rule.init(params), [], jax.jit(rule.update)
    for grad in grads:
        change, state = update(grad, state, params)
        params = optax.apply_updates(params, change)
        seen.append(params)
    return seen, state


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [{}, {"layer_rate": 0.7, "layers": LAYERS, "ema": 0.9}], ids=["plain", "by depth, averaged"])
def test_stacked_and_unrolled_layers_move_alike(name, extra):
    rule = build(name, **extra)
    grads = [tree(seed, 0.1) for seed in (1, 2, 3)]
    unrolled, state = moves(rule, tree(0), grads)
    stacked, stacked_state = moves(rule, stack(tree(0)), [stack(grad) for grad in grads])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, [stack(params) for params in unrolled], stacked)
    averages = optimizers.averaged(state, unrolled[-1]), optimizers.averaged(stacked_state, stacked[-1])
    jax.tree.map(close, stack(averages[0]), averages[1])


@pytest.mark.parametrize("name", NAMES)
def test_cut_leaves_move_as_whole_ones_do(name):
    freeze = r"block_01/mlp|block_00/norm"
    rule = build(name, clip=0.0, layer_rate=0.7, layers=LAYERS, freeze=freeze)
    params, grad = stack(tree(0)), stack(tree(1))
    cut = [partition.split(part, freeze)[0] for part in (params, grad)]
    (moved,), _ = moves(rule, cut[0], [cut[1]])
    (wanted,), _ = moves(build(name, clip=0.0, layer_rate=0.7, layers=LAYERS), params, [grad])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), moved, partition.split(wanted, freeze)[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_mesh_gives_what_one_device_gives_and_splits_factored_moments_too(name):
    grid = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    params, grad = (
        {"params": {"block": {"up": {"kernel": stack(tree(seed))["params"]["block"]["mlp"]["up"]["kernel"]}}}} for seed in (0, 1)
    )
    params, grad = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0), (0, 6), (0, 3))), (params, grad))  # to 136 x 132
    rule = build(name, ema=0.9)
    specs = sharding.specs(params, [(".*", PartitionSpec("tensor", "fsdp"))], dict(grid.shape))
    layout = sharding.follow(jax.eval_shape(rule.init, params), params, specs)
    place = lambda specs: jax.tree.map(lambda spec: NamedSharding(grid, spec), specs)  # noqa: E731
    state = jax.jit(rule.init, out_shardings=place(layout))(jax.device_put(params, place(specs)))
    update = jax.jit(rule.update, out_shardings=(place(specs), place(layout)))
    moved, _ = update(jax.device_put(grad, place(specs)), state, jax.device_put(params, place(specs)))
    wanted, _ = jax.jit(rule.update)(grad, rule.init(params), params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), moved, wanted)
    assert all(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state) if leaf.size > LAYERS)


def test_adamw_is_optaxs_own():
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 3, 9, end_value=5e-4)
    own = optax.adamw(rate, b1=0.9, b2=0.98, weight_decay=0.1, mask=optimizers.decayed)
    grads = [tree(seed, 0.1) for seed in (1, 2, 3)]
    wanted, _ = moves(optax.chain(optax.clip_by_global_norm(1.0), own), tree(0), grads)
    given, _ = moves(build("adamw", schedule="cosine", warmup=3), tree(0), grads)
    jax.tree.map(np.testing.assert_array_equal, given, wanted)


def test_lion_is_optaxs_own():
    grads = [tree(seed, 0.1) for seed in (1, 2, 3)]
    wanted, _ = moves(optax.lion(1e-2, weight_decay=0.1, mask=optimizers.decayed), tree(0), grads)
    given, _ = moves(build("lion", clip=0.0), tree(0), grads)
    jax.tree.map(np.testing.assert_array_equal, given, wanted)


def test_adafactor_is_optaxs_own_on_unrolled_layers():
    grads = [tree(seed, 0.1) for seed in (1, 2, 3)]
    wanted, _ = moves(optax.adafactor(1e-2), tree(0), grads)
    given, _ = moves(build("adafactor", clip=0.0, decay=0.0), tree(0), grads)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), given, wanted)


# g = [[1, 2], [3, -4]], w = 0.5, worked out by hand in float64 from imcaspar/gpt2-ml's code
VECTOR = {
    "moments": ([0.0025, 0.0125], [0.005, 0.01]),
    "rms": 30.983866769659322,
    "clipped": [[0.79056942, 1.11803399], [1.06066017, -1]],
    "moved": [[0.49992044, 0.4998877], [0.49989343, 0.5000995]],
}


@pytest.mark.parametrize("layout", ["in, out", "out, in"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_one_step_vector_of_gpt2_mls_adafactor(layout, dtype):
    with jax.enable_x64(dtype == "float64"):
        turn = (lambda rows: np.asarray(rows).T) if layout == "out, in" else np.asarray
        grad = {"a": {"kernel": jnp.asarray(turn([[1, 2], [3, -4]]), dtype)}}
        params = {"a": {"kernel": jnp.full((2, 2), 0.5, dtype)}}
        raw, moments = optimizers.scale_by_gpt2_ml().update(grad, optimizers.scale_by_gpt2_ml().init(params))
        direction = optimizers.direction("adafactor-gpt2-ml")
        clipped, _ = direction.update(grad, direction.init(params), params)
        (moved,), _ = moves(build("adafactor-gpt2-ml", rate=1e-4, decay=0.01, clip=0.0), params, [grad])
    found = [moments.row["a"]["kernel"], moments.col["a"]["kernel"]]
    found = found[::-1] if layout == "out, in" else found
    close = functools.partial(np.testing.assert_allclose, rtol=0)
    close(moved["a"]["kernel"], turn(VECTOR["moved"]), atol=1e-7)
    close(found, VECTOR["moments"], atol=1e-8)
    # A float32 between 1 and 2 is 1.2e-7 from the next.
    close(clipped["a"]["kernel"], turn(VECTOR["clipped"]), atol=1e-7 if dtype == "float64" else 2**-23)
    close(np.sqrt(np.mean(np.asarray(raw["a"]["kernel"]) ** 2)), VECTOR["rms"], atol=1e-7 if dtype == "float64" else 2**-18)


def gpt2_ml(params, grads, *, rate, decay):
    """imcaspar/gpt2-ml's AdaFactor in float64, one parameter at a time, after its code."""
    row = col = moment = 0.0
    for grad in grads:
        square = grad**2 + 1e-30
        if grad.ndim >= 2:
            row = 0.999 * row + 0.001 * square.mean(axis=-1)
            col = 0.999 * col + 0.001 * square.mean(axis=-2)
            update = grad / np.sqrt(row / row.mean() + 1e-30)[:, None] / np.sqrt(col + 1e-30)[None]
        else:
            moment = 0.999 * moment + 0.001 * square
            update = grad / np.sqrt(moment + 1e-30)
        update = update / max(1.0, np.sqrt(np.mean(update**2)))
        params = params - rate * (update + decay * params)
    return params


def test_gpt2_mls_adafactor_follows_its_code_over_many_updates():
    grads = [tree(seed, 10.0 ** -(seed % 3)) for seed in range(1, 13)]
    (*_, moved), _ = moves(build("adafactor-gpt2-ml", clip=0.0), tree(0), grads)
    wide = jax.tree.map(lambda *leaves: [np.asarray(leaf, np.float64) for leaf in leaves], tree(0), *grads)
    flags = optimizers.decayed(tree(0))
    wanted = jax.tree.map(lambda flag, leaves: gpt2_ml(leaves[0], leaves[1:], rate=1e-2, decay=0.1 * flag), flags, wide)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), moved, wanted)


def test_rows_that_never_get_a_gradient_move_by_their_decay_alone():
    grad = tree(1)
    grad["params"]["embed"]["token"]["embedding"] = grad["params"]["embed"]["token"]["embedding"].at[5:].set(0.0)
    (moved,), _ = moves(build("adafactor-gpt2-ml", clip=0.0), tree(0), [grad])
    before = tree(0)["params"]["embed"]["token"]["embedding"]
    np.testing.assert_allclose(moved["params"]["embed"]["token"]["embedding"][5:], before[5:] * (1 - 1e-2 * 0.1), rtol=1e-6)


RATES = {
    "cosine": {0: 0, 5: 1e-3, 10: 2e-3, 55: 1.05e-3, 100: 1e-4, 130: 1e-4},
    "linear": {0: 0, 5: 1e-3, 10: 2e-3, 55: 1e-3, 100: 0, 130: 0},
    "constant": {0: 0, 5: 1e-3, 10: 2e-3, 55: 2e-3, 130: 2e-3},
    "wsd": {0: 0, 5: 1e-3, 10: 2e-3, 80: 2e-3, 90: 1e-3, 95: 5e-4, 100: 0, 130: 0},
    "halves": {0: 0, 5: 1e-3, 10: 2e-3, 19: 2e-3, 20: 1e-3, 39: 1e-3, 40: 5e-4, 100: 6.25e-5},
    "gpt2-ml": {0: 0, 5: 1e-3, 9: 1.8e-3, 10: 1.8e-3, 55: 9e-4, 100: 0, 130: 0},
}


@pytest.mark.parametrize("name", typing.get_args(optimizers.Schedule))
def test_the_rates_of_a_schedule(name):
    rate = optimizers.rates(name, steps=100, rate=2e-3, warmup=10, cooldown=20)
    np.testing.assert_allclose([rate(step) for step in RATES[name]], list(RATES[name].values()), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", typing.get_args(optimizers.Schedule))
@pytest.mark.parametrize("warmup", [0, 1, 300])
def test_a_schedule_bears_a_run_of_one_update_and_no_warm_up(name, warmup):
    for steps in (1, 2, 7):
        rate = optimizers.rates(name, steps=steps, rate=2e-3, warmup=warmup, cooldown=0)
        assert np.isfinite([rate(step) for step in range(steps + 2)]).all()


def test_no_warm_up_starts_at_the_whole_rate():
    for name in typing.get_args(optimizers.Schedule):
        np.testing.assert_allclose(optimizers.rates(name, steps=10, rate=2e-3, warmup=0, cooldown=4)(0), 2e-3, rtol=1e-6)


def test_the_rate_falls_layer_by_layer_towards_the_embeddings():
    params = jax.tree.map(jnp.zeros_like, tree(0))
    ones = jax.tree.map(jnp.ones_like, params)
    (moved,), _ = moves(build("sgd", rate=1.0, clip=0.0, layer_rate=0.5, layers=LAYERS), params, [ones])
    found = {name: float(-jax.tree.leaves(part)[0].ravel()[0]) for name, part in moved["params"].items()}
    assert found == {"norm": 1.0, "block_02": 1.0, "block_01": 0.5, "block_00": 0.25, "embed": 0.125}


def test_only_kernels_and_embeddings_decay():
    given = {"a": {"kernel": 1, "bias": 2, "kernel_a": 6, "kernel_b": 7}, "norm": {"scale": 3, "bias": 4}, "token": {"embedding": 5}}
    kernels = {"kernel": True, "bias": False, "kernel_a": True, "kernel_b": True}
    assert optimizers.decayed(given) == {"a": kernels, "norm": {"scale": False, "bias": False}, "token": {"embedding": True}}


@pytest.mark.parametrize("name", NAMES)
def test_without_a_gradient_all_optimizers_shrink_alike(name):
    params = tree(0)
    (moved,), _ = moves(build(name, clip=0.0), params, [jax.tree.map(jnp.zeros_like, params)])
    shrink = lambda flag, leaf: leaf * (1 - 1e-2 * 0.1 * flag)  # noqa: E731
    wanted = jax.tree.map(shrink, optimizers.decayed(params), params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), moved, wanted)


def test_a_large_gradient_is_cut_to_its_clip_and_a_small_one_left():
    params = tree(0)
    for size, wanted in ((1e4, 1.0), (1e-6, None)):
        grad = tree(1, size)
        (moved,), _ = moves(build("sgd", rate=1.0, decay=0.0), jax.tree.map(jnp.zeros_like, params), [grad])
        np.testing.assert_allclose(optax.tree.norm(moved), wanted or optax.tree.norm(grad), rtol=1e-5)


def test_the_average_starts_at_the_parameters_and_follows_them():
    params, grads = tree(0), [tree(seed) for seed in range(1, 8)]
    rule = build("sgd", ema=0.6)
    jax.tree.map(np.testing.assert_array_equal, optimizers.averaged(rule.init(params), None), params)
    seen, state = moves(rule, params, grads)
    plain, _ = moves(build("sgd"), params, grads)
    jax.tree.map(np.testing.assert_array_equal, seen, plain)
    mean = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for t, now in enumerate(seen, 1):
        d = min(0.6, (1 + t) / (10 + t))
        mean = jax.tree.map(lambda old, new, d=d: d * old + (1 - d) * np.asarray(new, np.float64), mean, now)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), optimizers.averaged(state, None), mean)


def test_without_an_average_the_parameters_stand_for_it():
    params = tree(0)
    assert optimizers.averaged(build("adamw").init(params), params) is params


BYTES = {"adamw": 8, "adam": 8, "adam-0": 8, "adamax": 8, "lion": 4, "sgd": 0, "adafactor": 0.1, "adafactor-gpt2-ml": 0.1}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_the_state_costs_in_bytes_a_parameter(name, ema):
    params = {"params": {"block": {"mlp": {"up": {"kernel": jax.ShapeDtypeStruct((12, 3072, 768), jnp.float32)}}}}}
    state = jax.eval_shape(build(name, ema=ema).init, params)
    cost = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) / (12 * 3072 * 768)
    assert BYTES[name] + 4 * (ema > 0) - 0.1 <= cost <= BYTES[name] + 4 * (ema > 0) + 0.001


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "adamx"}, "optimizer 'adamx': wanted one of adamw, adam, adam-0"),
        ({"schedule": "cosin"}, "schedule 'cosin': wanted one of cosine, linear"),
        ({"ema": 1.0}, "ema=1.0: wanted"),
        ({"layer_rate": 0.5}, "layer_rate=0.5, layers=0: wanted"),
        ({"layer_rate": 1.5, "layers": 3}, "layer_rate=1.5"),
    ],
)
def test_what_build_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        build(**{"name": "adamw", **given})


def test_another_number_of_layers_is_refused():
    with pytest.raises(ValueError, match=r"block/.* has 3 layers, freeze='' leaves 4 of layers=4"):
        moves(build("sgd", layer_rate=0.5, layers=4), stack(tree(0)), [stack(tree(1))])


def test_adam_without_momentum_follows_its_formula():
    grads = [tree(seed) for seed in (1, 2, 3)]
    (*_, moved), _ = moves(build("adam-0", rate=1e-2, decay=0.0, clip=0.0), tree(0), grads)

    def wanted(before, *seen):
        square = 0.0
        for t, grad in enumerate(seen, 1):
            square = 0.999 * square + 0.001 * np.asarray(grad, np.float64) ** 2
            before = before - 1e-2 * grad / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        return before

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), moved, jax.tree.map(wanted, tree(0), *grads))


def test_adamax_divides_by_the_largest_gradient_of_late():
    grads = [tree(seed) for seed in (1, 2, 3)]
    (*_, moved), _ = moves(build("adamax", rate=1e-2, decay=0.0, clip=0.0), tree(0), grads)

    def wanted(before, *seen):
        mean = largest = 0.0
        for t, grad in enumerate(seen, 1):
            mean = 0.9 * mean + 0.1 * np.asarray(grad, np.float64)
            largest = np.maximum(np.abs(grad) + 1e-8, 0.999 * largest)
            before = before - 1e-2 / (1 - 0.9**t) * mean / largest
        return before

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), moved, jax.tree.map(wanted, tree(0), *grads))


def test_a_lowered_rate_scales_every_update_and_the_average_sees_what_was_taken():
    rule = build("sgd", rate=1.0, decay=0.0, clip=0.0, lower=0.5, ema=0.9)
    params, ones = tree(0), jax.tree.map(jnp.ones_like, tree(0))
    state = rule.init(params)
    assert float(optimizers.share(state)) == 1
    lower = optimizers.lowered(state, 0.25)
    assert float(optimizers.share(lower)) == 0.25
    updates, after = rule.update(ones, lower, params)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, jnp.full_like(leaf, -0.25)), updates)
    first = min(0.9, 2 / 11)
    wanted = jax.tree.map(lambda leaf: leaf - (1 - first) * 0.25, params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), optimizers.averaged(after, None), wanted)
    plain = build("sgd")
    assert optimizers.share(optimizers.lowered(plain.init(params), 0.5)) == 1
