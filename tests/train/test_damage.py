"""T4: whatever happens to the bytes of a step, it is read as it was saved, or named and passed over."""

import os
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import checkpoint, digest


def state(step):
    keys = jax.random.split(jax.random.key(step), 3)
    tree = {"kernel": jax.random.normal(keys[0], (3, 37, 29)), "bias": jax.random.normal(keys[1], (29,), jnp.bfloat16)}
    return {"params": tree, "mu": jax.tree.map(jnp.square, tree), "step": jnp.int32(step), "key": keys[2]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder with the steps 10 and 15, their states by step)"""
    folder = tmp_path_factory.mktemp("damage") / "saved"
    states = {step: state(step) for step in (10, 15)}
    checkpoints = checkpoint.Checkpoints(folder)
    for step, each in states.items():
        checkpoints.save(step, each, {"tokens": 100 * step})
    checkpoints.close()
    return folder, {step: bits(each) for step, each in states.items()}


@pytest.fixture(scope="module")
def like():
    return jax.eval_shape(lambda: state(0))


def bits(tree):
    return [np.asarray(digest.raw(leaf)).tobytes() for leaf in jax.tree.leaves(tree)]


def copy(saved, folder):
    """Hard links to the files of both steps, by step; what is damaged is written anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder, copy_function=os.link)
    return {step: sorted(path for path in (folder / str(step)).rglob("*") if path.is_file()) for step in (10, 15)}


def rewrite(path, data):
    path.unlink()
    path.write_bytes(data)


def flip(path, _, draw):
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    rewrite(path, data)


def truncate(path, _, draw):
    rewrite(path, path.read_bytes()[: draw.randrange(path.stat().st_size)])


def delete(path, _, draw):
    path.unlink()


def swap(path, others, draw):
    other = draw.choice([each for each in others if each != path])
    first, second = path.read_bytes(), other.read_bytes()
    rewrite(path, second)
    rewrite(other, first)


def zero(path, _, draw):
    data = bytearray(path.read_bytes())
    begin = draw.randrange(len(data)) // 512 * 512
    data[begin : begin + 512] = bytes(len(data[begin : begin + 512]))
    rewrite(path, data)


def garbage(path, _, draw):
    rewrite(path, draw.randbytes(path.stat().st_size))


DAMAGES = [flip, flip, flip, truncate, delete, swap, zero, garbage]


def hurt(files, draw):
    """Damages a file of step 15, drawn by its size or, every other time, by its name; the words of it."""
    path = draw.choices(files[15], [each.stat().st_size for each in files[15]])[0] if draw.random() < 0.5 else draw.choice(files[15])
    damage = draw.choice(DAMAGES)
    damage(path, files[15] + files[10], draw)
    return f"{damage.__name__} of {path.name}"


def survive(saved, like, folder, cases, capsys):
    """How many cases were read as they were saved, fell back to step 10, and were refused, both steps being hurt by a swap."""
    whole, wanted = saved
    counts = {"equal": 0, "older": 0, "refused": 0}
    for case in range(cases):
        draw = random.Random(case)
        words = f"case {case}: {hurt(copy(whole, folder), draw)}"
        checkpoints = checkpoint.Checkpoints(folder)
        try:
            found, facts = checkpoints.load(like, damaged="older")
        except checkpoint.Damaged as error:
            assert "swap" in words and f"{folder / '15'} is damaged" in str(error) and f"{folder / '10'} is damaged" in str(error), words
            counts["refused"] += 1
            continue
        step, said = facts["tokens"] // 100, capsys.readouterr().err
        assert bits(found) == wanted[step], words
        assert [number for number, _ in checkpoints.lost] == ([] if step == 15 else [15]), words
        if step == 10:
            assert f"{folder / '15'} is damaged" in said and "going on from step 10: 5 updates are lost, and made again" in said, words
            assert sorted(path.name for path in folder.iterdir()) == ["10", "15.corrupt"], words
        counts["equal" if step == 15 else "older"] += 1
        checkpoints.close()
    return counts


