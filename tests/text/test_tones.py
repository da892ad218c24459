"""Tables of tones, and what a lower line owes the upper one."""

import json

import pytest

from flaxgen.text import antithesis, tones


@pytest.mark.parametrize("book", ["mandarin", "pingshui"])
def test_tables_know_level_oblique_and_both(book):
    table = tones.load(book)
    assert table["风"] == table["花"] == table["云"] == "平" and table["月"] == table["雨"] == table["树"] == "仄"
    assert table["看"] == "平仄" and "，" not in table
    assert set(table.values()) == {"平", "仄", "平仄"}


def test_the_books_differ_where_the_entering_tone_became_level():
    assert tones.load("mandarin")["国"] == "平" and tones.load("pingshui")["国"] == "仄"


def test_traditional_forms_are_there_and_a_simplified_one_has_the_readings_of_all_of_its_own():
    table = tones.load("pingshui")
    assert table["雲"] == table["云"] == "平"
    assert table["寧"] == "平" and table["宁"] == "平仄"


def test_neutral_readings_are_no_tone():
    table = tones.load("mandarin")
    assert table["了"] == "仄" and "们" in table


def test_no_character_stands_twice_in_a_table(request):
    for book in ("mandarin", "pingshui"):
        path = request.config.rootpath / "flaxgen" / "bundled" / "tones" / f"{book}.json"
        characters = "".join(json.loads(path.read_text(encoding="utf-8")).values())
        assert len(characters) == len(set(characters)) > 10_000


def test_another_book_is_refused():
    with pytest.raises(ValueError, match="'guangyun': wanted one of 'mandarin', 'pingshui'"):
        tones.load("guangyun")
    with pytest.raises(ValueError, match="book='guangyun'"):
        antithesis.Rules(book="guangyun")
    with pytest.raises(ValueError, match="fresh=None"):
        antithesis.Rules(fresh=None)


def test_punctuation_cuts_clauses_wherever_it_stands():
    assert antithesis.clauses("春到，花开") == [(0, 2), (3, 5)]
    assert antithesis.clauses("，春！？到。") == [(1, 2), (4, 5)]
    assert antithesis.clauses("，") == [] and antithesis.clauses("春") == [(0, 1)]


def test_tones_oppose_at_every_second_place_and_at_the_last_of_a_clause():
    assert antithesis.beats("一二三四五六七") == [1, 3, 5, 6]
    assert antithesis.beats("一二三四五") == [1, 3, 4]
    assert antithesis.beats("一二三四，一二三") == [1, 3, 6, 7]


TABLE = dict.fromkeys("天风花", "平") | dict.fromkeys("地雨树", "仄") | {"看": "平仄"}


@pytest.mark.parametrize(
    ("upper", "rules", "wanted"),
    [
        ("天天地地雨", antithesis.Rules(), {1: "仄", 3: "平", 4: "平"}),
        ("天天地地雨", antithesis.Rules(tones=False), {4: "平"}),
        ("天天地地雨", antithesis.Rules(ends=False), {1: "仄", 3: "平"}),
        ("天天地地雨", antithesis.ARTICLE, {}),
        # Open or unknown tones ask nothing, but the end is level all the same; below a level end it is oblique.
        ("看看X龘看", antithesis.Rules(), {4: "平"}),
        ("地地雨雨花", antithesis.Rules(), {1: "平", 3: "平", 4: "仄"}),
        # The end of an inner clause is a beat as any other.
        ("天地，地天", antithesis.Rules(), {1: "平", 4: "仄"}),
        ("天地，地看", antithesis.Rules(), {1: "平", 4: "平"}),
    ],
)
def test_what_is_asked_of_the_lower_line(upper, rules, wanted):
    assert antithesis.wanted(upper, rules, TABLE) == wanted
