import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxgen.measure import answers, overlap

GOLD = {"1": ("北京",), "2": ("红 黄 蓝", "红黄蓝三色"), "3": ("Windows 10",)}
TEXTS = st.text("ab甲乙丙， Ａ１。\t", max_size=8)


def test_the_list_of_signs_is_as_long_as_the_tools_less_its_empty_line():
    assert len(set(answers.SIGNS)) == len(answers.SIGNS) == 127


def test_normalisation_narrows_lowers_and_drops_signs_and_blanks():
    assert answers.normalise(" 《ＡＢＣ》，D-e　１２.5％ ") == "abcde125"
    assert answers.normalise("々〓") == ""
    assert answers.normalise("É\xa0") == "É\xa0"  # other alphabets and other blanks stay


@pytest.mark.parametrize(
    ("answer", "variants", "right"),
    [
        ("北京", ("北京",), True),
        ("《北京》。", ("北京",), True),
        ("北京市", ("北京", "北京市"), True),
        ("北京市", ("北京",), False),
        ("", ("北京",), False),
        ("  ", ("北京",), False),
        ("。", ("北京",), False),
        ("蓝、红、黄", ("红 黄 蓝",), True),
        ("蓝，红", ("红 黄 蓝",), False),
        ("蓝, 红, 黄", ("红 黄 蓝",), False),  # a sign beside a blank leaves an empty part
        ("黄 红", ("别的", "红 黄"), False),  # parts are compared with the first variant alone
        ("ｗｉｎｄｏｗｓ１０", ("Windows 10",), True),
    ],
)
def test_an_answer_is_correct_when_a_variant_or_the_parts_of_the_first_are_equal(answer, variants, right):
    assert answers.correct(answer, variants) is right


@pytest.mark.parametrize(
    ("answer", "variants", "wanted"),
    [
        ("北京", ("北京",), 1.0),
        ("北京市", ("北京",), 0.8),  # precision 2/3, recall 1
        ("北北", ("北京",), 0.5),  # a character counts as often as it stands there
        ("京北", ("北京",), 1.0),
        ("上海", ("北京",), 0.0),
        ("", ("北京",), 0.0),
        ("北京市", ("北京", "北京市"), 1.0),
        ("甲乙丙丁", ("甲", "甲乙丙"), 6 / 7),
    ],
)
def test_f1_is_that_of_characters_with_the_best_variant(answer, variants, wanted):
    assert answers.f1(answer, variants) == pytest.approx(wanted, abs=1e-15)


def test_gold_answers_score_one():
    score = answers.score({name: variants[0] for name, variants in GOLD.items()}, GOLD)
    assert (score.accuracy, score.f1, score.final, score.questions) == (1.0, 1.0, 1.0, 3)


def test_a_score_is_a_mean_over_all_questions_also_those_without_answer():
    score = answers.score({"1": "北京市", "2": "蓝、黄、红"}, GOLD)
    assert score.accuracy == 1 / 3 and score.f1 == pytest.approx(1.8 / 3) and score.final == pytest.approx((1 / 3 + 0.6) / 2)


def test_the_published_final_is_the_mean_of_the_published_parts():
    assert answers.Score(0.7259005836184343, 0.813860036706151, 9938).final == pytest.approx(0.7698803101622926, abs=1e-16)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_scores_agree_with_a_count_by_hand(answer, variants):
    def plain(text):
        return [c for c in text.lower().replace("Ａ", "a").replace("ａ", "a").replace("１", "1") if c in "ab甲乙丙1"]

    best = 0.0
    for variant in variants:
        own, left = plain(answer), plain(variant)
        total, hits = len(own) + len(left), 0
        for character in own:
            if character in left:
                left.remove(character)
                hits += 1
        best = max(best, 2 * hits / total if hits else 0.0)
    assert answers.f1(answer, variants) == pytest.approx(best)
    if plain(answer) and any(plain(answer) == plain(variant) for variant in variants):
        assert answers.correct(answer, variants)


def test_answers_to_questions_that_are_not_asked_and_questions_without_answer_are_refused():
    with pytest.raises(ValueError, match="1 of 2 answers are to questions that are not asked, first '9'"):
        answers.score({"1": "北京", "9": "x"}, GOLD)
    with pytest.raises(ValueError, match=r"1 of 1 questions have no answer to compare with, first 'a'; leave them out"):
        answers.score({}, {"a": ("。",)})


def test_files_of_answers_round_trip(tmp_path):
    given = {"1": "北京", "2": "", "3": "a b"}
    answers.write(tmp_path / "answers", {**given, "3": "a\n\tb"})
    assert answers.read(tmp_path / "answers") == given
    assert (tmp_path / "answers").read_text(encoding="utf-8") == "1\t北京\n2\t\n3\ta b\n"


def test_a_file_is_written_whole_or_not_at_all_and_ids_stay_on_their_line(tmp_path):
    answers.write(tmp_path / "answers", {"1": "北京"})
    for name in ("a\tb", "a\nb", "a\x1cb", "a\u2028b", ""):
        with pytest.raises(ValueError, match="1 ids cannot stand in a file of lines"):
            answers.write(tmp_path / "answers", {name: "上海"})
    assert answers.read(tmp_path / "answers") == {"1": "北京"} and [path.name for path in tmp_path.iterdir()] == ["answers"]


def test_a_mark_at_the_start_of_a_file_is_no_part_of_an_id_and_other_codes_are_refused_by_file(tmp_path):
    (tmp_path / "marked").write_text("1\t北京\n", encoding="utf-8-sig")
    assert answers.read(tmp_path / "marked") == {"1": "北京"}
    (tmp_path / "old").write_bytes("1\t北京\t北京\n".encode("gbk"))
    for read in (answers.read, answers.read_gold):
        with pytest.raises(ValueError, match=r"old is not UTF-8 .* at byte 2"):
            read(tmp_path / "old")


def test_gold_files_hold_an_answer_and_its_variants(tmp_path):
    (tmp_path / "gold").write_text("7\t北京\t北京|北京市\n", encoding="utf-8")
    assert answers.read_gold(tmp_path / "gold") == {"7": ("北京", "北京市")}


def test_lines_of_another_shape_are_refused_by_number(tmp_path):
    (tmp_path / "one").write_text("1\t北京\n2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2: 1 fields between tabs, wanted id<TAB>answer"):
        answers.read(tmp_path / "one")
    (tmp_path / "two").write_text("1\t北京\n1\t上海\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: the question '1' stands twice"):
        answers.read(tmp_path / "two")


def test_the_baseline_gives_the_sentence_that_shares_most_or_what_the_question_lacks_of_it():
    passages = ["今天天气不错。", "静夜思是李白写的诗。李白，字太白！"]
    assert overlap.answer("谁写了静夜思？", passages, "sentence") == "静夜思是李白写的诗"
    assert overlap.answer("谁写了静夜思？", passages) == "是李白"
    assert overlap.answer("谁写了静夜思？", ["静夜思"]) == "静夜思"
    assert overlap.answer("谁？", ["……", ""]) == ""
    shares = collections.Counter(overlap.answer("ABC", ["abc d", "abc de"], give) for give in ("sentence", "rest"))
    assert shares == {"abc d": 1, "d": 1}
