"""Couplets against the rules, counted by hand."""

import pytest

from flaxgen.measure import couplet


@pytest.mark.parametrize(
    ("upper", "lower", "broken"),
    [
        ("晚风摇树树还挺", "夜雨敲花花更香", set()),
        ("晚风摇树树还挺", "夜雨敲花草更香", {"repeats"}),
        ("晚风摇树树还挺", "夜夜敲花花更香", {"repeats"}),
        ("晚风摇树树还挺", "夜云敲花花更香", {"tones"}),
        ("晚风摇树树还挺", "夜雨敲花花更好", {"ends"}),
        ("晚风摇树树还挺", "夜雨摇花花更香", {"copied", "fresh"}),
        ("晚风摇树树还挺", "挺雨敲花花更香", {"fresh"}),
        ("天地，人", "雨花，鬼", set()),
        ("天地，人", "雨雪，鬼", {"tones"}),
        ("天地，人", "雨花，山", {"ends"}),
        ("，", "，", set()),
    ],
)
def test_each_rule_is_broken_alone(upper, lower, broken):
    assert couplet.broken(upper, lower) == broken


def test_either_reading_of_a_polyphone_counts_and_an_unknown_tone_breaks_nothing():
    assert couplet.broken("明月", "看看") == {"repeats"}
    assert couplet.broken("明月", "清X") == set()


def test_the_books_judge_differently():
    assert couplet.broken("风雨", "山国", "mandarin") == set() != couplet.broken("风雨", "山国", "pingshui") == {"ends"}


def test_violations_are_shares_of_couplets():
    pairs = [("晚风摇树树还挺", "夜雨敲花花更香"), ("晚风摇树树还挺", "夜雨摇花花更好")]
    assert couplet.violations(pairs) == {"copied": 0.5, "tones": 0, "ends": 0.5, "repeats": 0, "fresh": 0.5, "any": 0.5}
    assert couplet.copies([*pairs, ("春，到", "春，来")]) == 2
    with pytest.raises(ValueError, match="no couplet"):
        couplet.violations([])


def test_distinctness_counts_runs_inside_clauses():
    assert couplet.distinct(["天地天地", "天，地"], 1) == 2 / 6
    assert couplet.distinct(["天地天地", "天，地"], 2) == 2 / 3
    with pytest.raises(ValueError, match="no clause of 5 characters"):
        couplet.distinct(["天地天地"], 5)


def test_accuracy_leaves_punctuation_out():
    assert couplet.accuracy(["春，来", "花"], ["春，去", "草"]) == 1 / 3
    with pytest.raises(ValueError, match="no character"):
        couplet.accuracy(["，"], ["，"])
    with pytest.raises(ValueError, match="equally many"):
        couplet.accuracy(["春来"], ["春"])
