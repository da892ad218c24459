import json
import types

import pytest

from flaxgen import reader
from train import __main__ as command
from train import questions, reader_score, recipes

SCORES = {"kinds": {"next": {"questions": 7, "silent": 0.875, "1": 0.75, "3": 0.5, "5": 0.25}}, "samples": [["甲？", "", "乙"]]}


def question(number, kind="next"):
    others = tuple(questions.Passage(f"别的{place}。") for place in range(4))
    answer = questions.Passage(f"答{number},是也。", f"答{number},是")
    return questions.Question(f"{kind}/{number}", f"问{number}？", (*others[:2], answer, *others[2:]), (f"答{number}，是",))


def knowing(least):
    """A reader that answers what stands beside fewer than `least` other passages, and the others with the first passage."""

    def answers(asked):
        for _, given in asked:
            right = [text for text in given if text.startswith("答")]
            yield types.SimpleNamespace(**dict.fromkeys(("text", "quote"), right[0][:4] if right and len(given) < least else ""))

    return types.SimpleNamespace(answers=answers)


def test_a_question_is_asked_with_so_many_passages_and_without_the_one_that_answers():
    each = question(1)
    assert reader_score.passages(each, 1) == ["答1,是也。"]
    assert reader_score.passages(each, 3) == ["别的0。", "别的1。", "答1,是也。"]
    assert reader_score.passages(each, 3, silent=True) == ["别的0。", "别的1。", "别的2。"]


def test_scores_are_told_by_kind_and_number_of_passages(tmp_path, monkeypatch):
    questions.save(tmp_path / "heldout.json", [question(1), question(2), question(3, "author")])
    monkeypatch.setattr(reader.Reader, "load", lambda folder: knowing(4))
    scores = reader_score.score(tmp_path, tmp_path)
    assert scores["kinds"]["next"] == {"questions": 2, "silent": 1.0, "1": 1.0, "3": 1.0, "5": 0.0}
    assert scores["kinds"]["all"]["questions"] == 3 and scores["samples"][0] == ["问1？", "答1,是", "答1，是"]
    assert "| next | 2 | 100.0% | 100.0% | 0.0% | 100.0% |" in reader_score.describe(scores)


def test_the_tiny_recipe_runs_from_wired_attention_and_is_published_with_its_card(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="the curve comes with the extra poetry")
    run = str(tmp_path / "run")
    assert recipes.reading_verse("tiny").attention == "induction"
    assert command.main(["reading-verse", "tiny=true", "steps=2", "every=2", "look=2", "note=1", f"out={run}"]) == 0
    monkeypatch.setattr(reader_score, "score", lambda folder, data: SCORES)
    (tmp_path / "facts.json").write_text('{"source": "a collection", "seed": 7}', encoding="utf-8")
    assert command.main(["publish-reader", str(tmp_path), str(tmp_path / "reader"), run]) == 0
    assert "| next | 7 | 75.0% | 50.0% | 25.0% | 87.5% |" in capsys.readouterr().out
    card = (tmp_path / "reader" / "README.md").read_text(encoding="utf-8")
    assert "data=…/questions.json steps=2 batch=16" in card and "| 甲？ | — | 乙 |" in card and "4 layers" not in card
    assert json.loads((tmp_path / "reader" / "scores.json").read_text(encoding="utf-8")) == SCORES
    assert reader.Reader.load(tmp_path / "reader").lengths.row == 48 + 16 + 8
