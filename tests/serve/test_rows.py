"""Rows of the engine as a server follows them: who joins when, and what is told of each token."""

import numpy as np
import pytest

from flaxgen import engine, jobs, rules
from flaxgen.serve import choices
from tests import writers

PROMPTS = ["天地玄黄", "日月盈昃辰宿列张", "sunny day 天", "宇", "洪荒"]


@pytest.fixture(scope="module")
def writer():
    return writers.characters()


def running(writer, slots: int = 4) -> tuple[engine.Engine, list[engine.Request]]:
    job = jobs.job(writer.setup, PROMPTS, rules.Rule(temperature=0, min_tokens=9), tokens=9)
    chain = writer.setup.chain(room=64, chunk=jobs.CHUNK, alternatives=2)
    return engine.Engine(chain, writer.setup.params, slots=slots), list(jobs.requests(writer.setup, job))


def busy(found: engine.Engine) -> int:
    return sum(request is not None for request in found.rows)


def test_as_many_rows_join_a_step_as_are_let_in_and_else_as_find_a_slot(writer):
    found, requests = running(writer)
    for request in requests:
        found.submit(request)
    told = [(list(found.step(4, joins)), busy(found), found.moves)[1:] for joins in (1, 0, 2, None)]
    assert told == [(1, 1), (1, 2), (3, 3), (4, 7)]
    with pytest.raises(ValueError, match="slots=0: wanted a whole number of at least 1"):
        running(writer, slots=0)


def test_when_rows_join_changes_no_bit_of_them(writer):
    def facts(joins):
        found, requests = running(writer)
        for request in requests:
            found.submit(request)
        rows = {}
        while found.busy:
            rows |= {row.name: (row.tokens, row.log_probs, row.top) for row in found.step(8, joins)}
        return rows

    assert facts(1) == facts(None) and len(facts(1)) == len(PROMPTS)


def test_a_row_is_whole_and_gives_what_came_after_any_place(writer):
    found, requests = running(writer)
    found.submit(requests[0])
    seen, top = [], []
    while found.busy:
        (row,) = found.step(2)
        new = row.after(len(seen))
        assert len(new) in (2, 3) and row.tokens == seen + new.tokens and len(new.top) == len(new.log_probs) == len(new)
        seen, top = row.tokens, top + new.top
    assert (row.finish, row.top, len(row)) == ("length", top, 9)


def grown(choice: choices.Choice, ids: list[int], *, finish: str = "length") -> list[dict]:
    """The pieces of a choice whose row grows token by token."""
    found = []
    for at in range(1, len(ids) + 1):
        facts = np.array(ids[:at]), -np.arange(at), finish if at == len(ids) else "running", at
        choice.grow(engine.Row(0, *facts, np.zeros((at, 2), int), np.zeros((at, 2))))
        found += [piece] if (piece := choice.piece()) else []
    return found


def test_of_a_row_that_grows_only_what_is_new_is_read_and_the_likeliest_tokens_only_where_they_are_asked_for(writer, monkeypatch):
    read, top = [], engine.Row.top.fget
    monkeypatch.setattr(engine.Row, "tokens", property(lambda row: read.append(len(row)) or row.token_N.tolist()))
    monkeypatch.setattr(engine.Row, "top", property(lambda row: read.append(("top", len(row))) or top(row)))
    for logprobs, new in ((None, {1}), (0, {1}), (2, {1, ("top", 1)})):
        read.clear()
        grown(choices.Choice(0, writer.text, [5], rules.Rule(), logprobs, None), [7, 8, 9, 10])
        assert set(read) == new


def test_a_token_begins_where_its_text_does_though_that_is_held_back():
    text = writers.byte_pairs().text
    ids = list("a天bcd".encode())  # the tokens are the bytes in their order

    def facts(**wishes):
        pieces = grown(choices.Choice(0, text, [65], rules.Rule(**wishes), 0, None), ids)
        told = [(piece["text"], *piece["logprobs"]["text_offset"]) for piece in pieces]
        return told, "".join(token for piece in pieces for token in piece["logprobs"]["tokens"])

    assert facts() == ([("a", 0), ("天", 1, 1, 1), ("b", 2), ("c", 3), ("d", 4)], "a" + "".join(map(_byte, ids[1:4])) + "bcd")
    assert facts(stop=("bcx",))[0] == [("a", 0), ("天", 1, 1, 1), ("bcd", 2, 3, 4)]


def _byte(value: int) -> str:
    return f"bytes:\\x{value:02x}"


def test_the_tokens_of_a_stop_string_are_not_told_nor_is_its_text():
    text = writers.byte_pairs().text
    choice = choices.Choice(0, text, [65], rules.Rule(stop=("bc",)), 0, None)
    pieces = grown(choice, list(b"xabc"), finish="stop")
    assert [(piece["text"], piece["logprobs"]["tokens"]) for piece in pieces] == [("x", ["x"]), ("a", ["a"]), ("", [])]
    assert choice.tokens == 4 and pieces[-1]["finish_reason"] == "stop"


def test_an_echoed_prompt_is_told_whole_before_the_first_token(writer):
    ids = writer.text.encode("sunny day 天")
    for said, offsets in (("sunny day天", [0, 3, 5, 9]), ("sun", [0, 2, 2, 2])):
        choice = choices.Choice(0, writer.text, ids, rules.Rule(), 0, (said, ids, [(None, [])] + [(-1.0, [])] * 3))
        first, *rest = [choice.piece(), *grown(choice, writer.text.encode("地玄"))]
        assert (first["text"], first["logprobs"]["text_offset"]) == (said, offsets)
        assert [piece["logprobs"]["text_offset"] for piece in rest] == [[len(said)], [len(said) + 1]]
