import dataclasses
import functools

import jax
import numpy as np
import pytest

from flaxgen.models import config, transformer
from flaxgen.tasks import language
from train import optimizers, parallel

SIZES = config.Config(48, 12, 24, 2, 8, 32, wiring="between", activation="gelu", dropout=0.1)
MESHES = [{"data": data, "fsdp": fsdp, "tensor": 8 // data // fsdp} for data in (1, 2, 4, 8) for fsdp in (1, 2, 4, 8) if data * fsdp <= 8]


def batch(place, rows=16, width=10):
    row_BT = np.random.default_rng(place).integers(1, 48, (rows, width + 1)).astype(np.int32)
    weight_BT = (np.random.default_rng(place + 1).random((rows, width)) < 0.8).astype(np.float32)
    return {"token_BT": row_BT[:, :-1], "target_BT": row_BT[:, 1:], "weight_BT": weight_BT, "row_B": np.arange(rows, dtype=np.int32)}


def program(axes, optimizer="sgd", kind=parallel.Program, **given):
    task = language.Language(
        transformer.Transformer(SIZES), loop="scan", remat="full", spread=parallel.ROWS if kind is parallel.Program else ()
    )
    rule = optimizers.build(optimizer, steps=50, rate=1e-2, schedule="constant", warmup=0, decay=0.01, clip=1.0)
    return kind(task, rule, lambda step: 1e-2, transformer.SHARDING, parallel.mesh(axes), **given)


@functools.cache
def begun():
    """First parameters by numpy, which has nothing to compile."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(language.Language(transformer.Transformer(SIZES), loop="scan").init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: random.normal(path[-1].key == "scale", 0.1, leaf.shape).astype(np.float32), shapes
    )


def losses(made, steps):
    """The losses, and the parameters on the host, after some updates."""
    state, found = made.start(begun()), []
    for place in range(steps):
        state, now = made.update(state, made.place(lambda rows, place=place: {k: v[rows] for k, v in batch(place).items()}, 16))
        found.append(float(now["loss"]))
    return found, jax.device_get(made.saved(state).params)


@functools.cache
def alone(optimizer, steps):
    return losses(program({"data": 1, "fsdp": 1, "tensor": 1}, optimizer), steps)


def near(tree, other, most=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=most), tree, other)


@pytest.mark.parametrize("axes", MESHES, ids=lambda axes: "x".join(map(str, axes.values())))
def test_one_step_on_any_mesh_is_the_step_of_one_device(axes):
    (loss,), params = losses(program(axes), 1)
    (wanted,), params_too = alone("sgd", 1)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    near(params, params_too)


def test_one_step_under_pmap_is_the_step_of_one_device():
    (loss,), params = losses(program({"data": 8, "fsdp": 1, "tensor": 1}, kind=parallel.Copies), 1)
    (wanted,), params_too = alone("sgd", 1)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    near(params, params_too)


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("kind", [parallel.Program, parallel.Copies])
def test_a_batch_in_parts_gives_the_step_of_the_whole(accumulate, kind):
    (loss,), params = losses(program({"data": 4, "fsdp": 1, "tensor": 1}, kind=kind, accumulate=accumulate), 1)
    (wanted,), params_too = alone("sgd", 1)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    near(params, params_too)


@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"data": 8, "fsdp": 1, "tensor": 1}], ids=str)
@pytest.mark.parametrize("kind", [parallel.Program, parallel.Copies])
def test_fifty_updates_of_adamw_have_the_losses_of_one_device(axes, kind):
    if kind is parallel.Copies and axes["data"] != 8:
        pytest.skip("pmap has one axis")
    found, _ = losses(program(axes, "adamw", kind), 50)
    np.testing.assert_allclose(found, alone("adamw", 50)[0], rtol=1e-5)


def test_no_device_ever_holds_a_whole_kernel_where_fsdp_cuts_it():
    made = program({"data": 1, "fsdp": 8, "tensor": 1}, "adamw")
    state = made.start()
    kernel = state.params["params"]["block"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 8 == kernel.size
    compiled = jax.jit(made._start, out_shardings=made._layout).lower().compile().as_text()
    whole = f"f32[{','.join(map(str, kernel.shape))}]"
    assert whole not in compiled


def test_frozen_parameters_stay_and_the_others_learn_on_a_mesh():
    made = program({"data": 2, "fsdp": 2, "tensor": 2}, freeze="embed|block_00")
    before = made.start(begun())
    kept = jax.device_get(before.frozen)
    learnt = jax.device_get(before.params)
    state, _ = made.update(before, made.place(lambda rows: {k: v[rows] for k, v in batch(0).items()}, 16))
    jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(state.frozen))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), learnt, jax.device_get(state.params))
    assert moved["params"]["block"]["mlp"]["up"]["kernel"] > 0


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(ValueError, match="batch=12 does not divide over 8 devices; give batch=16, or mesh=data=1,fsdp=1,tensor=8"):
        parallel.check({"data": 8, "fsdp": 1, "tensor": 1}, batch=12, accumulate=1, kind="mesh")


def test_a_mesh_of_another_number_of_devices_names_one_that_fits():
    with pytest.raises(ValueError, match=r"mesh=data=4,tensor=4 is for 16 devices, there are 8; try mesh=data=2,fsdp=1,tensor=4"):
        parallel.sizes("data=4,tensor=4", 8)
    with pytest.raises(ValueError, match="'model=2' is not AXIS=SIZE with an axis of data, fsdp, tensor"):
        parallel.sizes("model=2", 8)


def test_pmap_refuses_axes_that_it_does_not_have():
    with pytest.raises(ValueError, match="parallel=pmap keeps a whole copy on each device"):
        parallel.check({"data": 4, "fsdp": 2, "tensor": 1}, batch=16, accumulate=1, kind="pmap")


def test_a_program_lowers_for_shapes_alone():
    made = program({"data": 2, "fsdp": 4, "tensor": 1}, "adamw")
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in batch(0).items()}
    assert made.lower(shapes).compile().cost_analysis()["flops"] > 0


def test_the_layout_of_the_optimizer_follows_the_parameters():
    made = program({"data": 1, "fsdp": 2, "tensor": 4}, "adamw")
    specs = jax.tree.map(lambda leaf: leaf.sharding.spec, made.like)
    moments = [leaf for leaf in jax.tree.leaves(specs.opt) if "fsdp" in str(leaf)]
    assert len(moments) >= 2 * sum("fsdp" in str(leaf) for leaf in jax.tree.leaves(specs.params))
    assert dataclasses.is_dataclass(made)
