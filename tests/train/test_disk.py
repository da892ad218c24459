"""T2 and T5: a disk that fails at any moment, is full, or may not be written."""

import contextlib
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import pytest

from train import checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    """The library under which chosen calls fail."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or not compiler:
        pytest.skip("needs Linux and a C compiler, to let chosen file calls fail")
    library = tmp_path_factory.mktemp("preload") / "failing_disk.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, HERE / "failing_disk.c", "-ldl"], check=True)
    return library


@pytest.fixture
def quick(tmp_path):
    """A folder in memory, where there is one: hundreds of saves, each with its fsyncs."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield pathlib.Path(folder)


def driver(preload, *words):
    environment = os.environ | {"LD_PRELOAD": str(preload), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", HERE / "failing_disk.py", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("how", ["once", "after"])
def test_whichever_file_call_fails_the_older_step_stays_and_the_run_can_go_on(how, preload, quick):
    """Once: one call fails. After: it and all that follow, which leaves on disk what a process that dies there leaves."""
    done = driver(preload, quick, how)
    assert done.returncode == 0 and not done.stderr, done.stderr[-3000:]
    calls, older, newer = map(int, done.stdout.split())
    assert calls > 80 and older > 60 and newer > 10


@pytest.mark.nightly
def test_a_process_that_dies_at_a_file_call_leaves_a_whole_step(preload, quick):
    calls = found = 0
    while True:
        calls += 3
        done = driver(preload, quick / str(calls), "end", calls)
        assert done.returncode in (0, 9), done.stderr[-3000:]
        sys.path.insert(0, str(HERE))
        import failing_disk

        newest = failing_disk.newest(quick / str(calls))
        assert newest == 3 or (newest == 2 and done.returncode == 9)
        found += newest == 2
        if done.returncode == 0:
            break
    assert calls > 80 and found > 20


def big(step):
    """Two megabytes that do not compress."""
    return {"a": jax.random.bits(jax.random.key(step), (2**19,))}


def surfaces(checkpoints):
    """The error that `check` raises before long."""
    begun = time.monotonic()
    with pytest.raises(checkpoint.Unsaved) as caught:
        while time.monotonic() - begun < 60:
            checkpoints.check()
            time.sleep(0.01)
    return str(caught.value)


def goes_on(folder, step, better):
    """The older step is whole, in this program and in the next; when `better` has made room a save works."""
    like = jax.eval_shape(lambda: big(0))
    better()
    checkpoints = checkpoint.Checkpoints(folder)
    found, facts = checkpoints.load(like, damaged="older")
    assert facts == {"step": step} and not checkpoints.lost
    np.testing.assert_array_equal(found["a"], big(step)["a"])
    checkpoints.save(step + 5, big(step + 5), {"step": step + 5})
    checkpoints.wait()
    assert checkpoints.load(like)[1] == {"step": step + 5}
    assert sorted(path.name for path in folder.iterdir()) == sorted([str(step), str(step + 5)])
    checkpoints.close()


def first(folder):
    checkpoints = checkpoint.Checkpoints(folder, keep=1)
    checkpoints.save(5, big(5), {"step": 5})
    checkpoints.wait()
    return checkpoints


@pytest.fixture
def mounted(tmp_path):
    """A file system of 6 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_surfaces_and_training_goes_on_when_there_is_room(mounted):
    folder = mounted / "checkpoints"
    checkpoints = first(folder)
    (mounted / "filler").write_bytes(bytes(2_500_000))
    checkpoints.save(6, big(6), {"step": 6})
    assert "step 6 could not be saved" in (words := surfaces(checkpoints)) and "step 5 is the newest that is whole" in words
    assert "No space left" in words, words
    with contextlib.suppress(checkpoint.Unsaved):
        checkpoints.close()
    goes_on(folder, 5, (mounted / "filler").unlink)


def test_a_disk_that_may_only_be_read_surfaces_at_once(mounted):
    folder = mounted / "checkpoints"
    checkpoints = first(folder)
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    with pytest.raises(checkpoint.Unsaved, match=r"step 6 could not be saved.*Read-only file system.*step 5 is the newest that is whole"):
        checkpoints.save(6, big(6), {"step": 6})
    checkpoints.close()
    assert checkpoint.Checkpoints(folder).load(jax.eval_shape(lambda: big(0)))[1] == {"step": 5}
    goes_on(folder, 5, lambda: subprocess.run(["mount", "-o", "remount,rw", mounted], check=True))


def test_a_limit_on_the_size_of_files_surfaces(tmp_path):
    checkpoints = first(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        checkpoints.save(6, big(6), {"step": 6})
        assert "step 5 is the newest that is whole" in surfaces(checkpoints)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    checkpoints.close()
    goes_on(tmp_path, 5, lambda: None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_surfaces_at_once(tmp_path):
    checkpoints = first(tmp_path)
    tmp_path.chmod(0o555)
    with pytest.raises(checkpoint.Unsaved, match=r"step 6 could not be saved.*Permission denied"):
        checkpoints.save(6, big(6), {"step": 6})
    checkpoints.close()
    goes_on(tmp_path, 5, lambda: tmp_path.chmod(0o755))


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    checkpoints = checkpoint.Checkpoints(tmp_path / "file" / "checkpoints")
    with pytest.raises(checkpoint.Unsaved, match=r"step 6 could not be saved.*Not a directory.*no step is saved yet"):
        checkpoints.save(6, big(6), {"step": 6})
    checkpoints.close()
