"""What a server keeps of patterns and stop strings that clients send."""

import concurrent.futures

from flaxgen.text import tables
from tests import writers


def kept(text) -> list[tables.Table]:
    return [table for table in text.tables.values() if isinstance(table, tables.Table)]


def size(table: tables.Table) -> int:
    return sum(array.nbytes for array in table)


def test_tables_of_many_patterns_are_bounded_by_their_bytes_and_the_latest_stays(monkeypatch):
    text = writers.byte_pairs().text
    one = size(tables.constraint(text, regex="[a-z]{500}"))
    monkeypatch.setattr(tables, "_KEPT_BYTES", 5 * one)
    for number in range(12):
        found = tables.constraint(text, regex=f"[a-z]{{{490 + number}}}")
        assert sum(map(size, kept(text))) <= 5 * one and tables.constraint(text, regex=f"[a-z]{{{490 + number}}}") is found
    assert len(kept(text)) in (4, 5)
    monkeypatch.setattr(tables, "_KEPT_BYTES", one // 2)
    assert kept(text) and tables.constraint(text, regex="[a-z]{520}") is tables.constraint(text, regex="[a-z]{520}")
    assert len(kept(text)) == 1


def test_threads_that_ask_for_more_patterns_than_are_kept_all_get_theirs(monkeypatch):
    text = writers.byte_pairs().text
    monkeypatch.setattr(tables, "_KEPT", 2)

    def asked(number: int) -> int:
        return len(tables.constraint(text, regex=f"a{{{1 + number % 5}}}").left_Q)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(asked, range(400))) == [2 + number % 5 for number in range(400)]
