"""Prompts as one padded batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxgen.text import prompt


def test_rows_are_padded_on_the_right_to_the_smallest_width():
    token_BT, length_B = prompt.batch([[5, 6, 7], [8]], vocab=9, positions=64, pad=2)
    assert token_BT.shape == (2, 16) and token_BT.dtype == length_B.dtype == np.int32
    assert token_BT[:, :4].tolist() == [[5, 6, 7, 2], [8, 2, 2, 2]]
    assert (token_BT[:, 4:] == 2).all()
    assert length_B.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("longest", "widths"), [(1024, (16, 32, 64, 128, 256, 512, 1024)), (100, (16, 32, 64, 100)), (17, (16, 17)), (16, (16,)), (5, (5,))]
)
def test_widths_are_powers_of_two_up_to_the_context(longest, widths):
    assert prompt.buckets(longest) == widths


@given(lengths=st.lists(st.integers(1, 100), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_every_prompt_lies_whole_in_its_row(lengths):
    prompts = [[1 + i % 7 for i in range(n)] for n in lengths]
    token_BT, length_B = prompt.batch(prompts, vocab=8, positions=100)
    assert token_BT.shape[1] in prompt.buckets(100)
    assert token_BT.shape[1] == min(width for width in prompt.buckets(100) if width >= max(lengths))
    assert [row[:n].tolist() for row, n in zip(token_BT, length_B, strict=True)] == prompts
    assert all((row[n:] == 0).all() for row, n in zip(token_BT, length_B, strict=True))


def test_own_widths_are_used_as_they_are():
    assert prompt.batch([[1] * 5], vocab=2, positions=64, widths=(48, 4, 8))[0].shape == (1, 8)


def test_arrays_of_ids_do_as_lists_do():
    token_BT, _ = prompt.batch(np.array([[3, 1], [2, 2]], np.int64), vocab=4, positions=8)
    assert token_BT[:, :2].tolist() == [[3, 1], [2, 2]]


WRONG = {
    "none": ([], {}, "prompts: got none"),
    "empty": ([[1], []], {}, "prompt 1: it is empty"),
    "past the vocabulary": ([[1], [2, 9, 11]], {}, "prompt 1: 2 ids are out of range, first 9 at place 1; wanted 0 to 8"),
    "negative": ([[-1]], {}, "prompt 0: 1 ids are out of range, first -1 at place 0"),
    "huge": ([[2**40]], {}, "first 1099511627776"),
    "huger": ([[2**80]], {}, "got object of shape"),
    "too long": ([[1] * 33], {}, "prompt 0: 33 ids and 0 new tokens make 33, the model's context holds 32"),
    "too long with what is asked for": ([[1] * 20], {"new": 13}, "20 ids and 13 new tokens make 33"),
    "text": (["今天"], {}, "prompt 0: got text, '今天'"),
    "a text": ("今天", {}, "got text"),
    "fractions": ([[1.0]], {}, "got float64"),
    "truths": ([[True]], {}, "got bool"),
    "ids alone": ([1, 2], {}, "wanted a list of whole numbers"),
    "nested": ([[[1], [2]]], {}, "of shape .2, 1."),
    "ragged": ([[[1], [2, 3]]], {}, "lists of several lengths"),
    "pad": ([[1]], {"pad": 9}, "pad: got 9"),
    "widths": ([[1] * 9], {"widths": (4, 8)}, "none of which holds the longest prompt of 9"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_prompt_is_refused_with_its_numbers(name):
    prompts, more, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        prompt.batch(prompts, vocab=9, positions=32, **more)
