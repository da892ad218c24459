"""A model that fails: in one row, in one step, for good."""

import concurrent.futures
import dataclasses
import json

import httpx
import pytest

from flaxgen import engine
from flaxgen.serve import completions, models
from tests import wires

JOB = {"prompt": "天地玄黄", "max_tokens": 24, "min_tokens": 24}


def asked(served, count: int, **more) -> list[httpx.Response]:
    with served.client() as client, concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda seed: client.post("/v1/completions", json=JOB | {"seed": seed} | more), range(count)))


def text(answer: httpx.Response) -> str:
    return answer.json()["choices"][0]["text"]


@pytest.fixture
def step(monkeypatch):
    """Puts a function in the place of the engine's step; it gets the engine's own and the engine."""
    own = engine.Engine.step

    def replaced(function):
        monkeypatch.setattr(engine.Engine, "step", lambda self, *given: function(lambda: own(self, *given), self))

    yield replaced
    monkeypatch.undo()


def test_a_row_that_fails_leaves_the_others_as_they_are(served, step):
    alone = [text(answer) for answer in asked(served, 8)]
    before, chosen = served.compilations(), []

    def failing(own, _):
        for row in own():
            chosen[:] = chosen or [row.name]
            yield dataclasses.replace(row, error=FloatingPointError("the logits are not finite")) if row.name == chosen[0] else row

    step(failing)
    answers = asked(served, 8)
    failed = [answer for answer in answers if answer.status_code != 200]
    assert [answer.status_code for answer in failed] == [503] and failed[0].json()["error"]["code"] == "model_failed"
    assert failed[0].headers["retry-after"]
    assert all(text(answer) == right for answer, right in zip(answers, alone, strict=True) if answer.status_code == 200)
    assert served.models.completions.texts.live == 0 and served.compilations() == before


def test_a_step_that_fails_ends_the_requests_in_it_and_no_others(served, step):
    alone, before = text(asked(served, 1)[0]), served.compilations()
    steps = []

    def failing(own, _):
        steps.append(1)
        if len(steps) == 6:
            raise RuntimeError(wires.SECRET)
        return own()

    step(failing)
    (stream,) = asked(served, 1, stream=True)
    lines = stream.text.split("\n\n")
    error = next(json.loads(line[6:])["error"] for line in lines if '"error"' in line)
    assert stream.status_code == 200 and error["code"] == "model_failed" and "RuntimeError" in error["message"]
    assert not wires.QUOTED.search(stream.content)
    assert text(asked(served, 1)[0]) == alone
    assert served.models.completions.texts.live == 0 and served.compilations() == before


def test_a_model_that_fails_again_and_again_is_broken_and_the_server_says_so(served, step):
    def failing(own, running):
        if running.busy:
            raise RuntimeError(wires.SECRET)
        return own()

    part = completions.Completions(served.settings, served.pipelines["completions"], "tiny-writer")
    made = models.Models([part])
    step(failing)
    with wires.another(served, made) as broken, broken.client() as client:
        assert client.get("/health").status_code == 200
        codes = [client.post("/v1/completions", json=JOB).json()["error"]["code"] for _ in range(4)]
        assert codes == ["model_failed"] * 3 + ["broken"]
        health, ready = client.get("/health"), client.get("/ready")
        assert health.status_code == ready.status_code == 503 and health.json() == {"status": "broken"}
        assert not wires.QUOTED.search(health.content + ready.content + client.get("/metrics").content)
    made.close()
