import math

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from flaxgen.models import config, presets, transformer
from flaxgen.tasks import language
from train import flops

ROWS, LENGTH = 3, 20


def sizes(wiring="pre", dropout=0.0, layers=5):
    return config.Config(37, LENGTH, 12, layers, 3, 40, wiring, "gelu", dropout=dropout)


def shapes(task):
    """Parameters, key and batch of a task, as shapes."""
    number = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)
    batch = {"token_BT": number, "target_BT": number, "weight_BT": jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.float32)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(task.init, key), key, batch


def products(jaxpr) -> int:
    """FLOPs of all matrix products of a jaxpr, those in loops as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
        inner = [leaf for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr) if is_jaxpr(leaf)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(products(getattr(one, "jaxpr", one)) for one in inner)
    return total


def is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def counted(task) -> float:
    """FLOPs a token in the gradient of the task's loss, counted in what jax would compile."""
    params, key, batch = shapes(task)
    gradient = jax.grad(lambda params, key, batch: task.loss(params, (), key, batch)[0])
    made = jax.make_jaxpr(gradient)(params, key, batch)
    return products(made.jaxpr) / ROWS / LENGTH


@pytest.mark.parametrize("wiring", ["pre", "between"])
@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_flops_a_token_are_those_of_the_products_in_the_gradient(wiring, loop):
    c = sizes(wiring)
    assert counted(language.Language(transformer.Transformer(c), loop=loop)) == flops.a_token(c, LENGTH)


@pytest.mark.parametrize("wiring", ["pre", "between"])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("chunks", [1, 4])
def test_flops_with_recomputation_are_those_of_the_products_in_the_gradient(wiring, remat, chunks):
    c = sizes(wiring)
    task = language.Language(transformer.Transformer(c), loop="scan", remat=remat, chunks=chunks)
    assert counted(task) == flops.executed(c, LENGTH, remat, chunks=chunks)


def kept(task) -> int:
    """Bytes that jax keeps of all layers between the forward and the backward pass of a scanned task, numbers of a row or head apart."""
    params, key, batch = shapes(task)
    pulled = jax.eval_shape(lambda params, key, batch: jax.vjp(lambda p: task.loss(p, (), key, batch)[0], params)[1], params, key, batch)
    layered = [leaf for leaf in jax.tree.leaves(pulled) if leaf.shape[:2] == (task.model.config.layers, ROWS)]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in layered if leaf.shape[-1] > 1)


@pytest.mark.parametrize("wiring", ["pre", "between"])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_bytes_of_activations_are_those_that_jax_keeps(wiring, remat, dtype, dropout):
    c = sizes(wiring, dropout)
    task = language.Language(transformer.Transformer(c), loop="scan", remat=remat, dtype=dtype)
    counted = flops.activations(c, rows=ROWS, length=LENGTH, dtype=dtype, remat=remat)["kept by the layers"]
    assert kept(task) == counted


@pytest.mark.parametrize(("remat", "vocab", "chunks"), [("none", 300, 1), ("full", 300, 1), ("full", 9001, 1), ("full", 9001, 9)])
def test_the_estimate_of_memory_is_near_what_the_compiler_takes(remat, vocab, chunks):
    c = config.Config(vocab, 96, 96, 4, 3, 384, "pre", "gelu", dropout=0.0)
    task = language.Language(transformer.Transformer(c), loop="scan", remat=remat, chunks=chunks)
    number = jax.ShapeDtypeStruct((6, 96), jnp.int32)
    batch = {"token_BT": number, "target_BT": number, "weight_BT": jax.ShapeDtypeStruct((6, 96), jnp.float32)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(task.init, key)

    def update(params, key, batch):
        grads = jax.grad(lambda params: task.loss(params, (), key, batch)[0])(params)
        return jax.tree.map(lambda a, b: a - b / optax.tree.norm(grads), params, grads)

    compiled = jax.jit(update, donate_argnums=0).lower(params, key, batch).compile().memory_analysis()
    counted = flops.memory(c, {"masters": (params, whole(params))}, {}, batch=6, length=96, remat=remat, chunks=chunks)
    assert abs(counted["parameters"] / compiled.argument_size_in_bytes - 1) < 0.01
    assert abs((counted["total"] - counted["parameters"]) / compiled.temp_size_in_bytes - 1) < 0.15


def whole(tree):
    return jax.tree.map(lambda _: P(), tree)


def test_bytes_on_a_device_follow_the_layout_exactly():
    tree = {"a": jax.ShapeDtypeStruct((6, 8), jnp.float32), "b": jax.ShapeDtypeStruct((4,), jnp.bfloat16)}
    specs = {"a": P("tensor", ("data", "fsdp")), "b": P()}
    assert flops.per_device(tree, specs, {"data": 2, "fsdp": 2, "tensor": 3}) == 2 * 2 * 4 + 8
    assert flops.per_device(tree, specs, {"data": 2}) == 6 * 4 * 4 + 8
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    placed = jax.device_put(jnp.zeros((6, 8)), jax.sharding.NamedSharding(mesh, specs["a"]))
    here = placed.addressable_shards[0].data.nbytes
    assert flops.per_device({"a": placed}, {"a": specs["a"]}, dict(mesh.shape)) == here


def test_a_mesh_shares_out_what_it_should():
    c = presets.PRESETS["gpt2-ml-mega"]
    task = language.Language(transformer.Transformer(c), loop="scan")
    params = jax.eval_shape(task.init, jax.eval_shape(lambda: jax.random.key(0)))
    split = jax.tree.map(lambda leaf: P(*[None] * (len(leaf.shape) - 1), "fsdp"), params)
    given = {"batch": 512, "length": 1024, "dtype": "bfloat16", "remat": "full", "chunks": 8}
    one = flops.memory(c, {"masters": (params, whole(params))}, {"data": 32}, **given)
    cut = flops.memory(c, {"masters": (params, split)}, {"data": 4, "fsdp": 8}, **given)
    assert one["parameters"] == 4 * 1_373_809_152 and 8 * cut["parameters"] == one["parameters"]
    assert one["kept by the layers"] == cut["kept by the layers"] == 16 * 1024 * 48 * 1536 * 2
    assert (
        flops.memory(c, {"masters": (params, split)}, {"fsdp": 32}, **given, accumulate=4)["kept by the layers"] == 4 * 1024 * 48 * 1536 * 2
    )


def test_the_published_sizes_cost_what_is_published():
    mega = presets.PRESETS["gpt2-ml-mega"]
    assert flops.parameters(mega) == 1_373_809_152
    assert round(flops.a_token(mega, 1024) / 1e9, 2) == 9.13
    kernels = mega.layers * 12 * mega.width**2
    assert flops.a_token(mega, 1024, frozen=kernels) == flops.a_token(mega, 1024) - 2 * kernels
    assert "9.134e+09 with L=48 D=1536 F=6144 T=1024 V=8021" in flops.formula(mega, 1024)


@pytest.mark.parametrize(
    ("kind", "dtype", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "float32", 19.5e12),
        ("Tesla V100-SXM2-16GB", "bfloat16", 125e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2e12),
        ("TPU v4", "bfloat16", 275e12),
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v5p", "bfloat16", 459e12),
        ("TPU v5", "bfloat16", 459e12),
        ("TPU v6 lite", "bfloat16", 918e12),
        ("cpu", "float32", None),
    ],
)
def test_the_peak_of_a_device_is_found_by_the_name_that_jax_gives(kind, dtype, found):
    assert flops.peak(kind, dtype) == found
