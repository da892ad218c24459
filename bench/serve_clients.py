"""Clients that keep asking a server: each sends its requests one after the other on one connection."""

import concurrent.futures
import dataclasses
import http.client
import json
import statistics
import time
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Answer:
    """One completion: its text, its tokens as the server counts them (None where it does not), and when it came, in seconds."""

    text: str
    tokens: int | None
    first: float  # until the first piece of text, which is all of it where nothing is streamed
    whole: float


@dataclasses.dataclass(frozen=True)
class Load:
    """The answers in the order of the requests, and the seconds from the first request to the last answer."""

    answers: list[Answer]
    seconds: float

    def percentile(self, share: float) -> float:
        return statistics.quantiles([one.whole for one in self.answers], n=100, method="inclusive")[round(100 * share) - 1]


def load(port: int, bodies: Sequence[dict], clients: int) -> Load:
    """Has `clients` threads ask for the bodies, client k for number k, k + clients, …"""
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(lambda client: _ask_all(port, bodies[client::clients]), range(clients)))
    seconds = time.perf_counter() - start
    return Load([found[number % clients][number // clients] for number in range(len(bodies))], seconds)


def ask(port: int, body: dict) -> Answer:
    return _ask_all(port, [body])[0]


def _ask_all(port: int, bodies: Sequence[dict]) -> list[Answer]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        return [_asked(connection, body) for body in bodies]
    finally:
        connection.close()


def _asked(connection: http.client.HTTPConnection, body: dict) -> Answer:
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise ConnectionError(f"{response.status} {response.read(500)!r}")
    if body.get("stream"):
        return _streamed(response, start)
    found = json.loads(response.read())
    now = time.perf_counter() - start
    return Answer(found["choices"][0]["text"], found.get("usage", {}).get("completion_tokens"), now, now)


def _streamed(response: http.client.HTTPResponse, start: float) -> Answer:
    text, first = "", None
    for line in response:
        if line.startswith(b"data: {") and (choices := json.loads(line[6:])["choices"]):
            text += choices[0].get("text", "")
            first = first or (time.perf_counter() - start if text else None)
    whole = time.perf_counter() - start
    return Answer(text, None, first or whole, whole)
