import json
import pathlib
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest

from train import trouble

ROOT = pathlib.Path(__file__).parents[2]
HEAD = """
import ctypes, pathlib, queue, sys, threading, time
from train import trouble
guard = trouble.Watchdog({seconds}, pathlib.Path(sys.argv[1]))
"""


def guarded(tmp_path, body, seconds=0.5):
    """(exit code, stderr, stacks in the file, seconds it took) of a program that the watchdog guards."""
    script = HEAD.format(seconds=seconds) + body
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "stacks.txt"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    file = tmp_path / "stacks.txt"
    return done.returncode, done.stderr, file.read_text() if file.exists() else "", time.monotonic() - start


def test_a_program_that_sleeps_is_ended_with_all_its_stacks_on_stderr_and_in_the_file(tmp_path):
    body = "def stuck():\n    time.sleep(60)\nthreading.Thread(target=stuck, daemon=True).start()\nwith guard:\n    time.sleep(60)\n"
    code, stderr, stacks, took = guarded(tmp_path, body)
    assert code == 1 and took < 30
    for text in (stderr, stacks):
        assert "no update has finished for 0.5 s" in text
        assert "in stuck" in text and "in <module>" in text


def test_a_c_call_that_keeps_the_interpreter_is_ended_too(tmp_path):
    code, stderr, _, took = guarded(tmp_path, "with guard:\n    ctypes.PyDLL(None).sleep(60)\n")
    assert code == 1 and took < 30
    assert "Timeout" in stderr and "in <module>" in stderr


def test_a_thread_that_dies_and_is_waited_for_ends_the_program(tmp_path):
    body = "def feed(full):\n    raise OSError('disk is gone')\nfull = queue.Queue()\n"
    body += "with guard:\n    threading.Thread(target=feed, args=(full,)).start()\n    full.get()\n"
    code, stderr, stacks, _ = guarded(tmp_path, body)
    assert code == 1
    assert "disk is gone" in stderr and "no update has finished" in stacks


def test_beats_keep_a_program_alive_and_the_end_of_the_guard_disarms_it(tmp_path):
    body = "with guard:\n    for _ in range(20):\n        time.sleep(0.1)\n        guard.beat()\ntime.sleep(2.7)\n"
    assert guarded(tmp_path, body, seconds=1.5)[:3] == (0, "", "")


def test_a_file_that_cannot_be_written_does_not_keep_the_program_alive(tmp_path):
    (tmp_path / "stacks.txt").mkdir()
    script = HEAD.format(seconds=0.2) + "with guard:\n    time.sleep(60)\n"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "stacks.txt"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1


@pytest.mark.parametrize(
    "words",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.\nBufferAssignment OOM Debugging.",
        "RESOURCE_EXHAUSTED: Failed to allocate request for 6.27GiB (6727663616B) on device ordinal 0",
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 16.5G of 15.48G hbm.",
        "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY",
    ],
)
def test_advice_is_given_for_every_way_of_saying_that_memory_ran_out(words):
    advice = trouble.memory_advice(RuntimeError(words))
    assert words.split("\n")[0] in advice and "remat=full" in advice


def test_advice_names_what_the_settings_leave_in_order():
    error = trouble.memory_advice(MemoryError())
    places = [error.index(name) for name in ("accumulate=", "remat=", "chunks=", "dtype=", "optimizer=", "mesh=", "lora=")]
    assert places == sorted(places)
    rest = trouble.memory_advice(MemoryError(), {"accumulate": 4, "remat": "full", "chunks": 1, "dtype": "bfloat16", "mesh": ""})
    assert "accumulate=" not in rest and "remat=" not in rest and "chunks=8" in rest and "mesh=fsdp" in rest
    assert "lora=" not in rest  # no setting of this run


def test_a_real_failure_to_allocate_is_known_and_another_error_is_not():
    with pytest.raises(RuntimeError) as caught:
        jnp.ones((1 << 50,)).block_until_ready()
    assert "Out of memory" in trouble.memory_advice(caught.value)
    assert trouble.memory_advice(RuntimeError("INVALID_ARGUMENT: shapes differ")) is None
    assert trouble.memory_advice(json.JSONDecodeError("wrong", "x", 0)) is None
