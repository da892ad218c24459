import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal

import jax
import numpy as np
import pytest

import flaxgen
from train import __main__ as command
from train import data, loop, parallel, recipes, run, sample, settings

SMALL = {"length": "24", "batch": "2", "width": "12", "layers": "1", "heads": "3", "look": "100", "prompts": "", "note": "1"}


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
    opened = run.Run(folder, *opening(folder))
    with contextlib.closing(opened.checkpoints()) as saved:
        return saved.load(opened.program.like)[0]


def opening(folder):
    card = run.read_card(folder)
    return run.of_card(card), run.known(folder, card)


def lines(folder):
    return list(map(json.loads, (folder / "log.jsonl").read_text().splitlines()))


def losses(folder):
    return [(line["step"], line["loss"], line["tokens"]) for line in lines(folder) if "loss" in line and "event" not in line]


def signalled(monkeypatch, updates, number=signal.SIGTERM):
    """Sends this process a signal at the given updates."""
    update, calls = parallel.Program.update, []

    def interrupted(*given):
        calls.append(None)
        if len(calls) in updates:
            os.kill(os.getpid(), number)
        return update(*given)

    monkeypatch.setattr(parallel.Program, "update", interrupted)


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(whole, tmp_path, monkeypatch, capsys):
    signalled(monkeypatch, [7])
    assert train(tmp_path, steps=12, every=5) == 128 + signal.SIGTERM
    assert "stopped after update 7, which is saved" in capsys.readouterr().err
    assert [step for step, *_ in losses(tmp_path)] == list(range(1, 8))
    assert train(tmp_path, steps=12, every=5) == 0
    states_equal(whole, tmp_path)
    assert losses(whole) == losses(tmp_path)
    assert [start["step"] for start in run.read_card(tmp_path)["starts"]] == [0, 7]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_at_random_updates_lose_none(whole, tmp_path, monkeypatch, number):
    draw = random.Random(int(number))
    signalled(monkeypatch, draw.sample(range(1, 12), 3), number)
    codes = []
    while not codes or codes[-1]:
        codes.append(train(tmp_path, steps=12, every=5))
    assert set(codes[:-1]) == {128 + number} and len(codes) == 4
    states_equal(whole, tmp_path)
    assert losses(whole) == losses(tmp_path)


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
    with pytest.raises(ValueError, match=r"holds a run with rate=0\.003, not 0\.1; only accumulate, steps, mesh, .* may change"):
        train(whole, rate=0.1)


def test_a_resumed_run_refuses_other_text(whole, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(whole, folder)
    card = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(card | {"data": "0" * 64}))
    with pytest.raises(ValueError, match="is not the text that the run was started on"):
        train(folder)


