import contextlib
import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import flaxgen
from flaxgen import drawing
from train import __main__ as command
from train import energy, image_recipes, loop, recipes, run

SMALL = {
    "pad": "0",
    "stem": "3",
    "squeeze": "1",
    "filters": "4-",
    "moves": "2",
    "drawn": "2",
    "stride": "7",
    "buffer": "16",
    "batch": "4",
    "shown": "3",
}
BRIEF = {"note": "1", "every": "4", "look": "4", "warmup": "1", "cooldown": "2", "names": "a|b|c"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    image = draw.integers(0, 256, (17, 6, 6)).astype(np.uint8)
    np.savez(folder / "a.npz", x_train=image[:12], y_train=np.arange(12) % 3, x_test=image[12:], y_test=np.arange(5) % 3)
    return {"data": str(folder / "a.npz"), "dev": str(folder / "a.npz")}


def train(folder, data, recipe="energy-fashion", **given):
    given = {**SMALL, **BRIEF, **data, **{key: str(value) for key, value in given.items()}}
    return run.train(recipe, recipes.RECIPES[recipe]("tiny"), given, folder)


def lines(folder):
    return list(map(json.loads, (folder / "log.jsonl").read_text().splitlines()))


def state(folder):
    card = run.read_card(folder)
    opened = run.Run(folder, run.of_card(card), run.known(folder, card))
    with contextlib.closing(opened.checkpoints()) as saved:
        return saved.load(opened.program.like)


def losses(folder):
    return [(line["step"], line["loss"], line["images"]) for line in lines(folder) if "loss" in line and "event" not in line]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, data, steps=8) == 0
    return folder


