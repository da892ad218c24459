import json

import numpy as np
import pytest

import flaxgen
from train import __main__ as command
from train import couplets, recipes, run, sample, settings, tagging

SMALL = {"batch": "4", "width": "6", "layers": "1", "note": "1", "every": "4", "look": "4", "dropout": "0.2", "prompts": "风|明月天"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    for name, count in (("train.tsv", 40), ("dev.tsv", 7)):
        lines = ["".join(draw.choice(list("天地风月明花"), length)) for length in draw.integers(1, 4, count)]
        (folder / name).write_text("".join(f"{line}\t{line[::-1]}\n" for line in lines), encoding="utf-8")
    return {"data": str(folder / "train.tsv"), "dev": str(folder / "dev.tsv")}


def train(folder, data, recipe="couplet", **given):
    given = {**SMALL, **data, **{key: str(value) for key, value in given.items()}}
    return run.train(recipe, recipes.RECIPES[recipe]("tiny"), given, folder)


def lines(folder):
    return list(map(json.loads, (folder / "log.jsonl").read_text().splitlines()))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, data, steps=8) == 0
    return folder


def test_a_run_that_is_resumed_ends_with_the_same_bits(whole, data, tmp_path):
    assert train(tmp_path, data, steps=4) == 0
    assert train(tmp_path, data, steps=8) == 0
    assert [line["loss"] for line in lines(whole) if "loss" in line] == [line["loss"] for line in lines(tmp_path) if "loss" in line]
    (_, one, _), (_, other, _) = run.load(whole), run.load(tmp_path)
    for path, leaf in flaxgen.weights.flatten(one).items():
        assert np.asarray(leaf).tobytes() == np.asarray(flaxgen.weights.flatten(other)[path]).tobytes(), path


def test_the_log_holds_perplexity_and_accuracy_and_the_best_is_kept(whole, tmp_path):
    measured = [line for line in lines(whole) if "dev_perplexity" in line]
    assert [line["step"] for line in measured] == [4, 8] and all(0 <= line["dev_accuracy"] <= 1 for line in measured)
    best = min(measured, key=lambda line: line["dev_perplexity"])["step"]
    assert run.load(whole, "best")[2]["step"] == best


def test_the_score_is_that_of_the_held_out_lines_one_by_one(whole, data):
    opened, params, _ = run.load(whole)
    nats = right = count = 0
    for pair in couplets.pairs(data["dev"], longest=16):
        upper, lower = (np.asarray([opened.model.text.encode(side)]) for side in pair)
        logit_TV = np.asarray(opened.module.apply(params, upper)[0], np.float64)
        log_prob_TV = logit_TV - np.log(np.exp(logit_TV).sum(axis=-1, keepdims=True))
        nats -= log_prob_TV[np.arange(lower.size), lower[0]].sum()
        right, count = right + (logit_TV.argmax(axis=-1) == lower[0]).sum(), count + lower.size
    last = [line for line in lines(whole) if "dev_perplexity" in line][-1]
    assert last["dev_perplexity"] == pytest.approx(np.exp(nats / count), abs=2e-3)
    assert last["dev_accuracy"] == pytest.approx(right / count, abs=1e-5)


def test_samples_copy_nothing_in_place_and_hold_no_unknown_character(whole):
    found = [line.strip().split("|") for line in (whole / "samples.txt").read_text(encoding="utf-8").splitlines() if "|" in line]
    assert [upper for upper, _ in found] == ["风", "明月天"] * 2
    assert all(a != b and b != "□" for upper, lower in found for a, b in zip(upper, lower, strict=True))


def test_samples_of_a_step_that_is_done_again_stand_once(tmp_path):
    for step, text in ((4, "a"), (8, "b"), (12, "c"), (8, "d")):
        sample.append(tmp_path, ["天", "地"], [text, text], step)
    assert (tmp_path / "samples.txt").read_text(encoding="utf-8") == "step 4\n  天|a\n  地|a\nstep 8\n  天|d\n  地|d\n"


def test_a_prompt_that_cannot_be_answered_says_so_and_stops_no_run(data, tmp_path):
    assert train(tmp_path, data, steps=4, prompts="龘|明月天，") == 0
    found = (tmp_path / "samples.txt").read_text(encoding="utf-8").splitlines()
    assert found[0] == "step 4" and found[1].startswith("  龘|('龘': the model knows none") and found[2].endswith("，") and len(found) == 3


def test_an_exported_run_loads_and_gives_the_same_logits(whole, tmp_path):
    run.export(whole, tmp_path / "model", dtype="float32")
    model, params, text = flaxgen.load(tmp_path / "model")
    opened, wanted, _ = run.load(whole)
    token_BT = np.asarray([text.encode("天地风")])
    np.testing.assert_array_equal(model.apply(params, token_BT), opened.module.apply(wanted, token_BT))
    assert flaxgen.weights.describe(tmp_path / "model")["source"]["recipe"] == "couplet"


def test_the_baseline_is_a_recipe_of_its_own():
    assert tagging.begin(recipes.couplet_bilstm("tiny")).config.kind == "bilstm"


def test_the_recipes_are_those_of_the_article():
    full, baseline = recipes.couplet(), recipes.couplet_bilstm()
    assert (full.batch, full.optimizer, full.rate, full.schedule, full.steps) == (64, "adam", 1e-3, "constant", 100_000)
    assert (full.longest, full.least, full.width, full.dropout) == (16, 2, 128, 0.25)
    sizes = [tagging.Config(8001, s.model, s.width, s.layers or None, dropout=s.dropout) for s in (full, baseline)]
    assert [sum(int(np.prod(shape)) for shape in each.shapes().values()) for each in sizes] == [2_647_617, 2_648_385]


def test_settings_of_language_models_and_plans_are_refused(capsys, data):
    for words, wanted in [
        (["couplet", "wiring=pre"], "unknown setting 'wiring'; choose from data, dev, least"),
        (["couplet", "model=gru"], "model=gru: wanted gated or bilstm"),
        (["couplet", "--plan"], "--plan is for language models"),
        (["couplet", "out=nowhere", "data=missing.tsv"], "no couplets at missing.tsv"),
    ]:
        assert command.main(words) == 1
        assert wanted in capsys.readouterr().err


def test_help_names_every_setting_and_they_stand_in_one_order(capsys):
    assert command.main(["couplet", "--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"\n  {field.name}=") for field in settings.ordered(recipes.couplet())]
    assert places == sorted(places)
