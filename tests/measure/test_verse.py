import numpy as np
import pytest

from flaxgen.measure import perplexity, verse


def test_lines_are_what_stands_between_stops_without_the_title():
    assert verse.lines("五绝《静夜思》床前明月光，疑是地上霜。") == ["床前明月光", "疑是地上霜"]
    assert verse.lines("今天天气不错！\n好") == ["今天天气不错", "好"]


def test_a_line_is_regular_when_it_is_as_long_as_the_first():
    assert verse.regular([["床前明月光", "疑是地上霜", "举头望月"], ["一二三四", "一"]]) == 0.5


def test_poems_without_a_second_line_are_refused():
    with pytest.raises(ValueError, match="no poem has a second line"):
        verse.regular([["床前明月光"]])


def test_copied_runs_are_known_and_new_ones_are_not():
    corpus = verse.grams([["床前明月光", "疑是地上霜"]])
    assert verse.known([["床前明月光"]], corpus) == 1
    assert verse.known([["床前明月夜"]], corpus) == 0.5
    assert verse.known([["举头望明月"]], corpus) == 0


def test_runs_do_not_cross_lines():
    assert len(verse.grams([["床前明", "月光疑"]])) == 0


def test_ideographs_of_both_halves_of_the_block_stay_apart():
    assert len(np.unique(verse.grams([["一一一一", "鿿鿿鿿鿿", "耀耀耀耀", "老老老老"]]))) == 4


def test_a_poem_that_says_a_line_twice_repeats_itself():
    assert verse.repeated([["床前明月光", "疑是地上霜", "床前明月光"]]) == pytest.approx(2 / 6)


def test_perplexity_of_even_chances_is_their_number():
    assert perplexity.perplexity(np.log(np.full((2, 3), 0.25))) == pytest.approx(4)
    assert perplexity.perplexity(np.log([0.5, 0.125]), np.asarray([1, 0])) == pytest.approx(2)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="wanted equal shapes"):
        perplexity.perplexity(np.zeros(3), np.zeros(2))
