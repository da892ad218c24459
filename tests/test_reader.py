"""The reader: what it says of its answers, what it refuses, and the command that asks it."""

import io
import itertools
import json
import sys

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import flaxgen
from flaxgen import asking, cli, highlight, loop, reader, weights
from flaxgen.chains import reading
from flaxgen.models import config as sizes
from flaxgen.models import transformer
from flaxgen.text import bytepair, passages, wordpiece
from tests import writers

TEXT = wordpiece.WordPiece((*writers.WORDS, ",", "？"), end=(3,))
LENGTHS = passages.Lengths(18, 8, 5)
STRANGE = "天地玄黄宇宙SunnydaySUN12， 、\u0301\u00ad喆🙂"
QUESTION, GIVEN = "天地？", ["天地 玄黄，宇宙Sunny。", "日月盈昃辰宿列张天地玄黄宇宙洪荒", "日月"]


def model(outputs=("mlm",), **changes):
    sized = {"vocab": len(TEXT), "positions": 40, "width": 12, "layers": 2, "heads": 3, "hidden": 20, "segments": 2, "outputs": outputs}
    config = sizes.Config(**sized | changes, wiring="post", activation="gelu")
    noise = np.random.default_rng(4)
    flat = {name: noise.normal(name.endswith("scale"), 0.5, shape).astype(np.float32) for name, shape in config.shapes().items()}
    return transformer.Transformer(config), weights.nest(flat)


@pytest.fixture(scope="module")
def made():
    return reader.Reader(*model(), TEXT, lengths=LENGTHS)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    target = tmp_path_factory.mktemp("reader") / "model"
    source = {"reading": {"form": "causal", "passage": 18, "question": 8, "answer": 5}}
    flaxgen.save(target, made.model, made.params, TEXT, source=source)
    return target


def test_an_answer_says_where_it_stands(made):
    answer = made(QUESTION, GIVEN)
    start, end = answer.span
    assert answer.passages[answer.passage][start:end] == answer.quote
    assert TEXT.encode(passages.normalised(answer.quote)) == TEXT.encode(answer.text) != []
    assert answer.question == QUESTION and answer.passages == tuple(GIVEN)
    assert answer.confidence == answer.chances[answer.passage] and all(0 <= chance <= 1 for chance in answer.chances)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("天地玄黄宇宙SunnydaySUN12， 、\u0301\u00ad喆🙂"), max_size=20), min_size=3, max_size=4),
    st.integers(0, 2),
)
def test_whatever_stands_in_the_passages_the_answer_is_a_part_of_one(made, given, seed):
    assume(any(text.strip() for text in given))
    params = jax.tree.map(np.array, made.params)
    params["params"]["mlm"]["bias"] += np.random.default_rng(seed).normal(0, 3, len(TEXT)).astype(np.float32)
    answer = reader.Reader(made.model, params, TEXT, lengths=LENGTHS)(QUESTION, given)
    assert set(answer.cut) <= set(range(len(given))) and 0 <= answer.confidence <= 1
    if answer.passage is None:
        assert (answer.text, answer.span) == ("", None)
    else:
        start, end = answer.span
        assert 0 <= start < end <= len(given[answer.passage]) and answer.passage not in answer.dismissed


def test_a_quote_has_the_capitals_and_signs_of_the_passage():
    answer = reader.Answer("sunny", "?", tuple(GIVEN), 0, (8, 13), 0.5, -1.0, (0.5, 0.1, 0.1), (), ())
    assert answer.quote == "Sunny"


