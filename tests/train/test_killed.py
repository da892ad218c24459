"""A run that is killed ends as one that never was: final state and loss series, bit by bit (FLAXGEN_KILLS=20 for more than the default)."""

import contextlib
import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from train import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("FLAXGEN_KILLS", "5"))
A_RUN = 5  # kills before a run is left to end
STEPS = 200
SIZES = {
    "poetry": ["length=24", "batch=2", "width=12", "layers=1", "heads=3", "prompts="],
    "energy-fashion": ["batch=2", "stem=3", "filters=4-", "moves=2", "drawn=2", "buffer=20", "dev="],
}


def command(recipe, folder):
    often = ["look=1000", "every=3", "note=1", "watchdog=60"]
    return [sys.executable, "-m", "train", recipe, "tiny=true", f"out={folder}", f"steps={STEPS}", *often, *SIZES[recipe]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """whole(recipe): the folder of a run that was never killed."""

    @functools.cache
    def made(recipe):
        folder = tmp_path_factory.mktemp(recipe)
        subprocess.run(command(recipe, folder), cwd=ROOT, check=True, capture_output=True)
        return folder

    return made


def kill(recipe, folder, draw) -> bool:
    """Starts the run and kills it at a random time of its training, every other time while it saves; False where it ended before."""
    log, checkpoints = folder / "log.jsonl", folder / "checkpoints"
    before = log.stat().st_size if log.exists() else 0
    process = subprocess.Popen(command(recipe, folder), cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and (log.stat().st_size if log.exists() else 0) <= before:
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 1.0))
    if draw.random() < 0.5:
        while process.poll() is None and not any(checkpoints.glob("*.saving")):
            time.sleep(0.0005)
        time.sleep(draw.uniform(0, 0.02))
    ended = process.poll() is not None
    process.kill()
    process.wait()
    return not ended


LONG = [pytest.param("poetry", 200, marks=pytest.mark.nightly), pytest.param("energy-fashion", 10, marks=pytest.mark.nightly)]


@pytest.mark.parametrize(("recipe", "kills"), [("poetry", KILLS), *LONG])
def test_a_run_killed_at_random_times_ends_as_one_that_never_was(whole, tmp_path, recipe, kills):
    draw, count, runs = random.Random(kills), 0, 0
    while count < kills:
        folder = tmp_path / str(runs)
        runs += 1
        killed = sum(kill(recipe, folder, draw) for _ in range(min(A_RUN, kills - count)))
        subprocess.run(command(recipe, folder), cwd=ROOT, check=True, capture_output=True)
        jax.tree.map(np.testing.assert_array_equal, state(folder), state(whole(recipe)))
        assert losses(folder) == losses(whole(recipe))
        count += killed
    print(f"{count} kills in {runs} runs")


def state(folder):
    card = run.read_card(folder)
    opened = run.Run(folder, run.of_card(card), run.known(folder, card))
    with contextlib.closing(opened.checkpoints()) as saved:
        found, facts = saved.load(opened.program.like)
    assert facts[opened.kind.UNIT] == losses(folder)[-1][2] and int(found.step) == STEPS
    return found


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [
        (line["step"], line["loss"], line.get("tokens", line.get("images"))) for line in lines if "loss" in line and "event" not in line
    ]
