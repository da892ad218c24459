import json

import pytest

from train import questions


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


LISTED = [
    {"id": 7, "question": "谁写了静夜思？", "passages": [{"passage": "静夜思", "answer": ""}, {"passage": "李白写的", "answer": "李白"}]},
    {"id": "8", "question": "哪三色？", "passages": [{"passage": "红黄蓝", "answer": "红 黄 蓝"}], "answers": ["红 黄 蓝", "三原色"]},
]
EVIDENT = {
    "Q1": {
        "question": "甲？",
        "evidences": {"Q1#0": {"evidence": "甲是乙", "answer": ["乙"]}, "Q1#1": {"evidence": "丙", "answer": ["no_answer"]}},
    }
}
CONTEXT = "一二三四。五六七八九。十。"
SPANNED = {
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "a",
                            "question": "何？",
                            "answers": [{"text": "六七", "answer_start": 6}, {"text": "七", "answer_start": 0}],
                        },
                        {"id": "b", "question": "无？", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ]
}


def test_a_list_of_questions_is_read_with_its_variants(tmp_path):
    first, second = questions.load(write(tmp_path / "a.json", LISTED))
    assert first == questions.Question(
        "7", "谁写了静夜思？", (questions.Passage("静夜思"), questions.Passage("李白写的", "李白")), ("李白",)
    )
    assert second.answers == ("红 黄 蓝", "三原色")


def test_webqa_by_evidences_is_read_and_no_answer_is_none(tmp_path):
    (only,) = questions.load(write(tmp_path / "a.json", EVIDENT))
    assert only == questions.Question("Q1", "甲？", (questions.Passage("甲是乙", "乙"), questions.Passage("丙", "")), ("乙",))


def test_squad_is_read_whole_and_in_windows_of_sentences(tmp_path):
    path = write(tmp_path / "a.json", SPANNED)
    whole, impossible = questions.load(path)
    assert whole.passages == (questions.Passage(CONTEXT, "六七"),) and whole.answers == ("六七", "七")
    assert impossible.passages == (questions.Passage(CONTEXT, ""),) and impossible.answers == ()
    cut, _ = questions.load(path, window=8)
    assert cut.passages == (questions.Passage("一二三四。"), questions.Passage("五六七八九。十。", "六七"))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_windows_join_to_the_text_and_are_no_longer_than_asked(size):
    parts = list(questions.windows(CONTEXT, size))
    assert "".join(part for _, part in parts) == CONTEXT
    assert all(1 <= len(part) <= size and CONTEXT[place:].startswith(part) for place, part in parts)


def test_what_is_saved_loads_again(tmp_path):
    found = questions.load(write(tmp_path / "a.json", LISTED))
    questions.save(tmp_path / "b.json", found)
    assert questions.load(tmp_path / "b.json") == found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{**LISTED[0], "question": 3}], r"\[0\]\.question: got 3, wanted str"),
        ([LISTED[0], {"passages": []}], r'\[1\] has no "id", only \[\'passages\'\]'),
        ([{**LISTED[0], "passages": [{"passage": "x"}]}], r'\[0\]\.passages\[0\] has no "answer"'),
        ([{**LISTED[0], "passages": []}], r"\[0\] has no passage"),
        ([{**LISTED[0], "question": " "}], r"\[0\]\.question is empty"),
        ([{**LISTED[0], "answers": "李白"}], r'\[0\]\.answers: got "李白", wanted a list of texts'),
        ([{**LISTED[0], "answers": [7]}], r"\[0\]\.answers: got 7, wanted texts"),
        ([LISTED[0], {**LISTED[0], "id": "a\tb"}], r'\[1\]: the id "a\\tb" is empty or holds a tab'),
        ([{**LISTED[0], "id": ""}], r'\[0\]: the id "" is empty'),
        ([{**LISTED[0], "question": "\ud800?"}], r'\[0\]\.question: got "\\ud800\?", which holds half a character'),
        ([{**LISTED[0], "answers": ["a", "\udfff"]}], r"\[0\]\.answers\[1\]: got .* half a character"),
        ([{**LISTED[0], "passages": [{"passage": "\udfff", "answer": ""}]}], r"\[0\]\.passages\[0\]\.passage: got .* half"),
        (["x"], r'\[0\]: got "x", wanted an object'),
        ([], "holds no question"),
        ({}, r"got \{\}, wanted a list of questions"),
        (5, "got 5, wanted a list of questions"),
        ({"data": 5}, r"\.data: got 5, wanted a list of articles"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "a", "question": "q", "answers": [{"text": "x"}]}]}]}]},
         r'\.data\[0\]\.paragraphs\[0\]\.qas\[0\]\.answers\[0\] has no "answer_start"'),
        ({"Q": {"question": "q", "evidences": {"E": {"evidence": "x", "answer": "x"}}}}, r"\['Q'\].*\['E'\]\.answer: got \"x\""),
        ({"Q": {"question": "q", "evidences": {"E": {"evidence": "x", "answer": [1]}}}}, r"\['E'\]\.answer: got 1, wanted texts"),
    ],
)  # fmt: skip
def test_json_of_another_shape_is_refused_by_its_place(tmp_path, value, message):
    with pytest.raises(ValueError, match=r"a\.json.*" + message):
        questions.load(write(tmp_path / "a.json", value))


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="is no JSON in UTF-8"):
        questions.load(tmp_path / "a.json")


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json cannot be read \(No such file or directory\); name a file of questions"):
        questions.load(tmp_path / "none.json")


def test_damaged_questions_can_be_told_apart(tmp_path):
    found, damaged = questions.read(write(tmp_path / "a.json", [LISTED[0], {"passages": []}]))
    assert [each.id for each in found] == ["7"] and len(damaged) == 1


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "count", "damaged"),
    [
        ("webqa_me_test.ann.json", 3024, 0),
        ("cmrc2018_dev.json", 3219, 0),
        ("cmrc2018_trial.json", 1000, 2),  # questions without a word
        ("DRCD_dev.json", 3524, 0),
        ("DRCD_test.json", 3493, 0),
        ("WebQA.sample.json", 11, 1),  # cut off in the middle
        ("SogouQA.sample.json", 21, 1),
    ],
)
def test_the_published_files_are_read(shared, name, count, damaged):
    found, wrong = questions.read(shared / "data" / "reading" / name)
    assert (len(found), len(wrong)) == (count, damaged)
    assert sum(any(passage.answer for passage in each.passages) for each in found) >= 0.9 * count
