import numpy as np
import pytest

from flaxgen.text import passages, wordpiece
from train import answering, questions

TEXT = wordpiece.WordPiece(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"甲乙丙丁戊己？,。"))
CLS, SEP, MASK = 2, 3, 4
LENGTHS = passages.Lengths(8, 5, 4)


def ask(*pairs):
    given = tuple(questions.Passage(*pair) for pair in pairs)
    return questions.Question("1", "甲？", given, tuple(each.answer for each in given if each.answer))


def ids(words):
    return [{"C": CLS, "S": SEP, "M": MASK}.get(each) or TEXT.tokens.index(each) for each in words]


def test_a_causal_row_learns_the_answer_and_its_end_alone():
    made = answering.causal(TEXT, "甲？", "乙丙", "丁", LENGTHS)
    assert made.token_T.tolist() == ids("C乙丙S甲？S丁")
    assert made.target_T.tolist() == ids("乙丙S甲？S丁S")
    assert made.segment_T.tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert made.weight_T.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


def test_a_row_without_answer_learns_the_end_behind_the_question():
    made = answering.causal(TEXT, "甲？", "乙", "", LENGTHS)
    assert made.token_T.tolist() == ids("C乙S甲？S")
    assert made.weight_T.tolist() == [0, 0, 0, 0, 0, 1] and made.target_T[-1] == SEP and not made.segment_T.any()


@pytest.mark.parametrize(
    ("question", "answer", "row"),
    [
        ("甲甲甲甲甲甲", "丁", "C乙乙乙乙乙乙S甲甲甲甲甲甲S丁S"),  # of 9 - 2 together, the answer needs one
        ("甲甲甲甲甲甲", "丁丁丁", "C乙乙乙乙乙乙S甲甲甲甲S丁丁丁S"),
        ("甲甲", "丁丁丁丁丁丁", "C乙乙乙乙乙乙S甲甲S丁丁丁丁丁S"),
        ("甲甲甲甲甲甲", "丁丁丁丁丁丁", "C乙乙乙乙乙乙S甲甲甲S丁丁丁丁S"),
    ],
)
def test_question_and_answer_are_cut_together_the_longer_first(question, answer, row):
    made = answering.causal(TEXT, question, "乙" * 9, answer, LENGTHS)
    assert [*made.token_T.tolist(), SEP] == ids(row)
    assert made.segment_T.sum() + 1 == made.weight_T.sum() == len(row.split("S")[2]) + 1


def test_the_published_lengths_make_rows_of_at_most_352():
    made = answering.causal(TEXT, "甲" * 999, "乙" * 999, "丁" * 999, passages.Lengths())
    assert len(made.token_T) + 1 == 256 + 96 == passages.Lengths().row
    assert made.token_T[255] == SEP and (made.token_T == SEP).sum() == 2


def test_a_filled_row_learns_the_answer_in_the_masks_and_one_end():
    made = answering.filled(TEXT, "甲？", "乙丙", "丁戊", LENGTHS)
    assert made.token_T.tolist() == ids("CMMMMS甲？S乙丙S")
    assert made.target_T[:6].tolist() == [0, *ids("丁戊S"), 0, 0]
    assert made.weight_T.tolist() == [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0] and not made.segment_T.any()
    cut = answering.filled(TEXT, "甲" * 9, "乙" * 9, "丁" * 9, LENGTHS)
    assert cut.token_T.tolist() == ids("CMMMMS甲甲甲甲S乙乙乙乙乙乙乙S") and cut.target_T[1:5].tolist() == ids("丁丁丁S")


def test_the_target_is_the_first_answer_of_any_passage_whose_parts_all_stand_in_the_one_that_is_read():
    question = ask(("无", ""), ("…", "戊"), ("…", "丙 乙"), ("…", "乙"))
    assert answering.target(question, "乙丙丁", LENGTHS) == "丙,乙"
    assert answering.target(question, "丁", LENGTHS) == ""
    assert answering.target(question, "丁丁丁丁丁丁戊", LENGTHS) == ""  # beyond passage - 2 characters


def test_a_passage_is_drawn_by_seed_epoch_and_number_alone():
    question = ask(*((f"{i}", "") for i in range(10)))
    several = [answering.drawn(question, 3, seed=0, epoch=epoch) for epoch in range(200)]
    assert several == [answering.drawn(question, 3, seed=0, epoch=epoch) for epoch in range(200)]
    assert set(several) == set("0123456789")
    assert several != [answering.drawn(question, 4, seed=0, epoch=epoch) for epoch in range(200)]
    assert answering.drawn(ask(("甲 乙、丙；丁，戊", "")), 0, seed=0, epoch=0) == "甲,乙,丙,丁,戊"


def test_rows_of_unlike_length_become_one_batch():
    made = answering.batch([answering.causal(TEXT, "甲？", "乙丙", "丁", LENGTHS), answering.causal(TEXT, "甲？", "乙", "", LENGTHS)], 9)
    assert {name: leaf.shape for name, leaf in made.items()} == dict.fromkeys(
        ("token_BT", "target_BT", "segment_BT", "weight_BT", "valid_BT"), (2, 9)
    )
    np.testing.assert_array_equal(made["valid_BT"].sum(axis=1), [8, 6])
    assert made["token_BT"][1, 6:].tolist() == [0, 0, 0] and made["weight_BT"].sum() == 3
