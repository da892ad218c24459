import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.models import config, transformer
from flaxgen.tasks import language
from train import partition

SIZES = config.Config(11, 7, 6, 5, 3, 8, wiring="between", activation="gelu", dropout=0.0)


def tree(loop="scan"):
    task = language.Language(transformer.Transformer(SIZES), loop)
    return jax.jit(task.init)(jax.random.key(0))


def paths(params):
    return {partition.name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


SOME = [r"embed/", r"block_0[0-2]/", r"block_0[13]/attend/[qv]/kernel", r"kernel$", r"^(?!.*norm)", r"embed|block_00/mlp|block_04/.*bias"]


@pytest.mark.parametrize("loop", ["scan", "unroll"])
@pytest.mark.parametrize("freeze", SOME)
def test_merge_is_the_inverse_of_split(loop, freeze):
    params = tree(loop)
    whole = jax.jit(partition.merge, static_argnums=2)(*partition.split(params, freeze), freeze)
    jax.tree.map(np.testing.assert_array_equal, whole, params)


@pytest.mark.parametrize("freeze", SOME)
def test_stacked_and_unrolled_trees_freeze_the_same_numbers(freeze):
    def sizes(loop):
        return [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in partition.split(tree(loop), freeze)]

    assert sizes("scan") == sizes("unroll")


def test_a_stacked_leaf_is_cut_along_its_layers_and_keeps_its_path():
    params = tree()
    trained, frozen = map(paths, partition.split(params, r"block_0[02]/attend/q/kernel"))
    whole = paths(params)["block/attend/q/kernel"]
    np.testing.assert_array_equal(trained["block/attend/q/kernel"], whole[np.array([1, 3, 4])])
    assert list(frozen) == ["block/attend/q/kernel"]
    np.testing.assert_array_equal(frozen["block/attend/q/kernel"], whole[np.array([0, 2])])


def test_the_empty_regex_freezes_nothing():
    params = tree()
    trained, frozen = partition.split(params, "")
    assert trained is params and frozen == {} and partition.merge(trained, frozen, "") is params


def test_the_gradient_of_the_trained_tree_is_that_part_of_the_whole_gradient():
    params, freeze = tree(), r"embed/position|block_0[0-2]/|block_04/mlp/up/kernel"
    task = language.Language(transformer.Transformer(SIZES), "scan")
    row_BT = np.random.default_rng(0).integers(1, 11, (2, 6)).astype(np.int32)
    batch = {"token_BT": row_BT[:, :-1], "target_BT": row_BT[:, 1:], "weight_BT": np.ones((2, 5), np.float32)}
    loss = lambda params: task.loss(params, (), jax.random.key(1), batch)[0]  # noqa: E731
    trained, frozen = partition.split(params, freeze)
    grads = jax.jit(jax.grad(lambda trained: loss(partition.merge(trained, frozen, freeze))))(trained)
    wanted, _ = partition.split(jax.jit(jax.grad(loss))(params), freeze)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), grads, wanted)


def test_shapes_are_split_without_arrays():
    params = jax.eval_shape(tree)
    trained, frozen = jax.eval_shape(lambda params: partition.split(params, "block_00/"), params)
    assert paths(trained)["block/mlp/up/kernel"].shape == (4, 8, 6) and paths(frozen)["block/mlp/up/kernel"].shape == (1, 8, 6)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
@pytest.mark.parametrize(("freeze", "words"), [("nonsense", "freezes nothing"), (".", "freezes every parameter")])
def test_a_regex_that_takes_nothing_or_everything_is_refused_with_some_paths(loop, freeze, words):
    with pytest.raises(ValueError, match=rf"{words}.*block_00/attend/k/bias.*\(.* in all\)"):
        partition.split(tree(loop), freeze)


def test_what_is_no_regex_is_refused():
    with pytest.raises(ValueError, match="is no regular expression"):
        partition.split(tree(), "block_(")


def test_merging_by_another_regex_is_refused():
    trained, frozen = partition.split(tree(), "block_00/")
    with pytest.raises(ValueError, match="merge by the regex of split"):
        partition.merge(trained, frozen, "block_0[01]/")


def test_a_frozen_leaf_of_lower_precision_comes_back_as_the_trained_ones():
    params = tree()
    trained, frozen = partition.split(params, "block_00/")
    whole = partition.merge(trained, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), frozen), "block_00/")
    assert {leaf.dtype for leaf in jax.tree.leaves(whole)} == {jnp.dtype("float32")}
