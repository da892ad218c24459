"""Short rows run among themselves and long ones too, and no row knows of it."""

import dataclasses

import pytest

from flaxgen import jobs, rules
from flaxgen.serve import rooms, texts
from tests import leaks, serving, writers

PROMPTS = ["天地玄黄", "日月盈昃辰宿列张" * 4, "sunny day 天", "宇宙洪荒" * 7]


def made(writer, *widths: int) -> rooms.Rooms:
    return rooms.Rooms([writer.setup.chain(room=width, chunk=jobs.CHUNK) for width in widths], writer.setup.params, slots=2)


def requests(writer, prompts, tokens=9):
    return list(jobs.requests(writer.setup, jobs.job(writer.setup, prompts, rules.Rule(min_tokens=tokens), tokens=tokens), "plain"))


def drawn(found: rooms.Rooms, wanted) -> dict:
    for request in wanted:
        found.submit(request)
    rows = {}
    while found.busy:
        rows |= {row.name: (row.tokens, row.log_probs) for row in found.step(1)}
    return rows


@pytest.fixture(scope="module")
def writer():
    return writers.characters()


def test_a_row_runs_where_it_just_fits_and_its_bits_do_not_depend_on_the_others(writer):
    wanted, found = requests(writer, PROMPTS), made(writer, 32, 64)
    together = drawn(found, wanted)
    assert len(together) == len(PROMPTS) and all(one.moves > 0 for one in found.engines)
    for request in wanted:
        assert drawn(made(writer, 32, 64), [request]) == {request.name: together[request.name]}
    assert [len(request.tokens) + 9 <= 33 for request in wanted] == [True, False, True, False]


def test_the_last_token_needs_no_slot_and_what_fits_nowhere_is_refused(writer):
    found = made(writer, 32, 64)
    just, over = requests(writer, ["天" * 24, "天" * 25])
    found.submit(just)
    assert [len(one.queue) for one in found.engines] == [1, 0]
    found.submit(over)
    assert [len(one.queue) for one in found.engines] == [1, 1]
    with pytest.raises(ValueError, match="its answer of 34 tokens; this chain has room for 32"):
        made(writer, 32).submit(over)


def test_a_row_that_is_cancelled_leaves_either_room(writer):
    found = made(writer, 32, 64)
    for request in requests(writer, PROMPTS):
        found.submit(request)
    assert [(list(found.step(1)), found.running)[1] for _ in range(2)] == [4, 4]
    for name in range(len(PROMPTS)):
        found.cancel(name)
    assert not found.busy and found.running == 0 and found.slots == 4


def test_where_rows_run_in_either_room_one_joins_a_step_in_each_so_that_they_need_not_wait_for_many_prompts(writer):
    found, (short, long) = made(writer, 32, 64), requests(writer, PROMPTS[:2])
    found.submit(short)
    list(found.step(1))
    for name in "abc":
        found.submit(dataclasses.replace(long, name=name))
    assert [(list(found.step(1)), found.running)[1] for _ in range(2)] == [2, 3]


def test_a_server_of_two_rooms_compiles_nothing_once_it_is_warm(writer, monkeypatch):
    monkeypatch.setattr(texts, "SHORT", 32)
    served = serving.writing(writer, slots=2, queue=8)
    try:
        before = served.compilations()
        with served.client() as client:
            for prompt in PROMPTS:
                answer = client.post("/v1/completions", json={"prompt": prompt, "max_tokens": 9, "seed": 1})
                assert answer.status_code == 200
        assert served.compilations() == before
        leaks.check_nothing_left(served)
    finally:
        serving.stop(served)
