import random

import jax
import numpy as np
import pytest

from flaxgen import weights
from flaxgen.models import config, layers, transformer
from flaxgen.text import wordpiece
from train import __main__ as command
from train import induction, poetry, questions, verse_questions

POEMS = [
    poetry.Poem(
        f"题{chr(0x5000 + i)}", "".join(f"{chr(0x6000 + 20 * i + 5 * j) * 4}句{mark}" for j, mark in enumerate("，。，。")), name, "诗"
    )
    for i, name in enumerate(["甲乙", "丙丁", "戊己", "庚辛"] * 5)
]
TIMES = {"甲乙": "唐代", "丙丁": "宋代"}
NOTE = {"name": "壬癸", "note": "壬癸（一○八一～一一二七），字季和，号东山，京兆万年（今陕西西安）人。", "dynasty": "宋代"}
SIZES = config.Config(211, 64, 192, 2, 4, 96, "pre", "gelu", dropout=0.0, segments=2, outputs=("tied",), position="rotary", init_range=0.05)


def asked(others=1, count=20, often=verse_questions.OFTEN):
    subjects = [verse_questions.poem(each, TIMES) for each in POEMS]
    return list(verse_questions.ask(subjects, count, others, often, random.Random(0)))


def test_answers_stand_in_the_passages_that_have_them_and_in_no_other():
    found = asked(others=3)
    assert len(found) > 10
    for question in found:
        (answer,) = question.answers
        assert [answer in each.text for each in question.passages] == [bool(each.answer) for each in question.passages]
        assert sum(bool(each.answer) for each in question.passages) == 1 and len(question.passages) == 4


def test_what_a_poem_does_not_tell_is_neither_worded_nor_asked():
    subject = verse_questions.poem(POEMS[2], TIMES)  # of no known dynasty
    assert "dynasty" not in subject.kinds and {"author", "title", "next", "whole"} <= subject.kinds
    draw = random.Random(0)
    shown = {subject.passage(draw) for _ in range(200)}
    assert all("代" not in text for text in shown) and len(shown) == sum("dynasty" not in text for text in verse_questions.WORDINGS)


def test_the_line_behind_and_before_another_is_asked_for():
    for kind, step in (("next", 1), ("previous", -1)):
        for question in asked(often={kind: 1}):
            lines = poetry.HAN.findall(next(each for each in POEMS if question.answers[0] in each.body).body)
            assert lines[lines.index(question.answers[0]) - step] in question.text


def test_notes_on_authors_tell_names_and_home():
    assert verse_questions.person(NOTE).answers == {"courtesy name": "季和", "pen name": "东山", "home": "京兆万年"}
    assert verse_questions.person(NOTE | {"note": "壬癸，生平不详。"}) is None


def test_a_name_of_two_dynasties_has_none():
    notes = [NOTE, NOTE | {"dynasty": "唐代"}, {"name": "甲", "note": "", "dynasty": "唐代"}]
    found = verse_questions.dynasties(notes)
    assert found["甲"] == "唐代" and "壬癸" not in found


def test_a_package_is_prepared_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(poetry, "split", lambda source, seed: ({"train": POEMS[:12], "dev": POEMS[12:16], "heldout": POEMS[16:]}, {}))
    monkeypatch.setattr(poetry, "simplifier", lambda: str)
    monkeypatch.setattr(verse_questions, "OTHERS", 2)
    (tmp_path / "dist" / "quantangshi").mkdir(parents=True)
    for name in ("tang", "song"):
        (tmp_path / "dist" / "quantangshi" / f"authors.{name}.json").write_text('[{"name": "甲乙", "desc": ""}]', encoding="utf-8")
    assert command.main(["prepare-verse-reading", str(tmp_path), str(tmp_path / "out")]) == 0
    assert "subjects of heldout" in capsys.readouterr().out
    for name in ("whole", "short", "train", "dev", "heldout"):
        assert questions.load(tmp_path / "out" / f"{name}.json")
    assert "题" in wordpiece.WordPiece.load(tmp_path / "out" / "vocab.txt").tokens


def test_a_model_wired_to_copy_expects_what_stood_behind_the_same_token_before():
    model = transformer.Transformer(SIZES)
    params = layers.init(model, jax.random.key(0), "unroll")
    half_BT = np.stack([np.random.default_rng(seed).permutation(211)[:20] for seed in range(4)])
    token_BT = np.concatenate([half_BT, half_BT], axis=1)
    read = jax.jit(lambda params: model.apply(params, token_BT)[0])
    rank = {}
    for name, chosen in (("drawn", params), ("wired", induction.wire(params, SIZES, 0))):
        logit_BTV = np.asarray(read(chosen))[:, 21:-1]
        right_BT1 = np.take_along_axis(logit_BTV, token_BT[:, 22:, None], -1)
        rank[name] = np.median((logit_BTV > right_BT1).sum(axis=-1))
    assert rank["drawn"] > 60 and rank["wired"] < 20
    assert weights.flatten(params).keys() == weights.flatten(induction.wire(params, SIZES, 0)).keys()


def test_only_a_model_that_can_be_wired_is():
    with pytest.raises(ValueError, match="attention=induction with position=learned wiring=post"):
        induction.wire({}, config.Config(29, 16, 12, 2, 2, 20, "post", "gelu"), 0)
