import contextlib
import json
import math
import shutil

import jax
import numpy as np
import pytest

import flaxgen
from flaxgen.tasks import likelihood
from train import __main__ as command
from train import flow, image_recipes, recipes, run

SMALL = {
    "pad": "1",
    "flows": "1",
    "hidden": "3",
    "blocks": "0",
    "coupling": "affine",
    "mixing": "standard",
    "batch": "4",
    "shown": "3",
    "first": "8",
}
BRIEF = {"note": "1", "every": "3", "look": "3", "warmup": "1", "cooldown": "2"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    image = draw.integers(0, 256, (17, 4, 4)).astype(np.uint8)
    np.savez(folder / "a.npz", x_train=image[:12], x_test=image[12:])
    return {"data": str(folder / "a.npz"), "dev": str(folder / "a.npz")}


def train(folder, data, recipe="flow-fashion", **given):
    given = {**SMALL, **BRIEF, **data, **{key: str(value) for key, value in given.items()}}
    return run.train(recipe, recipes.RECIPES[recipe]("tiny"), given, folder)


def lines(folder):
    return list(map(json.loads, (folder / "log.jsonl").read_text().splitlines()))


def state(folder):
    card = run.read_card(folder)
    opened = run.Run(folder, run.of_card(card), run.known(folder, card))
    with contextlib.closing(opened.checkpoints()) as saved:
        return saved.load(opened.program.like)[0]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, data, steps=6) == 0
    return folder


def test_a_run_that_is_resumed_ends_with_the_same_bits(whole, data, tmp_path):
    shutil.copytree(whole, tmp_path / "again")
    for file in [file for later in (tmp_path / "again" / "checkpoints").glob("6*") for file in later.rglob("*") if file.is_file()]:
        file.unlink()
    assert train(tmp_path / "again", data, steps=6) == 0
    jax.tree.map(np.testing.assert_array_equal, state(whole), state(tmp_path / "again"))


def test_the_held_out_images_are_measured_in_bits_per_dimension_and_rank_the_checkpoints(whole, data):
    measured = [line for line in lines(whole) if "dev_bits" in line]
    assert [line["step"] for line in measured] == [3, 6]
    best = min(measured, key=lambda line: line["dev_bits"])["step"]
    opened, params, facts = run.load(whole, "best")
    assert facts["step"] == best
    held = flow.images.build(data["dev"], "test", pad=1)
    (batch,) = held.parts(5, 5)
    bits_B = likelihood.Likelihood(opened.module).bits(params, jax.random.key(0), batch)
    assert float(bits_B.mean()) == pytest.approx(next(line for line in measured if line["step"] == best)["dev_bits"], abs=1e-3)


def test_a_flow_begins_with_activations_fitted_to_its_first_images(data):
    s = recipes.RECIPES["flow-fashion"]("tiny")
    s = run.settings.override(s, {**SMALL, **data})
    begun = flow.begin(s)
    plain = jax.jit(flow.task(s, begun.config).init)(jax.random.key(0))
    moved = jax.tree.map(lambda a, b: bool(np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-3), begun.params, plain)
    assert any(jax.tree.leaves(moved)) and begun.config.size == 6
    assert "fitted to 8 of them" in begun.note


def test_every_look_leaves_a_grid_and_an_exported_run_paints_in_float32(whole, tmp_path):
    assert sorted(path.name for path in (whole / "samples").iterdir()) == ["0000003.png", "0000006.png"]
    run.export(whole, tmp_path / "model")
    card = flaxgen.weights.describe(tmp_path / "model")
    assert card["sampling"]["temperature"] == 1.0 and card["source"]["recipe"] == "flow-fashion"
    assert flaxgen.tensors.index(tmp_path / "model")["block_00/mix/kernel"].dtype == np.float32
    assert flaxgen.Painter.load(tmp_path / "model")(2).shape == (2, 6, 6, 1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["flows=1 x"], "flows=1 x: wanted the steps of each level"),
        (["flows=1 1 1 1"], "wanted a multiple of 16"),
        (["dtype=bfloat16"], "a flow is inverted, which wants float32"),
        (["coupling=spline"], "coupling=spline: wanted exponential"),
        (["schedule=halves", "cooldown=0"], "schedule=halves halves the rate every cooldown= updates"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(capsys, tmp_path, words, wanted):
    assert command.main(["flow-fashion", "tiny=true", f"out={tmp_path / 'run'}", *words]) == 1
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_published_recipes_are_those_of_the_paper_by_their_parameters():
    for name in ("cifar10", "imagenet32"):
        full = image_recipes.RECIPES[f"flow-{name}"]()
        sizes = flow.Config(32, 3, flow.levels(full.flows), full.hidden, full.blocks, full.coupling, full.mixing, full.rank, full.bits)
        assert sum(map(math.prod, sizes.shapes().values())) == 37_683_752
        assert (full.batch, full.rate, full.optimizer, full.schedule) == (64, 1e-2, "adamax", "halves")
    assert image_recipes.flow_cifar10().flips == "horizontal" and image_recipes.flow_imagenet32().ema == 0.9999


def test_the_operations_of_an_update_are_those_of_the_kernels_laid_on_every_pixel():
    s = recipes.RECIPES["flow-digits"]("tiny")
    sizes = flow.Config(8, 1, (1,), 3, 1)
    mix, enter, block, out = 4 * 4, 9 * 2 * 3, (9 + 1 + 9) * 3 * 3, 9 * 3 * 2 * 3
    assert flow.cost(s, sizes, 0)[0] == 6 * 16 * (mix + enter + block + out)
