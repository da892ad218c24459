"""Couplets: upper lines in, lower lines out, with a tiny untrained model."""

import functools
import itertools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flaxgen
from flaxgen import couplets
from flaxgen.errors import Mismatch
from flaxgen.measure import couplet
from flaxgen.models import config as sizes
from flaxgen.models import gated, gated_config, transformer
from flaxgen.text import antithesis, single, tones

WORDS = "天地风雨花树山水云月春秋日夜江河红绿来去高低人鬼晚摇还挺敲香更好，。A"
TEXT = single.Single(("[UNK]", *WORDS))
SWITCHES = ("tones", "ends", "repeats", "fresh")


def made(words: str = WORDS) -> couplets.Couplets:
    text = single.Single(("[UNK]", *words))
    model = gated.Gated(gated_config.Config(vocab=len(text) + 2, width=6, layers=2))  # two rows in reserve
    params = model.init(jax.random.key(3), np.zeros((1, 1), np.int32))
    return couplets.Couplets(model, jax.tree.map(lambda leaf: leaf * 8, params), text)


@pytest.fixture(scope="module")
def writer() -> couplets.Couplets:
    return made()


def test_every_answer_obeys_the_rules_and_none_is_likelier_than_the_one_before(writer):
    answers = writer("晚风摇树树还挺", best=7)
    assert len({one.text for one in answers}) == 7
    assert all(couplet.broken(one.upper, one.text) == set() for one in answers)
    scores = [one.score for one in answers]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("switches", list(itertools.product([True, False], repeat=4)))
def test_a_rule_that_is_switched_on_is_kept_and_the_best_answer_is_the_best_of_all(switches):
    writer = made("天地风雨花，晚A看")
    rules = antithesis.Rules(**dict(zip(SWITCHES, switches, strict=True)))
    asked = {name for name, on in zip(SWITCHES, switches, strict=True) if on} | {"copied"}
    upper = "天晚，天雨"
    (log_prob_TV,) = writer.log_probs([upper])
    wanted = []
    for one in itertools.product("天地风雨花晚看", repeat=4):
        lower = f"{one[0]}{one[1]}，{one[2]}{one[3]}"
        if not couplet.broken(upper, lower) & asked:
            wanted.append((sum(log_prob_TV[place, writer.text.encode(lower[place])[0]] for place in (0, 1, 3, 4)), lower))
    wanted.sort(reverse=True)
    if not wanted:
        with pytest.raises(ValueError, match="no lower line"):
            writer(upper, rules=rules)
        return
    got = writer(upper, best=9, rules=rules)
    assert [one.text for one in got] == [lower for _, lower in wanted[:9]]
    np.testing.assert_allclose([one.score for one in got], [score for score, _ in wanted[:9]], rtol=1e-5)


def test_the_articles_rule_is_the_likeliest_other_character_at_every_place(writer):
    upper = "天地风雨花"
    (log_prob_TV,) = writer.log_probs([upper])
    lower = ""
    for place, above in enumerate(upper):
        order = [WORDS[number - 1] for number in np.argsort(-log_prob_TV[place]) if 0 < number <= len(WORDS)]
        lower += next(one for one in order if one != above and one not in "，。A")
    assert writer(upper, rules=couplets.ARTICLE)[0].text == lower


def test_lines_of_several_lengths_are_answered_as_each_alone(writer):
    lines = ["天地", "春风秋月", "天雨", "山", *["江河日夜"] * 9]
    together, alone = writer(lines), [writer(line) for line in lines]
    assert [[one.text for one in several] for several in together] == [[one.text for one in several] for several in alone]
    np.testing.assert_allclose([several[0].score for several in together], [several[0].score for several in alone], rtol=1e-5)
    assert writer([]) == []


def test_rows_are_read_by_length_without_padding(writer, monkeypatch):
    seen = []
    begin = couplets.loop.begin
    monkeypatch.setattr(couplets.loop, "begin", lambda *given, **settings: seen.append(given[3].shape) or begin(*given, **settings))
    writer(["天地"] * 65 + ["山"] * 9 + ["天地风"])
    assert sorted(seen) == [(1, 1), (1, 2), (1, 3), (8, 1), (64, 2)]


def test_punctuation_stays_as_it_was_typed_and_blanks_go(writer):
    answer = writer(" 天 地,山　水。")[0]
    assert answer.upper == "天地,山水。" and answer.text[2] == "," and answer.text[5] == "。" and len(answer.text) == 6
    assert writer("天地，山水。")[0].text == answer.text.replace(",", "，")


