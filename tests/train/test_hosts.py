"""Several processes as one run: the same losses, a signal to one stops all, and a resume with another number of them."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = ["length=24", "batch=8", "width=24", "layers=2", "heads=2", "loop=scan", "look=4", "prompts=床前", "every=4", "note=1", "steps=8"]
SIZES += ["dev=train/tiny.jsonl", "mesh=data=2,fsdp=2", "optimizer=sgd", "rate=0.1"]


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(folder, count, *more, devices=4):
    """`count` processes with devices / count simulated devices each."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices // count), "JAX_PLATFORMS": "cpu"}
    settings = dict(word.split("=", 1) for word in (*SIZES, *more))
    words = [sys.executable, "-m", "train", "poetry", "tiny=true", f"out={folder}", *map("=".join, settings.items())]
    where = f"coordinator=127.0.0.1:{port()}"
    joins = [[where, f"processes={count}", f"process={number}"] if count > 1 else [] for number in range(count)]
    return [subprocess.Popen([*words, *join], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for join in joins]


def finish(processes) -> list[int]:
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode in (0, 143) for process in processes), said
    return [process.returncode for process in processes]


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line and "event" not in line]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert finish(start(folder, 1)) == [0]
    return folder


def same(found, wanted):
    assert [step for step, _ in found] == [step for step, _ in wanted]
    np.testing.assert_allclose([loss for _, loss in found], [loss for _, loss in wanted], rtol=1e-6)


def test_two_processes_have_the_losses_of_one_and_go_on_as_one(one, tmp_path):
    assert finish(start(tmp_path, 2)) == [0, 0]
    same(losses(tmp_path), losses(one))
    assert (tmp_path / "samples.txt").read_text().count("step") == 2
    assert finish(start(tmp_path, 1, "steps=12")) == [0] and finish(start(one, 1, "steps=12")) == [0]
    same(losses(tmp_path), losses(one))


def test_a_signal_to_one_process_saves_and_ends_all_of_them(tmp_path):
    processes = start(tmp_path, 2, "steps=4000", "every=3000", "look=3000")
    until = time.monotonic() + 120
    while not (tmp_path / "log.jsonl").exists() or len(losses(tmp_path)) < 3:
        assert time.monotonic() < until and all(process.poll() is None for process in processes)
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    assert finish(processes) == [143, 143]
    done = losses(tmp_path)[-1][0]
    assert 3 <= done < 4000
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()] == [str(done)]
