"""Malformed requests over sockets: each is refused in words, at once, without a word of its own, and the next good one is answered."""

import concurrent.futures
import json
import logging
import time

import pytest

from flaxgen.serve import metrics
from tests import fuzzing, wires

AT_ONCE = 16
OURS = {501, 505}  # of 5xx those that say what of HTTP the server does not speak


@pytest.fixture(scope="module")
def short(served):
    """The server with little patience, so that what never arrives is given up soon."""
    with wires.another(served, header_seconds=0.4, body_seconds=0.4) as found:
        yield found


def check(short, number: int) -> int:
    raw = fuzzing.malformed(number, short.settings.key)
    where = f"request {number}: {raw[:200]!r}"
    for _ in range(3):  # a busy machine may take its time, but not again and again
        start = time.monotonic()
        answers = wires.ask(short, raw, seconds=20)
        seconds = time.monotonic() - start
        if seconds < 2:
            break
    assert seconds < 2, f"{where} took {seconds:.1f} s"
    for answer in answers:
        assert answer.status < 500 or answer.status in OURS, f"{where}: {answer}"
        assert not wires.LEAKS.search(answer.body) and short.settings.key.encode() not in answer.body, f"{where}: {answer}"
        if answer.status >= 400 and not raw.startswith(b"HEAD "):
            assert not wires.QUOTED.search(answer.body), f"{where}: {answer}"
            assert set(answer.error) == {"message", "type", "param", "code"} and answer.error["message"], f"{where}: {answer}"
            assert answer.headers["content-security-policy"] and answer.headers["content-type"] == "application/json", where
    return answers[0].status if answers else 0


def check_all(short, caplog, numbers) -> None:
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = list(pool.map(lambda number: check(short, number), numbers))
    assert wires.works(short)
    assert not [record for record in caplog.records if record.levelname == "ERROR"], caplog.text
    assert len(set(statuses)) > 8, "the requests were all alike"
    assert sum(status in (0, 200) for status in statuses) < len(statuses) / 3, "most requests were not malformed"


def test_malformed_requests_are_refused_at_once_and_the_next_good_one_is_answered(short, caplog):
    check_all(short, caplog, range(200))


@pytest.mark.nightly
def test_ten_thousand_malformed_requests(short, caplog):
    for start in range(1000, 11_000, 1000):
        check_all(short, caplog, range(start, start + 1000))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is not JSON: Expecting value at character 0 of 0"),
        (b"{'a': 1}", "the body is not JSON: Expecting property name enclosed in double quotes"),
        (b'{"n": NaN}', "NaN or Infinity"),
        (b'{"n": Infinity}', "NaN or Infinity"),
        (b'{"n": 1' + b"0" * 100 + b"}", "a number of 101 characters; wanted at most 100"),
        (b'{"n": 1, "n": 2}', "the same field twice"),
        (b"[" * 17 + b"]" * 17, "nests 17 deep; wanted at most 16"),
        (b"[" * 500_000, "nests 500000 deep"),
        (b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
        (b'{"prompt": "\xff"}', "byte 12 of the body is not UTF-8"),
        (b"[]", "the body is a list of 0 entries; wanted a JSON object"),
        (b'{"n": 1e400, "prompt": "x"}', "n: got inf, wanted a whole number"),
        (b'{"prompt": "[[[[[[[[[[[[[[[[[[[[[[[[\\"[[[", "max_tokens": 0.5}', "max_tokens: got 0.5"),
    ],
)
def test_a_body_is_refused_in_words(served, body, words):
    (answer,) = wires.ask(served, wires.post(served, body))
    assert answer.status == 400 and words in answer.error["message"], answer.error


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Type: text/plain"], 415),
        (["Content-Type: application/json; charset=gbk"], 415),
        (["Content-Type: application/json", "Content-Type: application/json"], 415),
        (["Content-Type: application/json", "Content-Encoding: gzip"], 415),
        ([], 415),
        (['Content-Type: Application/JSON ; charset="UTF-8"'], 200),
    ],
)
def test_a_body_is_json_in_utf_8_or_nothing(served, lines, status):
    body = json.dumps({"prompt": "天地", "max_tokens": 1}, ensure_ascii=False).encode()
    raw = wires.head(served, "POST", "/v1/completions", f"Content-Length: {len(body)}", *lines) + body
    assert wires.ask(served, raw)[0].status == status


def test_what_is_not_there_or_not_taken_has_the_shape_of_all_errors(served):
    (missing,) = wires.ask(served, wires.head(served, target="/v1/nothing"))
    assert missing.status == 404 and missing.error["type"] == "not_found_error"
    (slash,) = wires.ask(served, wires.head(served, target="/health/"))
    assert slash.status == 404
    (wrong,) = wires.ask(served, wires.head(served, "DELETE", "/v1/completions"))
    assert wrong.status == 405 and wrong.headers["allow"] == "POST"
    (long,) = wires.ask(served, wires.head(served, target="/" + "a" * 5000))
    assert long.status == 414
    (many,) = wires.ask(served, wires.head(served, "GET", "/v1/models", *(f"X-{one}: y" for one in range(200))))
    assert many.status == 431
    (both,) = wires.ask(served, wires.post(served, b"{}", "/v1/completions", "Transfer-Encoding: chunked"))
    assert both.status == 400 and both.error["code"] == "framing"


def test_a_part_of_a_file_is_the_whole_of_it(served):
    whole, part = (wires.ask(served, wires.head(served, "GET", "/page/app.js", *more))[0] for more in ((), ("Range: bytes=9-1",)))
    assert whole.status == part.status == 200 and whole.body == part.body


