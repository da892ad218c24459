import json
import pathlib
import random
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from train import run

KILLS = 10
ROOT = pathlib.Path(__file__).resolve().parents[2]


def command(folder, *more):
    sizes = ["length=24", "batch=2", "width=12", "layers=1", "heads=3", "look=1000", "prompts=", "every=3"]
    return [sys.executable, "-m", "train", "poetry", "tiny=true", f"out={folder}", "steps=240", *sizes, *more]


@pytest.mark.nightly
def test_a_run_killed_at_random_times_ends_as_one_that_never_was(tmp_path):
    subprocess.run(command(tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    draw, kills = random.Random(0), 0
    while True:
        begun = time.monotonic()
        process = subprocess.Popen(command(tmp_path / "killed"), cwd=ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "killed" / "log.jsonl").exists():
            time.sleep(0.05)
        try:
            process.wait(timeout=time.monotonic() - begun + draw.uniform(0, 4) if kills < KILLS else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        break
    assert kills > 2
    (_, whole, facts), (_, killed, facts_too) = run.load(tmp_path / "whole"), run.load(tmp_path / "killed")
    assert facts["step"] == facts_too["step"] == 240 and facts["tokens"] == facts_too["tokens"]
    jax.tree.map(np.testing.assert_array_equal, whole, killed)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"], line["tokens"]) for line in lines if "loss" in line]
