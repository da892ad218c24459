import json

import numpy as np
import pytest

from flaxgen.text import passages, wordpiece
from train import asking, exercises, questions

TEXT = wordpiece.WordPiece(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"甲乙丙丁戊己什么？,。"))
LENGTHS = passages.Lengths(40, 9, 6)


def found(count=70):
    draw = np.random.default_rng(0)
    made = []
    for number in range(count):
        text = "".join(draw.choice([*"甲乙丙丁戊己"], draw.integers(2, 38)))
        made.append(
            questions.Question(str(number), f"{text[:2]}？", (questions.Passage(text, text[:2]), questions.Passage("己", "")), (text[:2],))
        )
    return made


@pytest.fixture
def rows(tmp_path):
    questions.save(tmp_path / "a.json", found())
    return asking.build(str(tmp_path / "a.json"), TEXT, LENGTHS, "causal")


def test_a_batch_is_a_function_of_seed_and_place(rows, tmp_path):
    several = [rows.batch(0, place, 4) for place in (0, 17, 3, 40, 3)]
    again = asking.build(str(tmp_path / "a.json"), TEXT, LENGTHS, "causal")
    for place, batch in zip((0, 17, 3, 40, 3), several, strict=True):
        other = again.batch(0, place, 4)
        assert all(np.array_equal(batch[name], other[name]) for name in batch)
    assert not np.array_equal(several[0]["token_BT"], rows.batch(1, 0, 4)["token_BT"])


def test_parts_of_a_batch_are_its_rows(rows):
    whole = rows.batch(0, 5, 6)
    parts = [rows.batch(0, 5, 6, slice(start, start + 2)) for start in (0, 2, 4)]
    assert all(np.array_equal(whole[name], np.concatenate([part[name] for part in parts])) for name in whole)
    assert whole["row_B"].tolist() == [0, 1, 2, 3, 4, 5]


def test_an_epoch_asks_every_question_once_and_draws_other_passages_the_next_time(rows):
    size = 7  # GROUP batches are 112 places, 1.6 epochs
    places = [(group, number) for group in range(10) for number in range(16)]
    counts = np.zeros(2)
    for group, number in places:
        counts += [(rows.batch(0, group * 16 + number, size)["weight_BT"].sum(axis=1) > 1).sum(), size]
    assert counts[1] == 1120 == 16 * 70
    assert 0.4 < counts[0] / counts[1] < 0.6  # one of the two passages answers


def test_rows_of_a_batch_are_of_like_length(rows):
    spread = [np.ptp(batch["valid_BT"].sum(axis=1)) for batch in (rows.batch(0, place, 4) for place in range(48))]
    assert np.mean(spread) < 3 and {rows.batch(0, place, 4)["token_BT"].shape[1] for place in range(48)} <= {32, 64}


def test_a_part_stands_as_it_lies_and_is_filled_with_rows_that_weigh_nothing(rows):
    part = rows.part(68, 99, 4)
    assert part["token_BT"].shape[0] == 4 and (part["weight_BT"].sum(axis=1) > 0).tolist() == [True, True, False, False]
    assert rows.weight() == sum(rows.part(start, 70, 10)["weight_BT"].sum() for start in range(0, 70, 10))


def test_files_count_as_often_as_they_are_asked_to(tmp_path):
    questions.save(tmp_path / "a.json", found(3))
    questions.save(tmp_path / "b.json", found(5))
    assert len(asking.every(f"{tmp_path / 'a.json'}*2 {tmp_path / 'b.json'}*1")) == 11
    with pytest.raises(ValueError, match=r"a\.json\*0\.5: wanted a whole number"):
        asking.every(f"{tmp_path / 'a.json'}*0.5")
    with pytest.raises(ValueError, match=r"no data at .*c\.json; wanted files of questions, as `python -m train prepare-reading`"):
        asking.every(str(tmp_path / "c.json"))


def test_another_file_than_a_run_was_started_on_is_refused(rows, tmp_path):
    questions.save(tmp_path / "a.json", found(60))
    with pytest.raises(ValueError, match="is not what the run was started on"):
        asking.build(str(tmp_path / "a.json"), TEXT, LENGTHS, "causal", known=rows.digest)


def passage(number):
    return questions.Passage(f"第{number}个问题说的是甲乙丙丁，以及戊己。", "甲" if number % 2 else "")


