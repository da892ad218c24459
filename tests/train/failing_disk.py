"""Saves a step once for every call that changes a file, that call failing; run by test_disk.py, with failing_disk.c preloaded.

python failing_disk.py FOLDER once|after: prints how many calls there are, and how many saves left the older and the newer step.
python failing_disk.py FOLDER end K: ends the process at call K.
"""

import ctypes
import errno
import itertools
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np

from train import checkpoint

HOW = {"once": 1, "after": 2, "end": 3}
REASONS = [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS]


def state(step):
    return {"kernel": jax.random.normal(jax.random.key(step), (64, 64)), "step": jnp.int32(step)}


def saved(folder):
    """The steps 1 and 2."""
    checkpoints = checkpoint.Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, state(step), {"step": step})
    checkpoints.wait()
    return checkpoints


def newest(folder):
    """The step that the next program goes on from; whole, and none is damaged."""
    checkpoints = checkpoint.Checkpoints(folder)
    found, facts = checkpoints.load(jax.eval_shape(lambda: state(0)), damaged="older")
    assert not checkpoints.lost, checkpoints.lost
    jax.tree.map(np.testing.assert_array_equal, found, state(facts["step"]))
    checkpoints.close()
    return facts["step"]


def fail_at(call, how, folder):
    ctypes.CDLL(None).disk_arm(call, HOW[how], REASONS[call % len(REASONS)], str(folder).encode())


def every_call(folder, how):
    """(calls, saves that left step 2, saves that left step 3)"""
    saved(folder / "saved").close()
    third, fourth, left = state(3), state(4), []
    for call in itertools.count(1):
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(folder / "saved", work)
        checkpoints = checkpoint.Checkpoints(work)
        fail_at(call, how, work)
        try:
            checkpoints.save(3, third, {"step": 3})
            checkpoints.wait()
            trouble = None
        except checkpoint.Unsaved as error:
            trouble = error
        calls = ctypes.CDLL(None).disk_count()
        fail_at(0, "once", work)
        left.append(newest(work))
        assert trouble or left[-1] == 3, f"call {call}: nothing was said"
        assert not trouble or ("step 3" in str(trouble) and str(work) in str(trouble)), trouble
        checkpoints.save(4, fourth, {"step": 4})  # the same program goes on when there is room again
        checkpoints.wait()
        assert checkpoints.steps() == [left[-1], 4] and newest(work) == 4, call
        assert sorted(path.name for path in work.iterdir()) == [str(left[-1]), "4"], call
        checkpoints.close()
        if calls < call:
            return call, left.count(2), left.count(3)


if __name__ == "__main__":
    folder, how = pathlib.Path(sys.argv[1]), sys.argv[2]
    if how == "end":
        checkpoints = saved(folder)
        fail_at(int(sys.argv[3]), how, folder)
        checkpoints.save(3, state(3), {"step": 3})
        checkpoints.wait()
    else:
        print(*every_call(folder, how))
