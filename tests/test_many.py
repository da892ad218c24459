"""A file of prompts to a file of texts: order, resuming after any interruption, and what is refused."""

import fcntl
import json
import os

import numpy as np
import pytest

import flaxgen
from flaxgen import many, results
from tests import writers

PROMPTS = ["天地玄黄", "日月", "sunny day", "宇宙洪荒日月", "盈"]


@pytest.fixture(scope="module")
def writer():
    return writers.characters(rule=flaxgen.Rule(temperature=0.8))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n\n", encoding="utf-8")
    return path


def run(writer, source, target, **wishes):
    seen = []
    many.run(writer, source, target, on_line=lambda *facts: seen.append(facts), **{"tokens": 9, "exact": True} | wishes)
    return seen


def test_every_prompt_gets_its_line_in_order(writer, source, tmp_path):
    seen = run(writer, source, tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == PROMPTS
    assert [line["text"] for line in lines] == [texts[0] for texts in writer(PROMPTS, tokens=9, exact=True)]
    assert [(done, total) for done, total, _ in seen] == [(number, 5) for number in range(6)]
    as_json = tmp_path / "prompts.jsonl"
    as_json.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    run(writer, as_json, tmp_path / "same.jsonl")
    assert (tmp_path / "same.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_a_run_cut_at_any_byte_goes_on_to_the_same_file(writer, source, tmp_path):
    run(writer, source, tmp_path / "out.jsonl")
    whole = (tmp_path / "out.jsonl").read_bytes()
    for cut in range(0, len(whole) + 1, 37):
        (tmp_path / "out.jsonl").write_bytes(whole[:cut])
        run(writer, source, tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_other_wishes_other_prompts_and_a_second_run_are_refused(writer, source, tmp_path):
    target = tmp_path / "out.jsonl"
    run(writer, source, target)
    whole = target.read_bytes()
    for wishes, word in (({"tokens": 8}, "tokens"), ({"seed": 3}, "seed"), ({"rule": flaxgen.Rule()}, "rule")):
        with pytest.raises(flaxgen.CheckpointError, match=word):
            run(writer, source, target, **wishes)
    with pytest.raises(flaxgen.CheckpointError, match="model"):
        run(writers.characters(key=1), source, target, rule=writer.rule)
    source.write_text("宇\n" + "\n".join(PROMPTS[1:]), encoding="utf-8")
    with pytest.raises(flaxgen.CheckpointError, match="line 1: not of the prompt"):
        run(writer, source, target)
    source.write_text(PROMPTS[0], encoding="utf-8")
    with pytest.raises(flaxgen.CheckpointError, match="holds 5 lines"):
        run(writer, source, target)
    with open(target, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process"):
            run(writer, source, target)
    assert target.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("empty.txt", b"\n\n", "holds no prompt"),
        ("latin.txt", b"\xff\xfe", "UTF-8"),
        ("list.jsonl", b"[1]\n", "line 1"),
        ("field.jsonl", b'{"text": "a"}\n', "line 1"),
        ("deep.jsonl", b"[" * 100_000, "line 1"),
        ("half.jsonl", b'{"prompt": "a"}\n\n{"prompt": "b\\ud800"}\n', "line 3: character 2 is .*write the whole character"),
    ],
)
def test_a_file_that_holds_no_prompts_says_why(writer, tmp_path, name, raw, words):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=words):
        run(writer, tmp_path / name, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def settled(writer, source, target):
    """What a run that is done leaves in the target, which is then cut in the midst of its third line."""
    run(writer, source, target)
    whole = target.read_bytes()
    return whole, b"".join(whole.splitlines(keepends=True)[:2]) + whole.splitlines()[2][:-9]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.replace("日月".encode(), "日日".encode()),
        lambda raw: raw.replace(b"}\n", b"\n", 1),
        lambda raw: raw.replace(b'"text"', b'"word"', 1),
        lambda raw: b"\n" + raw,
        lambda raw: raw.splitlines(keepends=True)[0] + b"notes of mine",
        lambda raw: raw[:-1] + b"\xff\n" + raw,
        lambda raw: raw.splitlines(keepends=True)[0] * 7,
        lambda raw: b"notes of mine",
        lambda raw: b"\x00" * 99,
    ],
)
def test_a_target_that_is_changed_or_foreign_is_refused_and_left_as_it_is(writer, source, tmp_path, damage):
    target = tmp_path / "out.jsonl"
    _, torn = settled(writer, source, target)
    target.write_bytes(damage(torn))
    with pytest.raises(flaxgen.CheckpointError, match=r"line \d: not of the prompt .*have changed.*not of this command"):
        run(writer, source, target)
    assert target.read_bytes() == damage(torn)