def test_questions_together_are_answered_as_each_alone_and_none_compiles_anew(made):
    asked = [
        (QUESTION, GIVEN),
        ("日月", ["洪荒", "天。", "", "张"]),
        ("宇宙盈昃", ["日月盈昃", "辰宿", "列张", "天"]),
        ("列张", GIVEN[::-1]),
    ] * 2
    together = made([question for question, _ in asked], [given for _, given in asked])
    alone = [made(*each) for each in asked]
    assert [(one.text, one.passage, one.span) for one in together] == [(one.text, one.passage, one.span) for one in alone]
    np.testing.assert_allclose([one.score for one in together], [one.score for one in alone], atol=1e-4)
    compiled = [], loop._start._cache_size(), loop._advance._cache_size()
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled[0].append(name))
    made("玄黄", ["荒" * 9, "张", "宿月"])
    assert [name for name in compiled[0] if name.endswith("backend_compile_duration")] == []
    assert compiled[1:] == (loop._start._cache_size(), loop._advance._cache_size())


def test_a_reader_of_few_programs_answers_as_others_do_and_compiles_one_for_several_sizes(made):
    few = reader.Reader(made.model, made.params, TEXT, lengths=LENGTHS, programs=asking.Programs((4,), beams=2))
    for several, beams in itertools.product((GIVEN, [*GIVEN, "列张"]), (1, 2)):
        one, other = (found(QUESTION, several, beams=beams) for found in (few, made))
        assert (one.text, one.passage, one.span, one.dismissed) == (other.text, other.passage, other.span, other.dismissed)
        np.testing.assert_allclose(one.score, other.score, rtol=1e-5)
    compiled = loop._start._cache_size()
    few("月日", GIVEN[1:])
    assert compiled == loop._start._cache_size()
    with pytest.raises(ValueError, match="5 passages, wanted at most 4"):
        few(QUESTION, ["天"] * 5)
    with pytest.raises(ValueError, match="beams=3: wanted at most 2"):
        few(QUESTION, GIVEN, beams=3)


def test_a_reader_that_fills_in_reads_the_longest_question_and_passage_there_may_be():
    filling = reader.Reader(*model(positions=33), TEXT, form="filled", lengths=LENGTHS)
    answer = filling("天地" * 4, ["日月盈昃辰宿" * 4, "日"])
    assert answer.question_cut and answer.cut == (0,)
    with pytest.raises(ValueError, match="make rows of 33 tokens; the model has 32"):
        reader.Reader(*model(positions=32), TEXT, form="filled", lengths=LENGTHS)
    scaled = reader.Reader(*model(), TEXT, form="filled")
    assert passages.longest("filled", scaled.lengths) <= 40 and scaled("天" * 40, ["日" * 40]).question_cut


def test_a_passage_that_is_too_long_is_cut_and_the_answer_tells_or_it_is_refused(made):
    long = "天地" * 9
    one, other = made([QUESTION] * 2, [["日", long, "月"], ["日", long[:16], "月"]])
    assert (one.cut, other.cut) == ((1,), ()) and (one.text, one.score) == (other.text, other.score)
    strict = reader.Reader(made.model, made.params, TEXT, lengths=LENGTHS, longer="refuse")
    with pytest.raises(ValueError, match="passage 1 has 18 tokens, wanted at most 16; split it"):
        strict(QUESTION, ["日", long])
    asked = long[:8]
    assert made(asked, ["日"]).question_cut and not one.question_cut
    assert "not read to the end: the question" in highlight.facts(made(asked, ["日"]))
    with pytest.raises(ValueError, match="the question has 8 tokens, wanted at most 7"):
        strict(long[:8], ["日"])


@pytest.mark.parametrize(
    ("question", "given", "message"),
    [
        (" \n", GIVEN, "it is empty; ask something"),
        (QUESTION, [], "0 passages with text in none of them"),
        (QUESTION, ["", " "], "2 passages with text in none of them"),
        (QUESTION, "天地", "wanted a list of texts; for a single one, a list of one"),
        (QUESTION, [3], "wanted a list of texts"),
        (QUESTION, ["天"] * 65, "65 passages, wanted at most 64"),
        ([QUESTION, ""], [GIVEN, GIVEN], "question 1: question='': it is empty"),
        ([QUESTION], [GIVEN, GIVEN], "1 questions and 2 lists of passages"),
        (None, GIVEN, "question=None: wanted a text"),
        ([3], [GIVEN], "question=3: wanted a text"),
        (QUESTION, None, "passages=None: wanted a list of texts"),
        ([QUESTION], 5, "passages=5: wanted a list of texts for each of 1 questions"),
    ],
)
def test_what_cannot_be_answered_is_refused(made, question, given, message):
    with pytest.raises(ValueError, match=message):
        made(question, given)


