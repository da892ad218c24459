import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from train import packing

END = 26
documents = st.lists(st.lists(st.integers(0, 25), max_size=40), max_size=30)


def arrays(texts):
    return [np.array([*text, END], np.int32) for text in texts]


def letters(*texts):
    return arrays([ord(character) - ord("a") for character in text] for text in texts)


def test_a_row_holds_whole_documents():
    (row,) = packing.rows(letters("abc", "defg"), 10, "packed")
    assert sorted(map(tuple, row)) == [(0, 1, 2, END), (3, 4, 5, 6, END)]


def test_a_document_wider_than_a_row_is_cut_so_that_every_token_is_a_target_once():
    rows = list(packing.rows(letters("abcdefghijklmnopqrstuvwxyz"), 10, "packed"))
    assert [token for row in rows for token in row[0][1:].tolist()] == [*range(1, 27)]
    assert [len(row[0]) for row in rows] == [10, 10, 9]


@hypothesis.given(documents, st.integers(2, 20))
def test_packing_loses_no_token_and_fills_no_row_over(texts, width):
    rows = list(packing.rows(arrays(texts), width, "packed"))
    assert all(0 < sum(map(len, row)) <= width for row in rows)
    targets = collections.Counter(token for row in rows for piece in row for token in piece[1:].tolist())
    assert targets == collections.Counter(token for text in texts for token in [*text, END][1:])


@hypothesis.given(documents, st.integers(2, 20))
def test_the_same_documents_give_the_same_rows(texts, width):
    first, second = ([[piece.tolist() for piece in row] for row in packing.rows(arrays(texts), width, "packed")] for _ in range(2))
    assert first == second


def test_rows_are_fuller_than_those_of_a_packer_that_takes_what_comes():
    sizes = np.random.default_rng(0).integers(20, 70, 2000)
    plain, left = 0, 0
    for size in sizes:
        plain, left = (plain, left - size) if size <= left else (plain + 1, 193 - size)
    rows = list(packing.rows([np.zeros(size, np.int32) for size in sizes], 193, "packed"))
    assert sum(sizes) > 0.97 * 193 * len(rows)
    assert len(rows) < 0.92 * plain


def test_one_document_a_row_is_cut_and_leaves_the_last_place_empty():
    rows = list(packing.rows(letters("abcdefghijklmn", "abc", "abcdefghi", ""), 10, "single"))
    assert [row[0].tolist() for row in rows] == [[*range(9)], [0, 1, 2, END], [*range(9)]]


def test_another_word_for_rows_is_named():
    with pytest.raises(ValueError, match="rows=dense: wanted packed or single"):
        packing.rows([], 10, "dense")
