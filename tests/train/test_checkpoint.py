import itertools
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import checkpoint, commit, digest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MESHES = [(1, 1), (8, 1), (4, 2), (2, 4), (1, 8)]


def mesh(sizes):
    devices = jax.devices()[: sizes[0] * sizes[1]]
    return jax.make_mesh(sizes, ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2, devices=devices)


def shardings(sizes):
    over = mesh(sizes)
    return {
        "kernel": jax.sharding.NamedSharding(over, jax.P(None, "data", "fsdp")),
        "bias": jax.sharding.NamedSharding(over, jax.P("fsdp")),
        "step": jax.sharding.NamedSharding(over, jax.P()),
    }


def state(seed):
    keys = jax.random.split(jax.random.key(seed), 2)
    return {
        "kernel": jax.random.normal(keys[0], (3, 8, 16)),
        "bias": jax.random.normal(keys[1], (8,), jnp.bfloat16),
        "step": jnp.int32(seed),
    }


@pytest.fixture
def like():
    return jax.eval_shape(lambda: state(0))


@pytest.fixture
def opened(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints")
    yield checkpoints
    checkpoints.close()


def equal(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, path
        assert np.asarray(digest.raw(a)).tobytes() == np.asarray(digest.raw(b)).tobytes(), path


def test_every_kind_of_leaf_and_the_facts_come_back_as_they_were(opened):
    nan = jnp.array([jnp.nan, -jnp.nan, jnp.inf, -0.0, 1e-42], jnp.float32)
    kinds = {"int32": jnp.arange(5) - 2, "uint32": jnp.arange(4, dtype=jnp.uint32), "uint8": jnp.arange(3, dtype=jnp.uint8), "nan": nan}
    odd = {
        "bool": jnp.array([[True, False]]),
        "float16": jnp.ones((2, 3), jnp.float16),
        "none": jnp.zeros((0, 3)),
        "scalar": jnp.float32(0.1),
    }
    keys = {"key": jax.random.key(7), "keys": jax.random.split(jax.random.key(8), 3), "rbg": jax.random.key(9, impl="rbg")}
    whole = (kinds, [odd, ()], {"deep": {"er": keys}}, None)
    facts = {"tokens": 3, "seconds": 0.1 + 0.2, "nested": [1, {"b": None, "a": float("inf")}], "text": "床前明月光"}
    opened.save(5, whole, facts)
    found, given = opened.load(jax.eval_shape(lambda: whole))
    equal(found, whole)
    assert repr(given) == repr(facts) and opened.steps() == [5]


def test_buffers_may_be_donated_as_soon_as_save_returns(opened):
    """The next update overwrites what the background is still writing."""
    move = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2 + 1, tree), donate_argnums=0)
    tree = {str(number): jnp.full((257, 1031), float(number)) for number in range(8)}
    wanted = jax.tree.map(lambda leaf: np.array(leaf), tree)
    opened.save(1, tree, {})
    for _ in range(3):
        tree = move(tree)
    jax.block_until_ready(tree)
    found, _ = opened.load(jax.eval_shape(lambda: tree), 1)
    equal(found, wanted)


def test_the_newest_steps_and_the_best_are_kept(opened, like):
    for step, score in [(1, 5.0), (2, 3.0), (3, float("nan")), (4, None), (5, 4.0), (6, 3.0)]:
        opened.save(step, state(step), {}, score)
    opened.wait()
    assert opened.steps() == [5, 6] and opened.best() == 6
    opened.save(7, state(7), {}, 9.0)
    opened.save(8, state(8), {}, 8.0)
    opened.wait()
    assert opened.steps() == [6, 7, 8] and opened.best() == 6
    assert sorted(path.name for path in opened.folder.iterdir()) == ["6", "7", "8"]
    equal(opened.load(like, opened.best())[0], state(6))


def test_a_run_that_goes_back_replaces_the_steps_it_left(opened, like):
    for step in (10, 20, 30):
        opened.save(step, state(step), {})
    equal(opened.load(like, 20)[0], state(20))
    opened.save(30, state(31), {"again": True})
    assert opened.load(like)[1] == {"again": True}
    opened.save(25, state(25), {})
    opened.wait()
    assert opened.steps() == [20, 25]
    equal(opened.load(like)[0], state(25))


def test_what_a_killed_save_left_is_no_step_and_goes_at_the_next_start(opened, like):
    opened.save(1, state(1), {})
    opened.wait()
    half, gone = opened.folder / "2.saving" / "state", opened.folder / "0.deleted"
    half.mkdir(parents=True)
    gone.mkdir()
    (half / "_METADATA").write_text("{}")
    again = checkpoint.Checkpoints(opened.folder)
    assert again.steps() == [1] and half.is_dir()  # who only reads leaves a run alone that may be saving
    again.load(like, damaged="older")
    assert sorted(path.name for path in opened.folder.iterdir()) == ["1"]


def test_a_save_that_was_killed_just_before_its_name_becomes_a_step(opened, like):
    for step in (1, 2):
        opened.save(step, state(step), {"step": step})
    opened.wait()
    (opened.folder / "2").rename(opened.folder / "2.saving")
    again = checkpoint.Checkpoints(opened.folder)
    assert again.steps() == [1]
    assert again.load(like, damaged="older")[1] == {"step": 2}