def test_lines_that_lack_their_settings_or_have_others_are_left_as_they_are(writer, source, tmp_path):
    target, card = tmp_path / "out.jsonl", tmp_path / "out.jsonl.settings.json"
    whole, torn = settled(writer, source, target)
    kept = card.read_bytes()
    target.write_bytes(torn)
    with pytest.raises(flaxgen.CheckpointError, match="another alternatives"):
        run(writer, source, target, alternatives=2)
    card.unlink()
    with pytest.raises(flaxgen.CheckpointError, match=r"no out\.jsonl\.settings\.json lies beside it"):
        run(writer, source, target)
    assert target.read_bytes() == torn and not card.exists()
    card.write_bytes(kept)
    run(writer, source, target)
    assert target.read_bytes() == whole


def test_the_prompts_are_never_written_over(writer, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "日"}\n', encoding="utf-8")
    os.link(path, tmp_path / "linked.jsonl")
    (tmp_path / "beside.jsonl.settings.json").symlink_to(path)
    for target in ("prompts.jsonl", "linked.jsonl", "beside.jsonl"):
        with pytest.raises(ValueError, match="is the file that would be written"):
            run(writer, path, tmp_path / target)
    assert path.read_text(encoding="utf-8") == '{"prompt": "日"}\n'


def test_prompts_may_be_a_list_of_whole_characters(writer, source, tmp_path):
    run(writer, source, tmp_path / "out.jsonl")
    run(writer, PROMPTS, tmp_path / "same.jsonl")
    assert (tmp_path / "same.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"prompt 2: character 1 is .*surrogate"):
        run(writer, ["日", "\udcff"], tmp_path / "half.jsonl")


@pytest.mark.parametrize(
    "rule",
    [
        [flaxgen.Rule(temperature=number / 2) for number in range(5)],
        flaxgen.Rule(temperature=np.arange(5) / 2),
        [flaxgen.Rule(temperature=0.5)] * 5,
    ],
)
def test_rules_and_seeds_of_each_prompt_stay_with_it_when_a_run_goes_on(writer, source, tmp_path, rule):
    target, seeds = tmp_path / "out.jsonl", (7, 1, 4, 9, 2)
    run(writer, source, target, rule=rule, seed=seeds)
    lines = target.read_bytes().splitlines(keepends=True)
    for kept in (1, 4):
        target.write_bytes(b"".join(lines[:kept]))
        run(writer, source, target, rule=rule, seed=np.array(seeds))
        assert target.read_bytes().splitlines(keepends=True) == lines
    with pytest.raises(flaxgen.CheckpointError, match="rule"):
        run(writer, source, target, rule=[flaxgen.Rule(temperature=0.25)] * 5)


def test_a_prompt_that_fails_has_its_line_and_the_others_theirs(writer, source, tmp_path, monkeypatch):
    target, real = tmp_path / "out.jsonl", flaxgen.Writer.write_many

    def failing(self, prompts, **wishes):
        for prompt, one in zip(prompts, real(self, prompts, **wishes), strict=True):
            yield results.Writing("黄", [9], [-1.0], "broken", [], error="logits are not finite") if prompt == "日月" else one

    monkeypatch.setattr(flaxgen.Writer, "write_many", failing)
    assert many.run(writer, source, target, on_line=lambda *facts: None, tokens=5) == 1
    raw = target.read_bytes()
    lines = list(map(json.loads, raw.splitlines()))
    assert lines[1] == {"prompt": "日月", "text": "黄", "finish": "broken", "error": "logits are not finite"}
    assert [line["prompt"] for line in lines if "error" not in line] == [PROMPTS[0], *PROMPTS[2:]]
    target.write_bytes(b"".join(raw.splitlines(keepends=True)[:3]))
    assert many.run(writer, source, target, on_line=lambda *facts: None, tokens=5) == 1
