"""Clients that are slow, or send far too much, are cut off, and the others do not notice."""

import concurrent.futures
import contextlib
import json
import socket
import time

import numpy as np
import pytest

from tests import wires

PATIENCE = 0.8
GIGABYTE = 10**9


@pytest.fixture(scope="module")
def hasty(served):
    with wires.another(served, header_seconds=PATIENCE, body_seconds=PATIENCE, write_seconds=PATIENCE) as found:
        yield found


def latencies(hasty, count: int) -> np.ndarray:
    body = wires.post(hasty, json.dumps({"prompt": "天地", "max_tokens": 4, "seed": 1}).encode())
    seconds = []
    for _ in range(count):
        start = time.monotonic()
        assert wires.ask(hasty, body)[0].status == 200
        seconds.append(time.monotonic() - start)
    return np.asarray(seconds)


def dribble(hasty, raw: bytes, *, pause: float = 0.05) -> tuple[int, float]:
    """Sends a byte at a time until the server has enough: the status and when it came."""
    start = time.monotonic()
    with wires.connect(hasty) as line:
        line.settimeout(pause)
        with contextlib.suppress(ConnectionError):
            for byte in raw:
                line.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    line.recv(1, socket.MSG_PEEK)
                    break
        line.settimeout(10)
        answers = list(wires.read(line))
        return (answers[0].status if answers else 0), time.monotonic() - start


def beside(hasty, attack, count: int, others: int) -> tuple[list, float]:
    """What `count` attackers get while others ask, and how many times as long those others waited, by their median."""
    quiet = latencies(hasty, others)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        attacks = [pool.submit(attack) for _ in range(count)]
        busy = latencies(hasty, others)
        found = [one.result() for one in attacks]
    assert busy.max() < 5 and wires.works(hasty)
    # The attackers' own threads share the cores with the server, which costs some of it.
    return found, np.median(busy) / (np.median(quiet) + 0.03)


def check_heads(hasty, count: int, others: int, **more) -> float:
    raw = wires.head(hasty)
    found, times = beside(hasty, lambda: dribble(hasty, raw, **more), count, others)
    for status, seconds in found:
        assert status == 408 and 0 < seconds - hasty.settings.header_seconds + 0.1 < 2, (status, seconds)
    return times


def check_readers(hasty, count: int, others: int) -> float:
    """Pipelined requests whose answers are never read, until the buffers between are full."""
    many, before = wires.head(hasty, target="/openapi.json") * 400, connections(hasty)

    def attack():
        with wires.connect(hasty, receive=2048, seconds=0.2) as line:
            with contextlib.suppress(TimeoutError, ConnectionError):
                line.sendall(many)
            deadline = time.monotonic() + hasty.settings.write_seconds + 10
            while connections(hasty) > before and time.monotonic() < deadline:
                time.sleep(0.05)
            assert connections(hasty) <= before, "those who read nothing are still connected"

    return beside(hasty, attack, count, others)[1]


def connections(hasty) -> int:
    return len(hasty.server.server_state.connections)


def test_heads_that_dribble_in_are_cut_off(hasty):
    check_heads(hasty, 20, 20)


def test_who_reads_nothing_is_cut_off(hasty):
    check_readers(hasty, 3, 10)


@pytest.mark.nightly
def test_the_others_do_not_notice_a_thousand_of_them(served):
    with wires.another(served, header_seconds=3, body_seconds=3, write_seconds=PATIENCE) as hasty:
        assert np.median([check_heads(hasty, 200, 100, pause=0.2) for _ in range(5)]) < 2
        assert np.median([check_readers(hasty, 50, 20) for _ in range(5)]) < 2


def test_a_second_head_on_a_connection_has_its_time_too(hasty):
    with wires.connect(hasty) as line:
        line.sendall(wires.head(hasty) + wires.head(hasty)[:20])
        assert [answer.status for answer in wires.read(line)] == [200]
        start = time.monotonic()
        line.sendall(b"x")
        assert line.recv(12) == b"HTTP/1.1 408" and time.monotonic() - start < PATIENCE + 2


