import dataclasses
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

import flaxgen
from train import __main__ as command
from train import loop, recipes, run

SMALL = {"length": "24", "batch": "2", "width": "12", "layers": "1", "heads": "3", "look": "100", "prompts": ""}


def train(folder, **given):
    given = {**SMALL, **{key: str(value) for key, value in given.items()}}
    return run.train("poetry", recipes.poetry("tiny"), given, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 12 updates without a break; the others are compared with it, and start from its vocabulary and rows."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, steps=12, every=5) == 0
    return folder


def states_equal(first, second):
    for (path, a), (_, b) in zip(*(jax.tree_util.tree_leaves_with_path(leaves(folder)) for folder in (first, second)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(path)


def leaves(folder):
    opened = run.Run.open(folder, recipes.Settings(**json.loads((folder / "run.json").read_text())["settings"]))
    return opened.checkpoints().load(jax.eval_shape(opened.start))[0]


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"], line["tokens"]) for line in lines if "loss" in line]


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    update, calls = loop.steps.update, []

    def interrupted(*given):
        calls.append(None)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*given)

    monkeypatch.setattr(loop.steps, "update", interrupted)
    assert train(tmp_path, steps=12, every=5) == 128 + signal.SIGTERM
    assert [step for step, *_ in losses(tmp_path)] == list(range(1, 8))
    assert train(tmp_path, steps=12, every=5) == 0
    states_equal(whole, tmp_path)
    assert [step for step, *_ in losses(tmp_path)] == list(range(1, 13))
    assert [start["step"] for start in json.loads((tmp_path / "run.json").read_text())["starts"]] == [0, 7]


def test_what_a_killed_run_wrote_after_its_last_checkpoint_is_done_again(whole, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints" / "12")
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"step": 12, "lo')
    assert train(folder, steps=12, every=5) == 0
    states_equal(whole, folder)
    assert losses(folder) == losses(whole)


def test_a_finished_run_resumes_to_nothing(whole):
    before = losses(whole)
    assert train(whole, steps=12, every=5) == 0
    assert losses(whole) == before


def test_a_resumed_run_refuses_other_numbers(whole):
    with pytest.raises(ValueError, match=r"holds a run with rate=0\.003, not 0\.1; only steps, every, look may change"):
        train(whole, rate=0.1)


def test_a_resumed_run_refuses_other_text(whole, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(whole, folder)
    card = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(card | {"data": "0" * 64}))
    with pytest.raises(ValueError, match="is not the text that"):
        train(folder)


def test_a_flipped_bit_in_a_checkpoint_is_named_with_its_leaf(whole, tmp_path, monkeypatch):
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    opened = run.Run.open(folder, recipes.Settings(**json.loads((folder / "run.json").read_text())["settings"]))
    saved = opened.checkpoints()
    restore = saved.manager.restore

    def flipped(*given, **more):
        found = restore(*given, **more)
        bias = found["state"].params["params"]["embed"]["norm"]["bias"]
        found["state"].params["params"]["embed"]["norm"]["bias"] = bias.at[0].add(1e-7)
        return found

    monkeypatch.setattr(saved.manager, "restore", flipped)
    with pytest.raises(ValueError, match=r"damaged at .*'embed'.*'norm'.*'bias'.* \(sha256 differs\); remove .* go on from step 10"):
        saved.load(jax.eval_shape(opened.start))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's other readers end after the first has failed
def test_a_truncated_checkpoint_is_refused_with_the_way_on(whole, tmp_path):
    folder = tmp_path / "truncated"
    shutil.copytree(whole, folder)
    biggest = max((p for p in (folder / "checkpoints" / "12").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    biggest.write_bytes(biggest.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"checkpoints/12 .*remove that folder to go on from step 10"):
        train(folder)


def test_an_exported_run_loads_and_gives_the_same_logits(whole, tmp_path):
    run.export(whole, tmp_path / "model", dtype="float32")
    model, params, text = flaxgen.load(tmp_path / "model")
    opened, wanted, facts = run.load(whole)
    token_BT = np.asarray([text.encode("春风不度玉门关")], np.int32)
    np.testing.assert_array_equal(model.apply(params, token_BT)[0], opened.task.model.apply(wanted, token_BT)[0])
    card = flaxgen.weights.describe(tmp_path / "model")
    assert card["end"] == [text.control["[SEP]"]] and card["source"]["step"] == facts["step"] == 12


def test_a_run_without_a_finite_loss_ends_and_keeps_its_last_checkpoint(tmp_path):
    with pytest.raises(loop.Diverged, match="lower rate="):
        train(tmp_path, steps=12, every=5, rate=1e30, warmup=1, clip=1e30)


def test_unknown_settings_and_wrong_types_name_the_choices(capsys):
    for words, wanted in [
        (["poetry", "speed=3"], "unknown setting 'speed'; choose from data, dev, vocab"),
        (["poetry", "steps=many"], "steps=many: wanted a whole number"),
        (["poetry", "rate=fast"], "rate=fast: wanted a number"),
        (["poetry", "tiny=yes"], "tiny=yes: wanted true or false"),
        (["poetry", "steps"], "'steps' is not key=value"),
        (["poetry", "layers=0"], "layers=0: wanted a whole number from 1 up"),
        (["prose"], "unknown recipe 'prose'; choose from poetry"),
        (["export", "nowhere", "target"], "nowhere holds no run"),
        (["poetry", "out=nowhere", "data=missing.jsonl"], "no data at missing.jsonl"),
    ]:
        assert command.main(words) == 1
        assert wanted in capsys.readouterr().err


def test_a_prompt_that_leaves_no_room_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="the prompt '七绝《秋思》' leaves no room in length=6"):
        train(tmp_path, length=6, prompts="秋思 七绝《秋思》")


def test_samples_are_written_even_where_a_prompt_leaves_room_for_one_token(whole, tmp_path):
    opened, params, _ = run.load(whole)
    prompt = "春" * (opened.settings.length - 1)
    settings = dataclasses.replace(opened.settings, prompts=prompt)
    run.write_samples(dataclasses.replace(opened, folder=tmp_path, settings=settings), params, 3)
    assert (tmp_path / "samples.txt").read_text().startswith(f"step 3\n  {prompt}|")


def test_help_names_every_setting(capsys):
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}=" in shown for name in recipes.Settings.__dataclass_fields__)


@pytest.mark.parametrize(
    "word", ["rate=nan", "rate=-1", "warmup=-5", "decay=inf", "clip=0", "seed=-1", "seed=99999999999999999999", "width=50", "out="]
)
def test_a_number_that_makes_no_sense_is_refused_before_anything_is_written(word, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["poetry", "tiny=true", *([] if word == "out=" else ["out=run"]), word]) == 1
    assert capsys.readouterr().err.startswith(f"train: {word.split('=')[0]}=") and list(tmp_path.iterdir()) == []


def test_a_setting_given_twice_and_fewer_updates_than_done_are_refused(whole, capsys):
    assert command.main(["poetry", "steps=1", "steps=2"]) == 1
    assert "twice" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has done 12 updates, steps=7 is less"):
        train(whole, steps=7, every=5)


def test_a_start_that_was_refused_leaves_nothing_that_the_next_one_uses(tmp_path):
    (tmp_path / "other.txt").write_text("zzz\n\nyyy\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no data at"):
        train(tmp_path / "run", data=tmp_path / "other.txt", dev=tmp_path / "missing.jsonl", steps=1)
    assert train(tmp_path / "run", steps=1) == 0
    assert "床" in (tmp_path / "run" / "vocab.txt").read_text(encoding="utf-8")


def test_ctrl_c_while_a_run_starts_ends_in_words(monkeypatch, capsys, tmp_path):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupted)
    assert command.main(["poetry", "tiny=true", f"out={tmp_path}"]) == 130
    assert "stopped before the first update" in capsys.readouterr().err