def test_settings_that_mean_nothing_are_refused(made):
    with pytest.raises(ValueError, match="mode='abstract': wanted"):
        made(QUESTION, GIVEN, mode="abstract")
    with pytest.raises(ValueError, match="beams=31: wanted 1 to 30"):
        made(QUESTION, GIVEN, beams=len(TEXT))
    with pytest.raises(ValueError, match=r"beams=1\.5: wanted a whole number"):
        made(QUESTION, GIVEN, beams=1.5)
    with pytest.raises(ValueError, match=r"lengths=\(18, 8, 5\): wanted"):
        reader.Reader(*model(), TEXT, lengths=(18, 8, 5))
    with pytest.raises(ValueError, match=r'form=.other.*wanted "causal" or "filled"'):
        reader.Reader(*model(), TEXT, form="other")


def test_a_vocabulary_or_a_model_that_cannot_read_is_refused():
    module, params = model()
    bare = wordpiece.WordPiece(tuple(token for token in writers.WORDS if token != "[SEP]"))
    letters = bytepair.BytePair((*bytepair.alphabet(), "<|endoftext|>"), (), end=(256,))
    for wrong, message in (
        (lambda: reader.Reader(module, params, None), "has no vocabulary"),
        (lambda: reader.Reader(module, params, bare), r"the vocabulary has no \[SEP\]"),
        (lambda: reader.Reader(module, params, letters), r"the vocabulary has no \[CLS\]"),
        (lambda: reader.Reader(*model(segments=0), TEXT), "has 0 segments, wanted 2"),
        (lambda: reader.Reader(*model(outputs=("pool",)), TEXT), "no logits over its vocabulary"),
        (lambda: reader.Reader(*model(positions=9), TEXT), "9 positions is too short"),
        (lambda: reader.Reader(module, params, TEXT, lengths=passages.Lengths()), "rows of 352 tokens; the model has 40"),
        (lambda: reader.Reader(object(), params, TEXT), "a 'object' cannot read passages"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_a_folder_says_how_it_reads(made, folder):
    loaded = flaxgen.Reader.load(folder)
    assert (loaded.lengths, loaded.form, loaded.model.config.application) == (LENGTHS, "causal", "unilm")
    assert loaded(QUESTION, GIVEN) == made(QUESTION, GIVEN)
    assert reader.trained({"source": {"settings": {"passage": 9, "question": 8, "answer": 7, "form": "filled"}}}) == {
        "lengths": passages.Lengths(9, 8, 7),
        "form": "filled",
    }
    assert reader.trained({"source": None}) == reader.trained({"source": {"settings": {"passage": 9}}}) == {}
    assert reader.Reader(*model(), TEXT).lengths == passages.Lengths(29, 7, 3)


def test_a_generative_answer_may_stand_nowhere_and_answers_at_once_are_elected(made):
    answer = made(QUESTION, GIVEN, mode="generative")
    assert answer.span is None or answer.quote in GIVEN[answer.passage]
    filled = reader.Reader(made.model, made.params, TEXT, form="filled", lengths=LENGTHS)
    answer = filled(QUESTION, GIVEN)
    assert filled.model.config.application == "encoder"
    assert answer.chances[answer.passage] == answer.confidence == max(answer.chances) and answer.quote in GIVEN[answer.passage]
    with pytest.raises(ValueError, match="beams=2 of a reader that fills"):
        filled(QUESTION, GIVEN, beams=2)


def test_no_answer_is_an_empty_text_that_says_how_sure_it_is(made):
    params = jax.tree.map(np.array, made.params)
    params["params"]["mlm"]["bias"][3] = 99.0
    answer = reader.Reader(made.model, params, TEXT, lengths=LENGTHS)(QUESTION, GIVEN)
    assert (answer.text, answer.quote, answer.passage, answer.span, answer.dismissed) == ("", "", None, None, (0, 1, 2))
    assert answer.confidence == pytest.approx(1.0)


def test_few_sizes_are_compiled():
    ready = [asking.ask(TEXT, "天", ["地"] * count, "causal", LENGTHS, "cut") for count in (1, 2, 3, 7, 10, 33)]
    assert [size.passages for size, _ in asking.blocks(ready, 26)] == [1, 2, 4, 8, 10, 48]
    assert {size.width for size, _ in asking.blocks(ready, 26)} == {26}
    (size, block), (_, rest) = asking.blocks([ready[4]] * 2, 26)
    assert (size.questions, block, rest) == (1, [0], [1])
    assert next(asking.blocks(ready[:1] * 9, 26))[0].questions == asking.TOGETHER


def test_a_prompt_for_generation_has_no_automata():
    ready = [asking.ask(TEXT, "天", ["地"], "causal", LENGTHS, "cut")]
    size = asking.Size(1, 1, 26)
    made = asking.prompt(ready, size, mode="generative", limit=5, room=16, vocab=len(TEXT))
    assert isinstance(made, reading.Prompt) and made.runs is None and made.length_BP.tolist() == [[5]]


def test_a_page_shows_whatever_stands_in_it_as_text():
    given = ("<script>alert(1)</script>天地 & 月", "[bold]")
    answer = reader.Answer("天地", "<b>?", given, 0, (25, 27), 0.5, -1.0, (0.5, 0.1), (1,), (1,))
    page = highlight.page([answer, answer])
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;<mark>天地</mark> &amp; 月" in page
    assert "<h1>&lt;b&gt;?</h1>" in page and page.count("<mark>") == 2 and "50.0%" in page
    assert "no answer" in highlight.page([reader.Answer("", "?", given, None, None, 0.5, -1.0, (0.5, 0.1), (0, 1), ())])
    assert "&lt;i&gt;" in highlight.page([reader.Answer("<i>", "?", given, None, None, 0.5, -1.0, (0.5, 0.1), (), ())])
    assert highlight.text(answer, ("【", "】")).plain.endswith("<script>alert(1)</script>【天地】 & 月\n")


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*words, stdin: str | None = None):
        monkeypatch.setattr(sys, "argv", ["flaxgen", "read", *map(str, words)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


def test_the_command_answers_from_arguments_files_and_standard_input(command, made, folder, tmp_path):
    wanted = made(QUESTION, GIVEN)
    (tmp_path / "passages.txt").write_text("\n".join(GIVEN) + "\n", encoding="utf-8")
    (tmp_path / "passages.json").write_text(json.dumps({"passages": [{"passage": GIVEN[0]}, *GIVEN[1:]]}), encoding="utf-8")
    code, out, err = command(QUESTION, "--model", folder, "--passage", *GIVEN, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "") and told["text"] == wanted.text and told["span"] == list(wanted.span)
    assert command(QUESTION, "--model", folder, "--file", tmp_path / "passages.txt", "--json")[1] == out
    assert command(QUESTION, "--model", folder, "--file", tmp_path / "passages.json", "--json")[1] == out
    assert command(QUESTION, "--model", folder, "--json", stdin="\n".join(GIVEN))[1] == out
    code, out, _ = command(QUESTION, "--model", folder, "--passage", *GIVEN, "--html", tmp_path / "page.html")
    assert code == 0 and out.startswith(wanted.quote) and f"【{wanted.quote}】" in out
    assert f"<mark>{wanted.quote}</mark>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_file_of_questions_is_answered_whole(command, made, folder, tmp_path):
    asked = [
        {"question": QUESTION, "passages": GIVEN},
        {"question": "日月", "passages": [{"passage": "天地" * 9, "answer": ""}, "日", "月"]},
    ]
    (tmp_path / "all.json").write_text(json.dumps(asked), encoding="utf-8")
    code, out, err = command("--model", folder, "--file", tmp_path / "all.json", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["question"] for row in rows] == [QUESTION, "日月"] and rows[1]["cut"] == [0]
    assert "longer than the model reads, and cut: passage 1" in err


def test_passages_keep_the_numbers_of_the_users_list(command, made, folder, tmp_path):
    (tmp_path / "passages.txt").write_text(f"日月\n\n{GIVEN[0]}\n", encoding="utf-8")
    (tmp_path / "passages.json").write_text(json.dumps(["日月", "", GIVEN[0]]), encoding="utf-8")
    for name in ("passages.txt", "passages.json"):
        told = json.loads(command(QUESTION, "--model", folder, "--file", tmp_path / name, "--json")[1])
        assert len(told["chances"]) == 3 and told["passage"] == made(QUESTION, ["日月", "", GIVEN[0]]).passage


@pytest.mark.parametrize(
    ("facts", "marked"),
    [({}, False), ({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, True), ({"FORCE_COLOR": ""}, True)],
)
def test_the_answer_is_marked_wherever_colours_are_not_seen(command, made, folder, monkeypatch, facts, marked):
    for name, value in ({"FORCE_COLOR": "1", "TERM": "xterm", "COLORTERM": "truecolor"} | facts).items():
        monkeypatch.setenv(name, value)
    out = command(QUESTION, "--model", folder, "--passage", *GIVEN)[1]
    assert ("【" in out) == marked


def test_a_model_that_cannot_read_is_refused_by_its_folder(command, tmp_path):
    flaxgen.save(tmp_path / "lm", *model(segments=0), TEXT)
    code, _, err = command(QUESTION, "--model", tmp_path / "lm", "--passage", "天")
    assert code == 6 and f"{tmp_path}/lm cannot read" in err and "python -m train reading" in err


@pytest.mark.parametrize(
    ("words", "content", "message"),
    [
        ((" ", "--passage", "天"), None, "the question is empty"),
        ((QUESTION, "--passage", "天", "--file"), "[]", "both --passage and --file"),
        ((QUESTION, "--file"), "{", "is no JSON"),
        ((QUESTION, "--file"), '{"paragraphs": []}', 'wanted a list of texts, {"passages"'),
        ((QUESTION, "--file"), "[1]", "passages[0]: got 1, wanted a text"),
        ((QUESTION, "--file"), '[{"question": "a", "passages": []}]', "has questions of its own"),
        (("--file",), '["天"]', "no question given"),
        (("--file",), '[{"question": 3, "passages": []}]', "[0].question: got 3, wanted a text"),
        (("--file",), '[{"question": "a", "passages": ["b"]}, {"passages": []}]', "given.json[1] has no question"),
        (("--file",), '[{"question": " ", "passages": ["b"]}]', "[0].question is empty"),
        ((QUESTION, "--file"), '["天", "\\ud800"]', "which holds half a character (a lone surrogate)"),
        ((QUESTION, "--html", "no/such/page.html", "--model", "x", "--file"), '["天"]', "there is no folder"),
        ((QUESTION, "--html", ".", "--model", "x", "--file"), '["天"]', "is a folder"),
        ((QUESTION, "--file"), '["天"]', "no --model given, and no reader comes with flaxgen"),
    ],
)
def test_the_command_says_what_is_wrong(command, tmp_path, words, content, message):
    path = tmp_path / "given.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    code, out, err = command(*words, *([path] if content is not None else []))
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