def test_questions_that_share_a_passage_come_into_one_part():
    made = [questions.Question(str(i), "？", (passage(i // 3), passage(1000 + i // 2)), ("甲",)) for i in range(600)]
    parts = exercises.split(made, 0)
    assert sum(map(len, parts.values())) == 600
    texts = [{each.text for question in part for each in question.passages} for part in parts.values()]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])


def test_the_split_is_by_chance_and_by_the_seed():
    made = [questions.Question(str(i), "？", (passage(i),), ("甲",)) for i in range(3000)]
    parts = exercises.split(made, 0)
    assert 240 < len(parts["heldout"]) < 360 and 60 < len(parts["dev"]) < 120
    assert parts == exercises.split(made, 0) != exercises.split(made, 1)


def test_the_published_split_holds_out_every_third_of_the_order():
    made = found(7)
    parts = exercises.listed(made, (6, 5, 4, 3, 2, 1, 0))
    assert [each.id for each in parts["heldout"]] == ["6", "3", "0"] and [each.id for each in parts["train"]] == ["5", "4", "2", "1"]
    with pytest.raises(ValueError, match="the order has 2 places for 7 questions; wanted each number from 0 to 6 once"):
        exercises.listed(made, (0, 1))


def test_passages_that_do_not_answer_are_thinned_out():
    question = questions.Question("1", "？", tuple(passage(i) for i in range(9)), ("甲",))
    assert exercises.fewer(question, -1, 0) == question
    kept = exercises.fewer(question, 1, 0)
    assert sum(not each.answer for each in kept.passages) == 1 and sum(bool(each.answer) for each in kept.passages) == 4
    silent = questions.Question("1", "？", (passage(0), passage(2)), ())
    assert exercises.fewer(silent, 0, 0) == silent


def test_cloze_questions_are_clauses_with_a_gap_that_their_passage_fills():
    made = exercises.cloze([questions.Question(str(i), "？", (passage(i),), ()) for i in range(30)], 3, 0)
    assert len(made) == 90 and len({each.id for each in made}) == 90
    for each in made:
        before, after = each.text.split("什么")
        assert before + each.answers[0] + after in each.passages[0].text and each.answers[0] == each.passages[0].answer
    short = exercises.cloze([questions.Question("1", "？", (passage(3), passage(4)), ())], 1, 0, window=12)
    assert short and all(len(each.passages[0].text) <= 12 for each in short)


def test_preparing_writes_parts_that_can_be_learnt_from(tmp_path):
    questions.save(tmp_path / "a.json", found(200))
    plan = exercises.Plan(wrong=0, cloze=1)
    counts = exercises.prepare([tmp_path / "a.json"], tmp_path / "out", plan, lambda text: text.replace("甲", "乙"))
    assert counts["read"] == 200 == counts["train"] + counts["dev"] + counts["heldout"]
    assert json.loads((tmp_path / "out" / "facts.json").read_text())["counts"] == counts
    (first, *_) = questions.load(tmp_path / "out" / "train.json")
    assert first.id.startswith("a/") and "甲" not in first.passages[0].text and len(first.passages) == 1
    assert len(questions.load(tmp_path / "out" / "cloze.json")) == counts["cloze"]


def test_preparing_refuses_ids_that_stand_twice_and_damaged_questions(tmp_path):
    questions.save(tmp_path / "a.json", found(3))
    with pytest.raises(ValueError, match="3 questions have an id that stands twice, first 'a/0'"):
        exercises.prepare([tmp_path / "a.json"] * 2, tmp_path / "out", exercises.Plan())
    (tmp_path / "b.json").write_text(json.dumps([{"id": 1, "question": "q", "passages": [{"passage": "p", "answer": ""}]}, {}]))
    with pytest.raises(ValueError, match=r"b\.json: \[1\] has no \"id\", only \[\]; --skip leaves such questions out"):
        exercises.prepare([tmp_path / "b.json"], tmp_path / "out", exercises.Plan())
    assert exercises.prepare([tmp_path / "b.json"], tmp_path / "out", exercises.Plan(damaged="skip"))["skipped"] == 1


def test_commas_of_answers_are_those_that_passages_are_read_with():
    question = questions.Question("1", "？", (questions.Passage("甲、乙；丙", "甲、乙"), questions.Passage("甲乙", "甲 乙")), ("甲、乙",))
    made = exercises.converted(question, str, "f/")
    assert [each.answer for each in made.passages] == ["甲,乙", "甲 乙"] and made.answers == ("甲、乙",)
