"""The automaton of all runs of several rows, against a search for each run."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxgen.text import factors


def stands(row, run):
    return any(list(row[i : i + len(run)]) == list(run) for i in range(len(row) - len(run) + 1))


def walk(table, run):
    state = 0
    for token in run:
        state = table.after(state, token) if state >= 0 else -1
    return state


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=4))
def test_a_run_is_accepted_where_a_row_holds_it_and_its_state_knows_which(rows):
    made = factors.factors(rows)
    for run in itertools.chain.from_iterable(itertools.product(range(5), repeat=n) for n in range(1, 5)):
        state = walk(made.table, run)
        holds = [stands(row, run) for row in rows]
        assert (state >= 0) == any(holds)
        assert state < 0 or made.holds_QP[state].tolist() == holds


def test_whole_rows_are_accepted_and_there_are_few_states():
    noise = np.random.default_rng(3)
    rows = (noise.zipf(1.4, (10, 254)) % 3000).tolist()
    made = factors.factors(rows)
    assert all(made.holds_QP[walk(made.table, row), number] for number, row in enumerate(rows))
    assert len(made.table.left_Q) <= 2 * 10 * 254


def test_a_run_over_the_border_of_two_rows_is_refused():
    table = factors.factors([[5, 6, 5], [6, 7]]).table
    assert walk(table, [5, 6, 7]) == -1 and walk(table, [6, 7]) > 0


def test_rows_without_tokens_accept_nothing_but_the_empty_run():
    made = factors.factors([[], []])
    assert walk(made.table, [0]) == walk(made.table, [1]) == -1 and made.holds_QP.all()


def test_more_tokens_than_a_table_has_states_for_are_refused():
    with pytest.raises(ValueError, match="got 16,385 tokens, wanted at most 16,384 in all"):
        factors.factors([[1] * 16_385])