def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(hasty):
    body = json.dumps({"prompt": "天地", "max_tokens": 1}).encode()
    with wires.connect(hasty) as line:
        line.sendall(wires.post(hasty, body, "/v1/completions", "Expect: 100-continue")[: -len(body)])
        assert line.recv(100).startswith(b"HTTP/1.1 100 ")
        line.sendall(body)
        assert next(wires.read(line)).status == 200


def test_a_body_that_dribbles_in_is_cut_off(hasty):
    body = json.dumps({"prompt": "天地" * 50}).encode()
    whole = wires.post(hasty, body)
    with wires.connect(hasty) as line:
        line.sendall(whole[: -len(body)])
    status, seconds = dribble(hasty, whole)
    assert status == 408 and seconds < 2 * PATIENCE + 2


@pytest.mark.parametrize("chunks", [10_000, pytest.param(500_000, marks=pytest.mark.nightly)])
def test_a_body_in_tiny_chunks_is_refused_before_it_costs_much(hasty, chunks):
    head = wires.head(hasty, "POST", "/v1/completions", "Content-Type: application/json", "Transfer-Encoding: chunked")
    raw = head + b"6\r\n      \r\n" * chunks + b"0\r\n\r\n"

    def attack():
        return wires.ask(hasty, raw)[0]

    for answer in beside(hasty, attack, 4, 20)[0]:
        assert answer.status == 413 and "too many chunks" in answer.error["message"]


def test_a_body_in_chunks_of_a_fair_size_is_read(hasty):
    body = json.dumps({"prompt": "天地", "max_tokens": 1, "user": "u" * 200}).encode()
    head = wires.head(hasty, "POST", "/v1/completions", "Content-Type: application/json", "Transfer-Encoding: chunked")
    raw = head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert wires.ask(hasty, raw)[0].status == 200


def test_a_gigabyte_is_refused_before_it_comes(hasty):
    head = wires.head(hasty, "POST", "/v1/completions", "Content-Type: application/json", f"Content-Length: {GIGABYTE}")
    start = time.monotonic()
    (answer,) = wires.ask(hasty, head)
    assert answer.status == 413 and answer.headers["connection"] == "close" and time.monotonic() - start < 1
    (pushed,) = wires.ask(hasty, head + b" " * 8_000_000)
    assert pushed.status == 413
    chunked = wires.head(hasty, "POST", "/v1/completions", "Content-Type: application/json", "Transfer-Encoding: chunked")
    (counted,) = wires.ask(hasty, chunked + b"80000\r\n" + b" " * 0x80000 + b"\r\n80001\r\n" + b" " * 0x80001 + b"\r\n0\r\n\r\n")
    assert counted.status == 413


def test_a_head_of_64_kilobytes_is_refused(hasty):
    (whole,) = wires.ask(hasty, wires.head(hasty, "GET", "/v1/models", "X: " + "y" * 65_536))
    assert whole.status == 431
    (endless,) = wires.ask(hasty, b"GET /v1/models HTTP/1.1\r\nX: " + b"y" * 65_536)
    assert endless.status == 431


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(hasty):
    with wires.connect(hasty) as line:
        assert line.recv(100) == b""


def test_connections_beyond_the_limit_are_told(served):
    with wires.another(served, connections=3) as small:
        held = [wires.connect(small) for _ in range(3)]
        while len(small.server.server_state.connections) < 3:
            time.sleep(0.01)
        (answer,) = wires.ask(small, b"")
        assert answer.status == 503 and answer.headers["retry-after"] and answer.error["code"] == "connections"
        for one in held:
            one.close()
        while small.server.server_state.connections:
            time.sleep(0.01)
        assert wires.works(small)