def resumed(whole, data, folder, **given):
    """The state of a run that lost all after its first checkpoint, and was started again."""
    shutil.copytree(whole, folder)
    for file in [file for later in (folder / "checkpoints").glob("8*") for file in later.rglob("*") if file.is_file()]:
        file.unlink()
    assert train(folder, data, steps=8, **given) == 0
    assert losses(whole) == losses(folder)
    return state(folder)[0]


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits_buffer_and_power_iteration_included(whole, data, tmp_path):
    one, other = state(whole)[0], resumed(whole, data, tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert int(other.carry.buffer.count) == 16 and other.carry.buffer.image_NYXC.dtype == np.uint8


@pytest.mark.nightly
def test_a_run_on_several_devices_goes_on_with_the_same_bits_also_through_its_chains(data, tmp_path):
    given = {"mesh": "data=2,fsdp=2", "kl": "chain", "entropy": 0.1, "dropout": 0.3, "augment": 0.5, "dev": ""}
    assert train(tmp_path / "whole", data, steps=8, **given) == 0
    jax.tree.map(
        np.testing.assert_array_equal, state(tmp_path / "whole")[0], resumed(tmp_path / "whole", data, tmp_path / "again", **given)
    )


def test_the_log_tells_energies_and_how_many_chains_began_with_noise(whole):
    first, *_, last = [line for line in lines(whole) if "loss" in line]
    assert {"energy_data", "energy_sample", "move", "fresh", "norm", "rate", "images"} <= set(first)
    assert first["fresh"] == 1 and 0 <= last["fresh"] < 1 and last["images"] == 32
    measured = [line["step"] for line in lines(whole) if "dev_energy" in line]
    assert measured == [4, 8]


def test_every_look_leaves_a_grid_of_the_buffer_and_one_of_fresh_chains(whole):
    from PIL import Image

    names = sorted(path.name for path in (whole / "samples").iterdir())
    assert names == [f"{step:07}-{what}.png" for step in (4, 8) for what in ("buffer", "fresh")]
    assert all(np.asarray(Image.open(whole / "samples" / name)).std() > 0 for name in names)


def test_an_exported_run_paints_as_the_settings_say(whole, tmp_path):
    run.export(whole, tmp_path / "model")
    card = flaxgen.weights.describe(tmp_path / "model")
    said = drawing.of(card)
    assert (said.moves, said.step, said.noise, said.clip, said.kind, said.classes) == (2, 7.0, 0.005, 0.01, "published", ("a", "b", "c"))
    assert card["source"]["recipe"] == "energy-fashion" and card["source"]["settings"]["data"] == "a.npz" and card["text"] is None
    model, params, text = flaxgen.load(tmp_path / "model")
    assert text is None and model.apply(params, np.zeros((1, 6, 6, 1)), np.asarray([1])).shape == (1,)
    assert flaxgen.Painter.load(tmp_path / "model")(2, label="c").shape == (2, 6, 6, 1)


@pytest.mark.nightly
def test_updates_whose_energies_run_away_send_the_run_back_and_lower_the_rate_for_good(data, tmp_path):
    given = {"every": 2, "patience": 2, "rollbacks": 3, "lower": 0.25, "schedule": "constant", "warmup": 0, "rate": 3.0}
    with pytest.raises(loop.Diverged, match="after going back 3 times"):
        train(tmp_path, data, steps=40, largest=1e-9, **given)
    back = [line for line in lines(tmp_path) if line.get("event") == "rollback"]
    assert [(line["rollbacks"], line["share"]) for line in back] == [(1, 0.25), (2, 0.0625), (3, 0.015625)]


@pytest.mark.nightly
def test_a_run_goes_on_with_the_lowered_rate_also_when_it_is_resumed(data, tmp_path):
    """The planned rate throws the energies far beyond what counts as run away."""
    given = {"every": 2, "patience": 1, "rollbacks": 9, "lower": 0.01, "schedule": "constant", "largest": 2.0, "clip": 0, "seed": 3}
    assert train(tmp_path, data, steps=10, rate=5.0, warmup=0, optimizer="sgd", **given) == 0
    back = [line for line in lines(tmp_path) if line.get("event") == "rollback"]
    share = back[-1]["share"]
    assert share < 1
    rates = [line["rate"] for line in lines(tmp_path) if "rate" in line]
    assert rates[-1] == pytest.approx(5.0 * share)
    assert train(tmp_path, data, steps=12, rate=5.0, warmup=0, optimizer="sgd", **given) == 0
    assert [line["rate"] for line in lines(tmp_path) if "rate" in line][-1] == pytest.approx(5.0 * share)
    assert float(run.optimizers.share(state(tmp_path)[0].opt)) == pytest.approx(share)


def test_the_buffer_is_cut_over_the_devices_of_the_rows(whole):
    card = run.read_card(whole)
    opened = run.Run(whole, dataclasses.replace(run.of_card(card), mesh="data=2,fsdp=2"), run.known(whole, card))
    carry = opened.program.like.carry
    assert carry.buffer.image_NYXC.sharding.spec == carry.buffer.label_N.sharding.spec == PartitionSpec(("data", "fsdp"))
    assert {leaf.sharding.spec for leaf in jax.tree.leaves((carry.buffer.count, carry.power))} == {PartitionSpec()}


@pytest.mark.nightly
def test_updates_on_eight_devices_are_those_of_one(data, tmp_path):
    given = {"optimizer": "sgd", "rate": 0.01, "batch": 8, "steps": 3, "every": 3, "look": 9, "schedule": "constant"}
    for name, mesh in (("one", "data=1"), ("eight", "data=4,fsdp=2")):
        assert train(tmp_path / name, data, mesh=mesh, **given) == 0
    (one, _), (other, _) = state(tmp_path / "one"), state(tmp_path / "eight")
    assert other.carry.buffer.image_NYXC.addressable_shards[0].data.shape == (2, 6, 6, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), one.params, other.params)
    difference = np.abs(np.asarray(one.carry.buffer.image_NYXC, int) - np.asarray(other.carry.buffer.image_NYXC, int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.nightly
def test_a_batch_in_parts_fills_the_buffer_with_all_of_it(data, tmp_path):
    assert train(tmp_path, data, batch=6, accumulate=2, steps=2, every=2) == 0
    assert int(state(tmp_path)[0].carry.buffer.count) == 12


def test_a_buffer_that_does_not_divide_over_the_devices_names_itself(data, tmp_path):
    with pytest.raises(ValueError, match="buffer/image_NYXC axis 0: 17 does not divide"):
        train(tmp_path, data, buffer=17, batch=8, mesh="data=8")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["parallel=pmap"], "the buffer is one for all of them"),
        (["buffer=16"], "buffer=16 holds no more images than the 16 rows"),
        (["network=32"], "network=32 is for images of 32 pixels, these have 28"),
        (["filters=4+"], "filters=4"),
        (["stem=0"], "stem=0: network=own wants filters"),
        (["entropy=1"], "give kl=last"),
        (["adversarial=fgm"], "images have none"),
        (["data=nowhere"], "no images at nowhere"),
        (["features=x", "dev="], "give that too"),
        (["contrast=ce"], "contrast=ce: wanted cd or logsumexp or softplus"),
        (["kind=true"], "unknown setting 'kind'"),
        (["--plan"], "--plan is for language models"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(capsys, tmp_path, words, wanted):
    assert command.main(["energy-fashion", "tiny=true", f"out={tmp_path / 'run'}", *words]) == 1
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_published_recipes_are_those_of_the_code_that_was_released():
    plain, classes, wider = (image_recipes.RECIPES[f"energy-{name}"]() for name in ("cifar10", "cifar10-classes", "imagenet32"))
    for full, batch in ((plain, 128), (classes, 128), (wider, 32)):
        found = (full.batch, full.moves, full.step, full.noise, full.bound, full.buffer, full.fresh, full.regulariser)
        assert found == (batch, 60, 10.0, 0.005, 0.01, 10_000, 0.05, 1.0)
        assert (full.optimizer, full.rate, full.schedule, full.kl) == ("adam-0", 3e-4, "constant", "none")
    sizes = [energy.sizes(full, 32, 3, number) for full, number in ((plain, 0), (classes, 10), (wider, 1000))]
    assert [made.layers for made in sizes] == [9, 6, 9] and sizes[2].blocks[0][0] == 256 and sizes[0].dropout == 0.5


def test_the_operations_of_an_update_are_counted_by_kernels_and_pixels():
    s = image_recipes.energy_fashion("tiny")
    sizes = energy.sizes(s, 28, 1, 10)
    stem, first, second = 9 * 16 * 4 * 49, 9 * (4 * 6 + 6 * 6 + 4 * 6) * 49, 9 * (6 * 8 + 8 * 8 + 6 * 8) * 9
    forward = 2 * (stem + first + second)
    count, words = energy.cost(s, sizes, 0)
    assert count == (2 * 5 + 6) * forward and f"{forward:.4g} forward" in words
    assert math.isfinite(count)