def test_200_kinds_of_damage_are_named_or_change_nothing(saved, like, tmp_path, capsys):
    counts = survive(saved, like, tmp_path / "copy", 200, capsys)
    assert counts["older"] > 100 and counts["equal"] > 10, counts


@pytest.mark.nightly
def test_10_000_kinds_of_damage_are_named_or_change_nothing(saved, like, tmp_path, capsys):
    counts = survive(saved, like, tmp_path / "copy", 10_000, capsys)
    with capsys.disabled():
        print(counts)
    assert counts["older"] > 5_000


def test_damage_is_refused_by_name_unless_an_older_step_will_do(saved, like, tmp_path):
    files = copy(saved[0], tmp_path / "copy")[15]
    kernel = max(files, key=lambda path: path.stat().st_size)
    flip(kernel, None, random.Random(0))
    folder = tmp_path / "copy"
    with pytest.raises(checkpoint.Damaged, match=r"15 is damaged.*(kernel|bias|d/).*; remove that folder to go on from step 10"):
        checkpoint.Checkpoints(folder).load(like)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "15"]
    truncate(kernel, None, random.Random(0))
    with pytest.raises(checkpoint.Damaged, match=rf"{kernel.name} \(\d+ bytes, wanted \d+ bytes\)"):
        checkpoint.Checkpoints(folder).load(like)
    rewrite(folder / "15" / "manifest.json", b"[" * 100_000)
    checkpoints = checkpoint.Checkpoints(folder)
    assert checkpoints.steps() == [10] and not checkpoints.fresh()
    with pytest.raises(checkpoint.Damaged, match=r"15 is damaged: manifest\.json is missing, not whole, or another step's"):
        checkpoints.load(like)


def test_a_file_that_the_disk_cannot_read_any_more_is_named(saved, like, tmp_path, monkeypatch):
    """As the kernel says it of a bad sector; a file that is absent by the time it is read gives Orbax the same trouble."""
    files = copy(saved[0], tmp_path / "copy")[15]
    metadata = next(path for path in files if path.name == "_METADATA")
    read_bytes = type(metadata).read_bytes

    def bad(path):
        if path == metadata:
            raise OSError(5, "Input/output error", str(path))
        return read_bytes(path)

    monkeypatch.setattr(type(metadata), "read_bytes", bad)
    rewrite(metadata, b"?" * metadata.stat().st_size)
    with pytest.raises(checkpoint.Damaged, match="15 is damaged in state/_METADATA: "):
        checkpoint.Checkpoints(tmp_path / "copy").load(like)


def test_steps_that_take_each_others_names_are_found_out(saved, like, tmp_path):
    folder = tmp_path / "copy"
    copy(saved[0], folder)
    (folder / "15").rename(folder / "x")
    (folder / "10").rename(folder / "15")
    (folder / "x").rename(folder / "10")
    assert checkpoint.Checkpoints(folder).steps() == []
    with pytest.raises(checkpoint.Damaged, match=r"holds no good step.*another step's.*another step's"):
        checkpoint.Checkpoints(folder).load(like, damaged="older")
    assert not checkpoint.Checkpoints(folder).fresh()


def test_arrays_of_another_step_under_a_whole_manifest_are_named_by_leaf(saved, like, tmp_path):
    folder = tmp_path / "copy"
    copy(saved[0], folder)
    shutil.rmtree(folder / "15" / "state")
    shutil.copytree(folder / "10" / "state", folder / "15" / "state")
    manifest = checkpoint.commit.read(folder / "15", 15)
    older = checkpoint.commit.read(folder / "10", 10)
    (folder / "15" / "manifest.json").unlink()
    checkpoint.commit.write(folder / "15", manifest | {"files": older["files"]})
    with pytest.raises(checkpoint.Damaged, match=r"15 is damaged at key, mu/bias, mu/kernel, .*step \(digest differs\)"):
        checkpoint.Checkpoints(folder).load(like)