def test_another_model_is_refused_and_no_step_is_set_aside(opened, like):
    opened.save(4, state(4), {})
    opened.wait()
    other = {"kernel": jax.ShapeDtypeStruct((3, 16, 8), jnp.float32), "bias": like["bias"], "more": like["step"]}
    words = r"holds another state: kernel \(\[\[3, 8, 16\], 'float32'\], wanted \[\[3, 16, 8\], 'float32'\]\), more .*, step .*settings"
    with pytest.raises(ValueError, match=words) as caught:
        opened.load(other, damaged="older")
    assert not isinstance(caught.value, checkpoint.Damaged) and opened.steps() == [4]


def test_an_empty_folder_and_a_missing_step_are_named(opened, like):
    assert opened.fresh() and opened.steps() == [] and opened.best() is None
    with pytest.raises(ValueError, match="holds no step; it holds none"):
        opened.load(like)
    opened.save(4, state(4), {})
    with pytest.raises(ValueError, match=r"holds no step 3; it holds \[4\]"):
        opened.load(like, 3)
    with pytest.raises(ValueError, match="do not survive JSON"):
        opened.save(5, state(5), {"pair": (1, 2)})
    with pytest.raises(ValueError, match="keep=0"):
        checkpoint.Checkpoints(opened.folder, keep=0)
    assert not opened.fresh()


def crossings():
    every = list(itertools.product(MESHES, MESHES))
    few = [((1, 1), (8, 1)), ((8, 1), (2, 4)), ((4, 2), (1, 8)), ((1, 8), (1, 1))]
    return [pytest.param(*pair, marks=[] if pair in few else pytest.mark.nightly) for pair in every]


@pytest.mark.parametrize("before, after", crossings())
def test_a_state_is_restored_on_another_mesh_bit_by_bit(before, after, opened, like):
    whole = state(3)
    opened.save(3, jax.device_put(whole, shardings(before)), {})
    wanted = jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), like, shardings(after))
    found, _ = opened.load(wanted)
    equal(found, whole)
    for name, where in shardings(after).items():
        assert found[name].sharding.is_equivalent_to(where, found[name].ndim), name


def text(array):
    return digest.of({"": jnp.array(array)})[""]


def test_digests_do_not_depend_on_the_mesh():
    whole = state(3)
    wanted = digest.of(whole)
    for sizes in MESHES:
        spread = jax.device_put(whole, shardings(sizes))
        assert digest.of(spread) == wanted, sizes
    # Pinned: a checkpoint of today is read by the trainer of tomorrow.
    assert text(jnp.arange(24, dtype=jnp.float32).reshape(2, 3, 4)) == "3425ffc30daf99b7"


def test_a_digest_tells_every_bit_and_every_exchange_of_two_elements():
    words = np.arange(35, dtype=np.uint32).reshape(5, 7) * 0x01010101
    wanted = text(words)
    for place, bit in itertools.product(range(35), range(32)):
        other = words.copy()
        other.flat[place] ^= np.uint32(1 << bit)
        found = text(other)
        assert found[:8] != wanted[:8] and found[8:] != wanted[8:], (place, bit)
    for first, second in itertools.combinations(range(35), 2):
        other = words.copy()
        other.flat[[first, second]] = other.flat[[second, first]]
        assert text(other) != wanted, (first, second)


def test_a_digest_is_what_its_docstring_says():
    """Against numpy, one element after the other."""

    def mix(bits):
        bits ^= bits >> 16
        bits = bits * 0x85EBCA6B % 2**32
        bits ^= bits >> 13
        bits = bits * 0xC2B2AE35 % 2**32
        return bits ^ bits >> 16

    array = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    first = second = 0
    for (a, b, c), number in np.ndenumerate(array.view(np.uint32)):
        line = a * 12 + b * 4 + c
        first += mix(mix((0x9E3779B1 + line) % 2**32) ^ int(number))
        place = 0x27D4EB2F + a * (12 + 0) + b * (4 + 0x165667B2) + c * (1 + 2 * 0x165667B2)
        second += mix((mix(place % 2**32) + int(number) * 0x2545F491) % 2**32)
    assert text(array) == f"{first % 2**32:08x}{second % 2**32:08x}"


def test_a_manifest_is_whole_or_none(tmp_path):
    commit.write(tmp_path, {"step": 3, "text": "床"})
    assert commit.read(tmp_path, 3) == {"step": 3, "text": "床"}
    assert commit.read(tmp_path, 4) is None
    whole = (tmp_path / "manifest.json").read_bytes()
    for data in (b"", b"null", b"[]", b"{}", b"\xff", whole.replace(b"3", b"4"), whole[:-2], b"[" * 10**6, b'{"sha256": 1}'):
        (tmp_path / "manifest.json").write_bytes(data)
        assert commit.read(tmp_path, 3) is None, data[:20]


@pytest.mark.parametrize("end", ["raise ValueError('planned')", "sys.exit(1)", "os._exit(1)"])
def test_a_program_that_ends_while_it_saves_finishes_the_step_or_leaves_the_older_one(end, tmp_path):
    code = f"""
import contextlib, os, pathlib, sys
import jax.numpy as jnp
from train import checkpoint
with contextlib.closing(checkpoint.Checkpoints(pathlib.Path({str(tmp_path)!r}))) as checkpoints:
    for step in (1, 2):
        checkpoints.save(step, {{"a": jnp.full((500, 70), step)}}, {{}})
    {end}
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == (3 if "raise" in end else 0), done.stderr
    again = checkpoint.Checkpoints(tmp_path)
    found, _ = again.load({"a": jax.ShapeDtypeStruct((500, 70), jnp.int32)}, damaged="older")
    assert int(found["a"][0, 0]) == again.steps()[-1] >= (1 if "os" in end else 2)