def test_alternatives_are_the_likeliest_characters_that_the_rules_allow_there(writer):
    answer = writer("天雨，花", alternatives=3, rules=antithesis.Rules(repeats=False))[0]
    assert [len(one) for one in answer.alternatives] == [3, 3, 0, 3]
    for place, likeliest in enumerate(answer.alternatives):
        assert all(one not in "天雨花" for one, _ in likeliest)
        assert likeliest == [] or likeliest[0][0] == answer.text[place]
        assert [chance for _, chance in likeliest] == sorted((chance for _, chance in likeliest), reverse=True)
    assert all("平" in tones.load()[one] for one, _ in answer.alternatives[1])


def test_characters_the_model_does_not_know_are_named_and_answered(writer):
    answer = writer("天龘龘靐")[0]
    assert answer.unknown == "龘靐" and answer.text[1] == answer.text[2] != answer.text[3]


def test_no_answer_ever_holds_the_unknown_one_a_letter_or_a_reserved_row(writer):
    answers = writer("A地", best=2000, rules=couplets.ARTICLE)
    hanzi = set(WORDS) - set("，。A")
    assert len(answers) == len(hanzi) * (len(hanzi) - 1)
    assert set("".join(one.text for one in answers)) == hanzi


@pytest.mark.parametrize(
    ("line", "options", "says"),
    [
        ("", {}, "no character to answer"),
        (" ，。", {}, "no character to answer"),
        ("天" * 65, {}, "65 characters, at most 64"),
        ("天地\n山水", {}, "several lines"),
        ([3], {}, "line 0: got 3"),
        (["天", "龘"], {}, "line 1: '龘': the model knows none of its characters"),
        ("龘，靐", {}, "^'龘，靐': the model knows none of its characters"),
        (5, {}, "line=5: wanted the upper line"),
        (None, {}, "line=None"),
        ("天", {"best": 1.5}, "best=1.5"),
        ("天", {"best": 0}, "best=0"),
        ("天", {"best": True}, "best=True"),
        ("天", {"alternatives": -1}, "alternatives=-1"),
        ("天", {"rules": "none"}, "rules='none'"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(writer, line, options, says):
    with pytest.raises(ValueError, match=says):
        writer(line, **options)


def test_a_line_that_cannot_be_answered_is_told_in_its_place_and_the_others_are_answered(writer):
    found = writer.each(["天地", "龘", None, "山水"])
    assert [type(one) for one in found] == [list, ValueError, ValueError, list]
    assert found[0] == writer("天地") and found[3] == writer("山水") and type(found[0][0].score) is float


def test_a_folder_holds_a_couplet_writer(writer, tmp_path):
    flaxgen.save(tmp_path / "model", writer.model, writer.params, writer.text)
    loaded = flaxgen.Couplets.load(tmp_path / "model")
    assert loaded("春风秋月")[0] == writer("春风秋月")[0]


def test_another_model_or_one_without_a_vocabulary_is_refused(writer):
    with pytest.raises(Mismatch, match="no vocabulary"):
        couplets.Couplets(writer.model, writer.params, None)
    other = transformer.Transformer(
        sizes.Config(vocab=7, positions=5, width=4, heads=2, layers=1, hidden=8, wiring="pre", activation="gelu")
    )
    with pytest.raises(Mismatch, match="no couplet writer"):
        couplets.Couplets(other, {}, TEXT)


def test_damaged_weights_are_said(writer):
    broken = couplets.Couplets(writer.model, jax.tree.map(lambda leaf: leaf * np.nan, writer.params), writer.text)
    with pytest.raises(FloatingPointError, match="not finite"):
        broken("天地")


@settings(max_examples=40, deadline=None)
@given(st.text("天地风雨花树看龘A，。", min_size=1, max_size=6).filter(lambda line: set(line) - set("龘，。")))
def test_no_rule_is_ever_broken_whatever_the_upper_line(line):
    for answer in everything()(line, best=2):
        assert couplet.broken(line, answer.text) == set()


@functools.cache
def everything() -> couplets.Couplets:
    return made("".join(dict.fromkeys([*"天地风雨花树看A，。", *list(tones.load())[::200]])))


def test_the_bundled_model_answers_the_articles_prompts_by_the_rules():
    lines = ["晚风摇树树还挺", "今天天气不错", "鱼跃此时海", "只有香如故", "科学空间"]
    for (answer,) in couplets.Couplets()(lines):
        assert couplet.broken(answer.upper, answer.text) == set() and answer.unknown == ""


@pytest.mark.shared
def test_a_thousand_test_lines_have_no_copied_character_and_no_broken_rule(shared):
    folder = shared / "data" / "couplet"
    lines = ["".join(line.split()) for line in (folder / "test_in.txt").read_text(encoding="utf-8").splitlines()[:1000]]
    seen = single.Single.build([*lines, *(folder / "test_out.txt").read_text(encoding="utf-8").splitlines()], least=1)
    pairs = [(several[0].upper, several[0].text) for several in made("".join(seen.tokens[1:]))(lines)]
    assert couplet.copies(pairs) == 0 and couplet.violations(pairs)["any"] == 0


@pytest.fixture
def command(monkeypatch, capsys, writer, tmp_path):
    """Runs `flaxgen couplet` with the tiny model: (exit code, standard output, standard error)."""
    from flaxgen import cli

    monkeypatch.setattr(couplets.Couplets, "load", classmethod(lambda cls, folder: writer))

    def run(*words, stdin: str | None = None):
        import io

        monkeypatch.setattr("sys.argv", ["flaxgen", "couplet", *map(str, words), "--model", "tiny"])
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


def test_the_command_prints_the_couplet(command, writer):
    code, out, err = command("晚风摇树树还挺")
    assert (code, err) == (0, "") and out == f"晚风摇树树还挺\n{writer('晚风摇树树还挺')[0].text}\n"
    assert command(stdin="晚风摇树树还挺\n\n")[1] == out


def test_several_answers_come_with_scores_and_alternatives(command, writer):
    answers = writer("春风秋月", best=3, alternatives=2)
    code, out, _ = command("春风秋月", "--best", 3, "--alternatives", 2)
    rows = out.splitlines()
    assert code == 0 and rows[1] == f"{answers[0].text}  {answers[0].score:.2f}" and len(rows) == 1 + 3 + 4
    assert rows[4].startswith(f"  春  {answers[0].alternatives[0][0][0]} 0.")


def test_lines_of_a_file_that_cannot_be_answered_are_told_by_number_and_the_others_are_answered(command, writer, tmp_path):
    (tmp_path / "upper.txt").write_text("天地\n\n龘\n山水\n", encoding="utf-8")
    code, out, err = command("--file", tmp_path / "upper.txt")
    assert code == 0 and out.split() == ["天地", writer("天地")[0].text, "山水", writer("山水")[0].text]
    assert f"{tmp_path}/upper.txt line 3: '龘': the model knows none" in err and "1 of 3 lines are not answered" in err
    code, out, err = command(stdin="\n龘\n")
    assert code == 2 and out == "" and "line 2: '龘'" in err


def test_help_reads_well_where_rules_are_switched_off(command):
    code, out, _ = command("--help")
    assert code == 0 and "[LINE ...]" in out and "(by default asked for)" in out and "(default: True)" not in out


def test_rules_are_switched_off_one_by_one(command, writer):
    every = [f"--no-{name}" for name in SWITCHES]
    assert command("天地风雨花", *every)[1].split()[1] == writer("天地风雨花", rules=couplets.ARTICLE)[0].text
    report = json.loads(command("天地风雨花", "--no-fresh", "--json")[1])
    answer = writer("天地风雨花", rules=antithesis.Rules(fresh=False))[0]
    assert report == {"upper": "天地风雨花", "answers": [{"text": answer.text, "score": answer.score}], "unknown": ""}


def test_unknown_characters_and_long_lines_are_noted_on_standard_error(command):
    code, out, err = command("天龘", "山水" * 9, "--no-repeats")
    assert code == 0 and len(out.split()) == 4
    assert "does not know 龘" in err and "18 characters" in err


def test_the_command_draws_a_picture(command, tmp_path):
    pytest.importorskip("PIL")
    pytest.importorskip("pylopdf_fonts_zh_cn")
    code, _, err = command("春风秋月", "--png", tmp_path / "a.png", "--ink", "gold")
    assert (code, err) == (0, "") and (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([""], "empty"),
        (["。"], "no character to answer"),
        (["天地", "--file", "x"], "keep one of them"),
        (["天地", "--ink", "gold"], "--png FILE"),
        (["天地", "山水", "--png", "a.png"], "2 lines"),
        (["天地", "--png", "a.jpg"], "ends in .png"),
        (["天地", "--best", "0"], "best=0"),
        (["天" * 65], "at most 64"),
        (["天地", "龘"], "line 2: '龘': the model knows none"),
        (["天地", "--png", "."], "ends in .png"),
        (["天地", "--png", "no/such/a.png"], "there is no folder"),
        (["天地", "--png", "a.png", "--font", "no.ttf"], "the font no.ttf cannot be read"),
    ],
)
def test_a_mistake_on_the_command_line_is_answered_in_words(command, words, says):
    code, out, err = command(*words)
    assert code == 2 and out == "" and says in err and "Traceback" not in err
