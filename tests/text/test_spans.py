"""Places of tokens: what they cut out of the text spells them again, on whatever Unicode hypothesis finds."""

import itertools

from hypothesis import example, given, settings
from test_wordpiece import TEXTS, TINY

from flaxgen.text import spans


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("1" * 201 + "Σa")
@example("İaΣ")
def test_pieces_are_the_tokens_of_the_text_in_their_order(string):
    found = spans.pieces(TINY, string)
    assert [piece.id for piece in found] == TINY.encode(string)
    assert all(0 <= piece.start < piece.end <= len(string) for piece in found)
    assert all(a.start <= b.start for a, b in itertools.pairwise(found))


def test_a_piece_cuts_out_what_it_stands_for():
    string = " 今天ABA。\u00adb2\u0301Ωtest 的"
    cuts = [string[piece.start : piece.end] for piece in spans.pieces(TINY, string)]
    assert cuts == ["今", "天", "ABA", "。", "b2\u0301Ωtest", "的"]  # the last word is unknown as a whole
    string = "ababb 1"
    assert [string[piece.start : piece.end] for piece in spans.pieces(TINY, string)] == ["aba", "bb", "1"]


def test_a_final_sigma_keeps_its_place():
    assert [(piece.start, piece.end) for piece in spans.pieces(TINY, "ΣΣ是ΣΣ")] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_a_run_of_tokens_is_found_where_it_first_stands():
    assert spans.place([5, 6, 5, 6, 7], [5, 6]) == 0
    assert spans.place([5, 6, 5, 6, 7], (5, 6, 7)) == 2
    assert spans.place([5, 6], [6, 5]) is None
    assert spans.place([5], [5, 6]) is None
