"""Rules to layouts: what is split how, what is refused, and the same numbers on every mesh."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flaxgen import sharding, weights
from flaxgen.models import config as sizes
from flaxgen.models import layers, presets, transformer
from flaxgen.tasks import language

RULES = ((r"block(_\d+)?/up/kernel", P("tensor", "fsdp")), (r".*/bias", P()), (r"table", P(("data", "fsdp"), None)))


def shape(*axes):
    return jax.ShapeDtypeStruct(axes, jnp.float32)


def task(loop="scan", **changes):
    config = sizes.Config(29, 8, 16, 2, 4, 24, wiring="between", activation="gelu", dropout=0.2)
    return language.Language(transformer.Transformer(config), loop, **changes)


def test_the_first_rule_that_takes_a_whole_path_wins_and_stacked_leaves_keep_their_layers_whole():
    tree = {
        "block_07": {"up": {"kernel": shape(8, 6), "bias": shape(8)}},
        "block": {"up": {"kernel": shape(3, 8, 6)}},
        "table": shape(8, 5),
    }
    found = sharding.specs({"params": tree}, RULES, {"data": 2, "fsdp": 2, "tensor": 2})
    assert found == {
        "params": {
            "block_07": {"up": {"kernel": P("tensor", "fsdp"), "bias": P()}},
            "block": {"up": {"kernel": P(None, "tensor", "fsdp")}},
            "table": P(("data", "fsdp"), None),
        }
    }
    assert sharding.specs({"table": shape(8, 5)}, RULES, {"fsdp": 8}) == {"table": P("fsdp", None)}
    assert sharding.specs({"table": shape(8, 5)}, RULES, {"tensor": 8}) == {"table": P(None, None)}


def test_every_problem_is_told_at_once_with_a_mesh_that_fits():
    tree = {"params": {"block_00": {"up": {"kernel": shape(6, 6), "odd": shape(4)}}, "table": shape(8, 5), "other": shape()}}
    limits = (sharding.Limit("heads", 3, ("tensor",)), sharding.Limit("rows of a batch", 12, ("data", "fsdp")))
    with pytest.raises(ValueError) as caught:
        sharding.specs(tree, RULES, {"data": 1, "fsdp": 4, "tensor": 2}, limits=limits)
    assert str(caught.value).split("\n") == [
        "the mesh data=1,fsdp=4,tensor=2 does not fit:",
        "  block_00/up/odd: no rule takes it",
        "  other: no rule takes it",
        "  heads: 3 does not divide by tensor=2",
        "  block_00/up/kernel axis 1: 6 does not divide by fsdp=4",
        "no mesh of 8 devices over data, fsdp, tensor fits; use another number of devices",
    ]
    with pytest.raises(ValueError, match=re.escape("try mesh=data=2,fsdp=2,tensor=2")):
        sharding.specs(tree, RULES, {"data": 1, "fsdp": 4, "tensor": 2})
    with pytest.raises(ValueError, match=r"block_00/up/kernel: .* for the shape \(6,\)"):
        sharding.specs({"block_00": {"up": {"kernel": shape(6)}}}, RULES, {"fsdp": 1})


def test_an_error_lists_twenty_problems_and_counts_the_rest():
    with pytest.raises(ValueError, match="and 13 more"):
        sharding.specs([shape()] * 33, (), {"data": 8})


@pytest.mark.parametrize(
    ("name", "asked", "advice"),
    [
        ("gpt2-xl", {"data": 1, "fsdp": 4, "tensor": 2}, "data=1,fsdp=8,tensor=1"),
        ("gpt2", {"data": 1, "fsdp": 4, "tensor": 8}, "data=1,fsdp=8,tensor=4"),
        ("gpt2-ml-mega", {"data": 1, "fsdp": 1, "tensor": 16}, "data=1,fsdp=2,tensor=8"),
    ],
)
def test_heads_that_do_not_divide_are_refused_with_the_nearest_mesh(name, asked, advice):
    config = presets.PRESETS[name]
    tree = weights.nest({path: shape(*axes) for path, axes in sizes.shapes(config).items()})
    with pytest.raises(ValueError, match=f"heads: {config.heads} does not divide by tensor={asked['tensor']}\ntry mesh={advice}$"):
        sharding.specs(tree, transformer.SHARDING, asked, limits=transformer.limits(config))
    fitting = {axis: int(size) for axis, size in (pair.split("=") for pair in advice.split(","))}
    sharding.specs(tree, transformer.SHARDING, fitting, limits=transformer.limits(config))


@pytest.mark.parametrize("loop", ["scan", "unroll"])
@pytest.mark.parametrize("wiring", ["pre", "between"])
def test_the_transformers_rules_take_every_leaf_and_split_every_kernel_both_ways(loop, wiring):
    model = transformer.Transformer(sizes.Config(29, 8, 16, 2, 4, 24, wiring, "gelu"))
    shapes = jax.eval_shape(lambda key: layers.init(model, key, loop), jax.random.key(0))
    found = weights.flatten(sharding.specs(shapes, transformer.SHARDING, {"data": 1, "fsdp": 4, "tensor": 2}))
    kernels = {name: spec for name, spec in found.items() if name.endswith("kernel")}
    assert all(sorted(part for part in spec if part) == ["fsdp", "tensor"] for spec in kernels.values())
    assert all(tuple(spec) == (None, "fsdp") for name, spec in found.items() if name.endswith("embedding"))
    before = (None,) if loop == "scan" else ()
    block = "block" if loop == "scan" else "block_01"
    assert tuple(found[f"{block}/attend/k/kernel"]) == tuple(found[f"{block}/mlp/up/kernel"]) == (*before, "tensor", "fsdp")
    assert tuple(found[f"{block}/attend/o/kernel"]) == tuple(found[f"{block}/mlp/down/kernel"]) == (*before, "fsdp", "tensor")
    assert tuple(found[f"{block}/attend/v/bias"]) == (*before, "tensor") and tuple(found[f"{block}/mlp/down/bias"]) == before


def test_low_rank_leaves_are_split_where_their_kernel_is_and_never_along_the_rank():
    tree = {part: {"kernel": shape(16, 16), "kernel_a": shape(3, 16), "kernel_b": shape(16, 3)} for part in "qo"}
    found = sharding.specs({"block_00": {"attend": tree}}, transformer.SHARDING, {"fsdp": 2, "tensor": 4})["block_00"]["attend"]
    assert found["q"] == {"kernel": P("tensor", "fsdp"), "kernel_a": P(None, "fsdp"), "kernel_b": P("tensor", None)}
    assert found["o"] == {"kernel": P("fsdp", "tensor"), "kernel_a": P(None, "tensor"), "kernel_b": P("fsdp", None)}


@pytest.mark.parametrize("optimizer", [optax.adamw(1e-3), optax.adafactor(1e-3, min_dim_size_to_factor=8), optax.lion(1e-3)])
def test_optimizer_state_lies_where_its_parameters_lie(optimizer):
    made = task("unroll")
    shapes = jax.eval_shape(made.init, jax.random.key(0))
    specs = sharding.specs(shapes, transformer.SHARDING, {"data": 1, "fsdp": 2, "tensor": 4})
    state = jax.eval_shape(optimizer.init, shapes)
    found = sharding.follow(state, shapes, specs)
    flat = dict(jax.tree_util.tree_flatten_with_path(found, is_leaf=lambda leaf: isinstance(leaf, P))[0])
    whole = {leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim == 2}
    assert {(24, 16), (16, 16)} <= whole or isinstance(optimizer.init(jnp.zeros((8, 9)))[0], optax.FactoredState)
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name, spec = jax.tree_util.keystr(path), tuple(flat[path])
        if "'up'" in name and "'kernel'" in name and len(leaf.shape) == 2:
            assert spec == ("tensor", "fsdp")
        elif "'up'" in name and "'kernel'" in name and leaf.shape in ((24,), (16,)):
            assert spec == {24: ("tensor",), 16: ("fsdp",)}[leaf.shape[0]]
        elif leaf.shape in ((), (1,)):
            assert spec == ()


MESHES = [(8, 1, 1), (2, 2, 2), (1, 4, 2), (1, 2, 4)]


def placed(mesh, specs):
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda leaf: isinstance(leaf, P))


@pytest.mark.parametrize("loop", ["scan", "unroll"])
@pytest.mark.parametrize("mesh", MESHES)
def test_the_first_parameters_are_the_same_on_every_mesh_and_never_whole(loop, mesh):
    made = task(loop)
    wanted = jax.jit(made.init)(jax.random.key(3))
    mesh = jax.make_mesh(mesh, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    specs = sharding.specs(jax.eval_shape(made.init, jax.random.key(3)), transformer.SHARDING, dict(mesh.shape))
    params = jax.jit(made.init, out_shardings=placed(mesh, specs))(jax.random.key(3))
    # The random bits are the same; how the compiler of jax 0.12 rounds a quantile depends on the shape it works on.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-6), params, wanted)
    kernel = weights.flatten(params)["block/mlp/up/kernel" if loop == "scan" else "block_00/mlp/up/kernel"]
    assert kernel.addressable_shards[0].data.size * mesh.shape["fsdp"] * mesh.shape["tensor"] == kernel.size


@pytest.mark.parametrize(
    ("mesh", "changes"),
    [
        ((8, 1, 1), {"loop": "scan", "remat": "dots", "chunks": 3}),
        ((2, 2, 2), {"loop": "scan", "remat": "full", "chunks": 1}),
        ((1, 4, 2), {"loop": "unroll", "remat": "full", "chunks": 2}),
        ((1, 2, 4), {"loop": "scan", "remat": "none", "chunks": 1}),
    ],
)
def test_loss_and_gradients_are_those_of_one_device_on_every_mesh(mesh, changes):
    noise = np.random.default_rng(0).integers(0, 29, (8, 9)).astype(np.int32)
    batch = {"token_BT": noise[:, :-1], "target_BT": noise[:, 1:], "weight_BT": np.ones((8, 8), np.float32)}
    one, many = task(changes["loop"]), task(spread=("data", "fsdp"), **changes)
    params = jax.jit(one.init)(jax.random.key(3))
    key = jax.random.key(4)
    wanted, wanted_gradients = jax.jit(jax.value_and_grad(lambda params: one.loss(params, (), key, batch)[0]))(params)
    mesh = jax.make_mesh(mesh, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    lie = placed(mesh, sharding.specs(params, transformer.SHARDING, dict(mesh.shape)))
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(lambda params, batch: many.loss(params, (), key, batch)[0]), out_shardings=(None, lie))
        loss, gradients = step(jax.device_put(params, lie), jax.device_put(batch, rows))
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-6), gradients, wanted_gradients)
