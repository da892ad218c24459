"""More than the server can do, deadlines, and models that fail: refusals that say when to ask again, and nobody else's text is touched."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import threading
import time

import httpx
import pytest

import flaxgen
from flaxgen import weights
from flaxgen.serve import lane, refusal
from tests import leaks, serving, writers

SLOTS, QUEUE = 4, 12
PROMPTS = ("天地", "日月盈昃", "sunny day", "宇宙洪荒日月盈昃辰宿列张")


@pytest.fixture
def small():
    """A server that only writes, for a test that breaks it."""
    found = serving.writing(writers.characters(), slots=SLOTS, queue=QUEUE)
    yield found
    serving.stop(found)


def body(number: int, tokens: int = 12) -> dict:
    return {"prompt": PROMPTS[number % len(PROMPTS)], "seed": number, "max_tokens": tokens, "min_tokens": tokens}


def post(client, asked: dict):
    return client.post("/v1/completions", json=asked)


def text(answer) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def refused(answer, status: int, code: str) -> bool:
    error = answer.json()["error"]
    return (answer.status_code, error["code"]) == (status, code) and int(answer.headers["retry-after"]) >= 1


class Most(threading.Thread):
    """The most rows that there were at once, looked at all the time."""

    def __init__(self, texts):
        super().__init__(daemon=True)
        self.texts, self.live, self.running, self.over = texts, 0, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.0005):
            self.live, self.running = max(self.live, self.texts.live), max(self.running, self.texts.running)


@pytest.mark.parametrize("seconds", [1, pytest.param(600, marks=pytest.mark.nightly)])
def test_four_times_what_it_can_hold_gives_whole_texts_or_refusals_that_say_when_to_ask_again(served, seconds):
    texts, settings = served.models.completions.texts, served.settings
    capacity = settings.slots + settings.queue
    with served.client() as client:
        golden = [text(post(client, body(number))) for number in range(24)]
    end, seen, seconds_of = time.monotonic() + seconds, collections.Counter(), []

    def ask(client, number: int) -> None:
        while time.monotonic() < end:
            number = (number + 7) % len(golden)
            start = time.monotonic()
            answer = post(client, body(number))
            seen[answer.status_code] += 1
            if answer.status_code == 200:
                seconds_of.append(time.monotonic() - start)
                assert text(answer) == golden[number]
            else:
                assert refused(answer, 429, "queue_full") or refused(answer, 503, "timeout")

    most = Most(texts)
    most.start()
    with served.client(limits=httpx.Limits()) as client, concurrent.futures.ThreadPoolExecutor(4 * capacity) as pool:
        list(pool.map(lambda number: ask(client, number), range(4 * capacity)))
    most.over.set()
    assert seen[200] > 0 and seen[429] > 0 and seen.keys() <= {200, 429, 503}
    assert most.live <= capacity and most.running <= settings.slots
    assert sorted(seconds_of)[int(0.99 * (len(seconds_of) - 1))] <= settings.timeout
    assert texts.live == 0


def test_a_request_for_more_rows_than_are_free_is_refused_and_takes_no_place(served):
    with served.client() as client:
        answer = post(client, body(0) | {"n": 16, "prompt": list(PROMPTS[:1])})
        assert len(answer.json()["choices"]) == 16
        answer = post(client, body(0) | {"n": 16, "prompt": list(PROMPTS)})
    assert answer.status_code == 400 and "wanted at most 20 texts in all" in answer.json()["error"]["message"]
    assert served.models.completions.texts.live == 0


def test_a_request_that_does_not_get_its_turn_in_time_is_refused_and_gives_up_its_place(small):
    texts, slow, step = small.models.completions.texts, threading.Event(), small.models.completions.texts._engine.step
    texts._engine.step = lambda steps: [time.sleep(0 if slow.is_set() else 0.03), list(step(steps))][1]
    with small.client() as client, concurrent.futures.ThreadPoolExecutor(SLOTS + 4) as pool:
        long = [pool.submit(post, client, body(number, 40)) for number in range(SLOTS)]
        while texts.running < SLOTS:
            time.sleep(0.002)
        small.state.settings = dataclasses.replace(small.settings, timeout=0.1)
        late = [pool.submit(post, client, body(number, 40)) for number in range(4)]
        assert all(refused(one.result(), 503, "timeout") for one in late)
        while texts.live > SLOTS:  # the engine hears of it between two steps
            time.sleep(0.002)
        assert not any(one.done() for one in long)
        small.state.settings = small.settings
        slow.set()
        assert [len(text(one.result())) > 0 for one in long] == [True] * SLOTS
    leaks.check_nothing_left(small)


def test_a_streamed_answer_that_takes_too_long_ends_with_an_error_in_its_stream(small):
    texts, step = small.models.completions.texts, small.models.completions.texts._engine.step
    texts._engine.step = lambda steps: [time.sleep(0.03), list(step(steps))][1]
    small.state.settings = dataclasses.replace(small.settings, timeout=0.3)
    with small.client() as client:
        answer = post(client, body(0, 40) | {"stream": True})
    *events, error, _ = answer.text.split("\n\n")
    assert answer.status_code == 200 and len(events) > 1 and '"code": "timeout"' in error
    leaks.check_nothing_left(small)


def test_a_row_for_which_the_model_gives_no_numbers_touches_no_other():
    good = writers.characters()
    flat = weights.flatten(good.params)
    flat["embed/position/embedding"] = flat["embed/position/embedding"].at[24:32].set(float("nan"))
    found = serving.writing(flaxgen.Writer(good.model, weights.nest(flat), good.text), slots=SLOTS, queue=QUEUE)
    try:
        with found.client() as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
            golden = [text(post(client, body(number, 8))) for number in range(4)]
            assert refused(post(client, body(0, 40)), 503, "model_failed")
            answers = [pool.submit(post, client, body(number % 4, 40 if number % 3 == 2 else 8)) for number in range(24)]
            for number, one in enumerate(answers):
                if number % 3 == 2:
                    assert refused(one.result(), 503, "model_failed")
                else:
                    assert text(one.result()) == golden[number % 4]
            assert client.get("/health").status_code == 200
        leaks.check_nothing_left(found)
    finally:
        serving.stop(found)


def test_a_request_behind_a_long_one_is_refused_when_its_time_is_over_not_when_its_turn_comes():
    async def asked() -> float:
        one, held = lane.Lane("slow", 4), threading.Event()
        long = asyncio.create_task(one.run(time.monotonic() + 60, held.wait))
        await asyncio.sleep(0)
        start = time.monotonic()
        with pytest.raises(refusal.Refusal, match="not served within its time") as caught:
            await one.run(start + 0.05, lambda: 1)
        seconds = time.monotonic() - start
        assert caught.value.status == 503 and not long.done()
        held.set()
        assert await long and await one.run(time.monotonic() + 60, lambda: 2) == 2
        one.close()
        return seconds

    assert asyncio.run(asked()) < 1


def fails(engine, times: int):
    """Makes the next steps of an engine, and of those that take its place, raise."""
    step, left = type(engine).step, [times]

    def failing(self, steps):
        if left[0] and self.busy:
            left[0] -= 1
            raise RuntimeError(f"secret words of {PROMPTS[0]}")
        return step(self, steps)

    return failing


def test_a_step_that_fails_refuses_what_it_ran_and_the_next_request_is_answered(small, monkeypatch):
    engine = small.models.completions.texts._engine
    with small.client() as client:
        golden = text(post(client, body(0)))
        monkeypatch.setattr(type(engine), "step", fails(engine, 1))
        failed = post(client, body(0))
        assert refused(failed, 503, "model_failed") and PROMPTS[0] not in failed.text and "secret" not in failed.text
        assert text(post(client, body(0))) == golden
        assert client.get("/health").status_code == 200 and small.models.completions.texts.broken is None
    leaks.check_nothing_left(small)


def test_a_model_that_fails_three_times_in_a_row_is_broken_and_health_says_so(small, monkeypatch):
    engine = small.models.completions.texts._engine
    monkeypatch.setattr(type(engine), "step", fails(engine, 3))
    with small.client() as client:
        assert all(refused(post(client, body(number)), 503, "model_failed") for number in range(3))
        assert refused(post(client, body(0)), 503, "broken")
        health = client.get("/health")
        assert health.status_code == 503 and health.json() == {"status": "broken"}
    leaks.check_nothing_left(small)
