"""Requests that wait, come too late, fail or are left, of the models that serve one at a time."""

import asyncio
import json
import threading
import time

import httpx
import numpy as np
import pytest

from flaxgen.serve import lane, metrics, refusal
from tests import wires

IMAGE_BYXC = np.zeros((1, 6, 6, 1), np.uint8)
FRAMES = 500


@pytest.fixture
def frames(served, monkeypatch):
    """Frames of a painter that takes a hundredth of a second for each; the list tells how many it has painted."""
    painted = []

    def slow(wishes, moves, every):
        for number in range(FRAMES):
            time.sleep(0.01)
            painted.append(number)
            yield number, IMAGE_BYXC

    monkeypatch.setattr(served.models.images, "_frames", slow)
    return painted


def until(found) -> None:
    end = time.monotonic() + 5
    while not found():
        assert time.monotonic() < end
        time.sleep(0.002)


def disconnects() -> float:
    return metrics.REGISTRY.get_sample_value("flaxgen_disconnects_total")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_lane_at_the_next_frame(served, frames, stream):
    images, left = served.models.images.lane, disconnects()
    asked = {"json": {"samples": 1, "stream": stream}, "timeout": httpx.Timeout(60, read=0.1)}
    with served.client() as client, pytest.raises(httpx.ReadTimeout), client.stream("POST", "/v1/images", **asked) as answer:
        until(lambda: len(frames) > 2)
        assert stream and images.waiting == 1
        raise httpx.ReadTimeout(str(answer.status_code))
    until(lambda: images.waiting == 0 and disconnects() == left + 1)
    assert len(frames) < FRAMES / 2


@pytest.mark.parametrize("more", [b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3])
def test_a_client_that_sends_more_and_leaves_is_noticed_too(served, frames, more):
    images = served.models.images.lane
    with wires.connect(served) as line:
        line.sendall(wires.post(served, b'{"samples": 1}', "/v1/images"))
        until(lambda: len(frames) > 2)
        line.sendall(more)
        time.sleep(0.05)
    until(lambda: images.waiting == 0)
    assert len(frames) < FRAMES / 2


def test_who_sends_far_more_than_a_request_behind_one_is_cut_off(served, frames):
    with wires.connect(served) as line, pytest.raises(ConnectionError):
        line.sendall(wires.post(served, b'{"samples": 1}', "/v1/images"))
        for _ in range(100):
            line.sendall(b"x" * 100_000)
    until(lambda: served.models.images.lane.waiting == 0)
    assert len(frames) < FRAMES / 2


def test_a_request_that_is_left_while_it_waits_is_never_begun(served, frames):
    images, answers = served.models.images.lane, []

    def ask(timeout):
        with served.client(timeout=httpx.Timeout(60, read=timeout)) as client:
            try:
                answers.append(client.post("/v1/images", json={"samples": 1}).status_code)
            except httpx.ReadTimeout:
                answers.append("left")

    asking = [threading.Thread(target=ask, args=(timeout,)) for timeout in (0.4, 0.1)]
    asking[0].start()
    until(lambda: images.waiting == 1)
    asking[1].start()
    for one in asking:
        one.join()
    until(lambda: images.waiting == 0)
    assert answers == ["left", "left"] and frames.count(0) == 1


def test_a_model_that_fails_ends_its_stream_with_an_error_and_serves_the_next(served, monkeypatch):
    def broken(wishes, moves, every):
        yield 0, IMAGE_BYXC
        raise FloatingPointError("敏敏 is no number")

    left = disconnects()
    with served.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(served.models.images, "_frames", broken)
            lines = client.post("/v1/images", json={"samples": 1, "stream": True}).text.split("\n\n")
            whole = client.post("/v1/images", json={"samples": 1})
            assert disconnects() == left
        assert json.loads(lines[0].removeprefix("data: "))["move"] == 0
        assert json.loads(lines[1].removeprefix("data: "))["error"]["type"] == "server_error" and "敏" not in lines[1] + whole.text
        assert whole.status_code == 500
        assert client.post("/v1/images", json={"samples": 1}).status_code == 200


async def _refused(found: lane.Lane, deadline: float, function=time.monotonic) -> refusal.Refusal:
    with pytest.raises(refusal.Refusal) as caught:
        await found.run(deadline, function)
    return caught.value


def test_a_full_queue_and_a_deadline_that_has_passed_are_told_with_when_to_come_again():
    async def asked():
        found, go = lane.Lane("test", 1), threading.Event()
        running = [asyncio.ensure_future(found.run(time.monotonic() + 60, go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        full = await _refused(found, time.monotonic() + 60)
        assert (full.status, full.code) == (429, "queue_full") and int(full.headers["Retry-After"]) >= 1
        go.set()
        assert await asyncio.gather(*running) == [True, True]
        late = await _refused(found, time.monotonic() - 1)
        assert (late.status, late.code) == (503, "timeout") and "Retry-After" in late.headers
        pieces = []
        with pytest.raises(refusal.Refusal, match="was not served within its time"):
            async for piece in found.stream(time.monotonic() + 0.05, lambda: iter(lambda: time.sleep(0.02), 1)):
                pieces.append(piece)
        assert 1 <= len(pieces) < 10
        assert await found.run(time.monotonic() + 60, lambda: 7) == 7
        while found.waiting:  # until the thread has told that it is done
            await asyncio.sleep(0.001)
        found.close()
        closed = await _refused(found, time.monotonic() + 60)
        assert (closed.status, closed.code, found.waiting) == (503, "draining", 0)

    asyncio.run(asked())