def damage(folder):
    biggest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(biggest.read_bytes())
    content[len(content) // 2] ^= 1
    biggest.write_bytes(content)


def test_a_damaged_checkpoint_is_set_aside_and_the_older_one_gives_the_same_end(whole, tmp_path, capsys):
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    damage(folder / "checkpoints" / "12")
    with pytest.raises(ValueError, match="12"):
        run.export(folder, tmp_path / "model")
    with pytest.raises(ValueError, match="12"):
        train(folder, steps=12, every=5, damaged="refuse")
    assert train(folder, steps=12, every=5) == 0
    assert "2 updates are lost" in capsys.readouterr().err
    states_equal(whole, folder)
    assert losses(whole) == losses(folder)
    assert any(line.get("event") == "damaged" for line in lines(folder)) and (folder / "checkpoints" / "12.corrupt").is_dir()


def test_a_run_without_a_good_checkpoint_is_not_started_anew(whole, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    for step in ("10", "12"):
        damage(folder / "checkpoints" / step)
    with pytest.raises(ValueError, match="no good step"):
        train(folder, steps=12, every=5)


def poisoned(monkeypatch, places):
    """Makes the loss of the batches at `places` NaN by their weights."""
    batch = data.Data.batch

    def changed(self, seed, place, size, rows=slice(None)):
        made = batch(self, seed, place, size, rows)
        return made | {"weight_BT": made["weight_BT"] * (np.nan if place in places else 1)}

    monkeypatch.setattr(data.Data, "batch", changed)


@pytest.mark.parametrize("places", [{0, 11}, {3}, {4, 5}], ids=str)
def test_a_batch_that_is_not_finite_leaves_parameters_as_if_it_had_been_skipped(tmp_path, monkeypatch, places):
    batch = data.Data.batch
    kept = [place for place in range(12) if place not in places]
    monkeypatch.setattr(
        data.Data, "batch", lambda self, seed, place, size, rows=slice(None): batch(self, seed, kept[place % len(kept)], size, rows)
    )
    assert train(tmp_path / "without", steps=len(kept), every=5, schedule="constant", warmup=3) == 0
    monkeypatch.undo()
    poisoned(monkeypatch, places)
    assert train(tmp_path / "same", steps=12, every=5, schedule="constant", warmup=3) == 0
    one, other = (leaves(tmp_path / name) for name in ("without", "same"))
    jax.tree.map(np.testing.assert_array_equal, (one.params, one.opt), (other.params, other.opt))
    assert [line["step"] - 1 for line in lines(tmp_path / "same") if line.get("event") == "skipped"] == sorted(places)
    assert all(np.isfinite(loss) for _, loss, _ in losses(tmp_path / "same"))


def test_bad_batches_in_a_row_send_the_run_back_and_it_goes_on_behind_them(tmp_path, monkeypatch):
    poisoned(monkeypatch, {7, 8, 9})
    assert train(tmp_path, steps=12, every=5, patience=3, skip=1) == 0
    (back,) = [line for line in lines(tmp_path) if line.get("event") == "rollback"]
    assert (back["step"], back["skipped"], back["rollbacks"]) == (5, 6, 1)
    assert [step for step, *_ in losses(tmp_path)] == list(range(1, 13))


def test_a_run_that_went_back_goes_on_at_a_lower_rate_also_when_it_is_resumed(tmp_path, monkeypatch, capsys):
    poisoned(monkeypatch, {3})
    given = {"every": 2, "patience": 1, "lower": 0.25, "schedule": "constant", "warmup": 0, "rate": 1e-3}
    for steps in (5, 7):
        assert train(tmp_path, steps=steps, **given) == 0
    (back,) = [line for line in lines(tmp_path) if line.get("event") == "rollback"]
    assert (back["step"], back["share"]) == (2, 0.25)
    rates = [line["rate"] for line in lines(tmp_path) if "rate" in line]
    assert rates == pytest.approx([1e-3] * 2 + [2.5e-4] * 5)
    assert "back to update 2 for the loss ran away; the rate is 0.25 of the planned" in capsys.readouterr().err


def test_going_back_is_capped(tmp_path, monkeypatch):
    poisoned(monkeypatch, set(range(7, 1000)))
    with pytest.raises(loop.Diverged, match="after going back 2 times; lower rate="):
        train(tmp_path, steps=12, every=5, patience=3, rollbacks=2)
    assert [line["step"] for line in lines(tmp_path) if line.get("event") == "rollback"] == [5, 5]


@pytest.mark.parametrize("moved", [{"mesh": "data=2,fsdp=2,tensor=2"}, {"mesh": "fsdp=8"}, {"mesh": "data=8", "parallel": "pmap"}], ids=str)
def test_a_run_goes_on_on_another_mesh(eight, tmp_path, moved):
    folder = tmp_path / "moved"
    shutil.copytree(eight, folder)
    shutil.rmtree(folder / "checkpoints" / "12")
    assert train(folder, **EIGHT, **moved) == 0
    wanted, found = losses(eight), losses(folder)
    assert [step for step, *_ in found] == list(range(1, 13)) and [tokens for *_, tokens in found] == [tokens for *_, tokens in wanted]
    np.testing.assert_allclose([loss for _, loss, _ in found], [loss for _, loss, _ in wanted], rtol=1e-5)


EIGHT = {"steps": 12, "every": 5, "batch": 8, "width": 24, "heads": 2, "layers": 2, "loop": "scan"}


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A run on one device whose sizes divide over eight."""
    folder = tmp_path_factory.mktemp("eight")
    assert train(folder, **EIGHT) == 0
    return folder


def test_an_exported_run_loads_and_gives_the_same_logits(whole, tmp_path):
    run.export(whole, tmp_path / "model", dtype="float32")
    model, params, text = flaxgen.load(tmp_path / "model")
    opened, wanted, facts = run.load(whole)
    token_BT = np.asarray([text.encode("春风不度玉门关")], np.int32)
    np.testing.assert_array_equal(model.apply(params, token_BT)[0], opened.module.apply(wanted, token_BT)[0])
    card = flaxgen.weights.describe(tmp_path / "model")
    assert card["end"] == [text.control["[SEP]"]] and card["source"]["step"] == facts["step"] == 12


def test_a_run_without_a_finite_loss_ends_and_keeps_its_last_checkpoint(tmp_path):
    with pytest.raises(loop.Diverged, match="lower rate="):
        train(tmp_path, steps=12, every=5, rate=1e30, warmup=1, clip=1e30)


def test_unknown_settings_and_wrong_types_name_the_choices(capsys):
    for words, wanted in [
        (["poetry", "speed=3"], "unknown setting 'speed'; choose from data, dev, start"),
        (["poetry", "steps=many"], "steps=many: wanted a whole number"),
        (["poetry", "rate=fast"], "rate=fast: wanted a number"),
        (["poetry", "tiny=yes"], "tiny=yes: wanted true or false"),
        (["poetry", "steps"], "'steps' is not key=value"),
        (["poetry", "layers=0"], "layers=0: wanted a whole number from 1 up"),
        (["prose"], "unknown recipe 'prose'; choose from own, poetry"),
        (["export", "nowhere", "target"], "nowhere holds no run"),
        (["poetry", "out=nowhere", "data=missing.jsonl"], "no data at missing.jsonl"),
    ]:
        assert command.main(words) == 1
        assert wanted in capsys.readouterr().err


def test_a_prompt_that_leaves_no_room_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="the prompt '七绝《秋思》' leaves no room in length=6"):
        train(tmp_path, length=6, prompts="秋思|七绝《秋思》")


def test_samples_are_written_even_where_a_prompt_leaves_room_for_one_token(whole, tmp_path):
    opened, params, _ = run.load(whole)
    prompt = "春" * (opened.settings.length - 1)
    sample.write(tmp_path, opened.module, params, opened.model.text, [prompt], 3)
    assert (tmp_path / "samples.txt").read_text().startswith(f"step 3\n  {prompt}|")


def test_help_names_every_setting(capsys):
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {field.name}=" in shown for field in dataclasses.fields(settings.Language))


@pytest.mark.parametrize(
    "word",
    [
        "rate=nan",
        "rate=-1",
        "warmup=-5",
        "decay=inf",
        "clip=-1",
        "ema=1",
        "optimizer=adamx",
        "schedule=wsd",
        "seed=99999999999999999999",
        "width=50",
        "out=",
    ],
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
    assert "床" in (tmp_path / "run" / "text" / "vocab.txt").read_text(encoding="utf-8")


def test_ctrl_c_while_a_run_starts_ends_in_words(monkeypatch, capsys, tmp_path):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupted)
    assert command.main(["poetry", "tiny=true", f"out={tmp_path}"]) == 130
    assert "stopped before the first update" in capsys.readouterr().err
