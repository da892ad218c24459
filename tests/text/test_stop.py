"""Stop strings in a stream, under every cut."""

import itertools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxgen.text import stop

strings = st.lists(st.text("ab今", min_size=1, max_size=4), min_size=1, max_size=4)


def wanted(text, found) -> str:
    return text[: min((place for s in found if (place := text.find(s)) >= 0), default=len(text))]


def streamed(pieces, found) -> tuple[str, bool]:
    stops, shown = stop.Stops(found), ""
    text = "".join(pieces)
    for piece in pieces:
        shown += stops.push(piece)
        assert wanted(text, found).startswith(shown), "what has been shown can no longer be taken back"
    return shown + stops.finish(), stops.hit


@given(found=strings, text=st.text("ab今", max_size=7))
@settings(max_examples=150, deadline=None)
@example(found=["abab", "ba"], text="aababb")
@example(found=["aab"], text="aaab")
def test_a_text_ends_before_its_first_stop_string_under_every_cut(found, text):
    for size in range(len(text) + 1):
        for cuts in itertools.combinations(range(1, len(text)), size):
            pieces = [text[i:j] for i, j in itertools.pairwise([0, *cuts, len(text)])]
            assert streamed(pieces, found) == (wanted(text, found), any(s in text for s in found))


@pytest.mark.nightly
def test_a_text_ends_before_its_first_stop_string_at_length():
    draw = random.Random(0)
    for _ in range(100_000):
        found = ["".join(draw.choices("ab", k=draw.randrange(1, 6))) for _ in range(draw.randrange(1, 4))]
        pieces = ["".join(draw.choices("abc", k=draw.randrange(4))) for _ in range(draw.randrange(8))]
        assert streamed(pieces, found)[0] == wanted("".join(pieces), found)


def test_no_part_of_a_stop_string_is_shown_and_the_rest_at_once():
    stops = stop.Stops(["\n\nUser:", "END"])
    assert [stops.push(piece) for piece in ["a\n", "b E", "N", "X\n\nUs", "er", ": c", "d"]] == ["a", "\nb ", "", "ENX", "", "", ""]
    assert stops.hit and stops.finish() == "" and stops.push("more") == ""


def test_what_is_held_back_comes_at_the_end():
    stops = stop.Stops(["abc"])
    assert (stops.push("xab"), stops.finish(), stops.hit) == ("x", "ab", False)
    stops = stop.Stops(["abcd", "bc"])
    assert (stops.push("xabc"), stops.hit, stops.finish(), stops.hit) == ("x", False, "a", True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "got no text, wanted texts of one character or more"),
        (["a", ""], "got an empty text"),
        ("ab", "wanted a list of texts"),
        ([3], "wanted a list of texts"),
        (["a\ufffd"], "stands for bytes that are no character"),
        (["a", "\ud800"], "half a surrogate pair"),
    ],
)
def test_what_cannot_stop_a_text_is_refused(given, message):
    with pytest.raises(ValueError, match=f"stop: {message}" if message[0] == "g" else message):
        stop.checked(given)