def test_a_request_that_goes_wrong_while_it_is_answered_ends_without_a_trace(served, caplog):
    for more in ("X: y", "Expect: 100-continue"):
        for method in ("HEAD", "GET", "POST"):
            head = wires.head(served, method, "/metrics", "Transfer-Encoding: chunked", more)
            assert wires.ask(served, head + b"5\r\nabcdefg\r\n")[0].status < 500
            assert wires.ask(served, head + b"0\r\nX:" + b"y" * 30_000)[0].status < 500
    assert wires.works(served)
    assert not [record for record in caplog.records if record.levelname == "ERROR"], caplog.text


def test_what_is_malformed_after_a_request_for_a_head_alone_is_refused_in_words_and_counted(served, caplog):
    def refused() -> float:
        return metrics.REGISTRY.get_sample_value("flaxgen_refusals_total", {"code": "malformed"}) or 0

    before = refused()
    with wires.connect(served) as line:
        line.sendall(wires.head(served, "HEAD", "/health"))
        assert next(wires.read(line, method=b"HEAD")).status == 200
        line.sendall(b"\0\0\0\r\n\r\n")
        answer = next(wires.read(line))
    assert answer.status == 400 and answer.error["code"] == "malformed"
    assert refused() == before + 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"], caplog.text


@pytest.mark.parametrize("pause", [0, 0.05])
def test_a_body_that_breaks_off_is_told_of_once_by_its_route_and_its_answers_id(served, caplog, pause):
    def counts() -> dict:
        return {tuple(one.labels.values()): one.value for one in metrics.REQUESTS.collect()[0].samples if one.name.endswith("_total")}

    def told(route: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if route in record.getMessage()]

    caplog.set_level(logging.INFO, logger="flaxgen.serve")
    before, left = counts(), metrics.REGISTRY.get_sample_value("flaxgen_disconnects_total")
    with wires.connect(served) as line:
        head = wires.head(served, "POST", "/v1/couplets", "Content-Type: application/json", "Transfer-Encoding: chunked")
        for piece in (head, b"5\r\nabcdefg\r\n") if pause else (head + b"5\r\nabcdefg\r\n",):
            line.sendall(piece)
            time.sleep(pause)
        answer = next(wires.read(line))
    assert answer.status == 400 and answer.error["code"] == "malformed"
    end = time.monotonic() + 5
    while not told("/v1/couplets") and time.monotonic() < end:
        time.sleep(0.01)
    assert [line.split()[:4] for line in told("")] == [[answer.headers["x-request-id"], "POST", "/v1/couplets", "400"]]
    grown = {labels: value - before.get(labels, 0) for labels, value in counts().items() if value != before.get(labels, 0)}
    assert grown == {("/v1/couplets", "400"): 1} and metrics.REGISTRY.get_sample_value("flaxgen_disconnects_total") == left


def test_requests_in_one_packet_are_answered_in_their_order(served):
    body = json.dumps({"prompt": "天地", "max_tokens": 1}).encode()
    raw = wires.head(served, target="/health") + wires.post(served, body) + wires.head(served, target="/v1/models")
    statuses = [(answer.status, answer.body[:12]) for answer in wires.ask(served, raw, answers=3)]
    assert [status for status, _ in statuses] == [200] * 3 and b"text_complet" not in statuses[0][1]


def logged(caplog, *answers: wires.Answer) -> list[list[str]]:
    """What the log says of these answers, without their ids; the line of an answer may come after it."""
    deadline = time.monotonic() + 5
    while True:
        lines = [record.getMessage().split() for record in caplog.records if record.name == "flaxgen.serve"]
        found = [line[1:] for answer in answers for line in lines if line[0] == answer.headers["x-request-id"] and line[-1] == "ms"]
        if len(found) == len(answers) or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def test_an_error_of_ours_shows_nothing_of_itself(served, monkeypatch, caplog):
    async def broken(*_):
        raise ZeroDivisionError(wires.SECRET)

    monkeypatch.setattr(served.models.completions, "answer", broken)
    with caplog.at_level("INFO", logger="flaxgen.serve"):
        (answer,) = wires.ask(served, wires.post(served, json.dumps({"prompt": wires.SECRET}).encode()))
        assert answer.status == 500 and answer.error["code"] == "internal" and not wires.QUOTED.search(answer.body)
        assert [line[:3] for line in logged(caplog, answer)] == [["POST", "/v1/completions", "500"]]
    assert "ZeroDivisionError in " in caplog.text and "secret-prompt" not in caplog.text


def test_the_log_has_a_line_a_request_and_nothing_that_its_client_wrote(served, caplog):
    body = json.dumps({"prompt": wires.SECRET, "max_tokens": 1}).encode()
    asked = [
        wires.post(served, body, "/v1/completions?secret-prompt"),
        wires.head(served, "BREW", "/secret-prompt"),
        wires.head(served, "GET", "/page/secret-prompt"),
        b"secret-prompt\r\n\r\n",
    ]
    with caplog.at_level("INFO", logger="flaxgen.serve"):
        lines = logged(caplog, *(wires.ask(served, raw)[0] for raw in asked))
    wanted = [["POST", "/v1/completions", "200"], ["(other)", "(unknown)", "404"], ["GET", "/page", "404"], ["(none)", "(none)", "400"]]
    assert [line[:3] for line in lines] == wanted and all(line[4:] == ["ms"] for line in lines)
    assert "secret-prompt" not in caplog.text and served.settings.key not in caplog.text
