"""Who may ask: keys on every route that the application has, the names of the server, and other sites' pages."""

import concurrent.futures
import datetime
import email.utils
import hmac
import time

import numpy as np
import pytest
from scipy import stats
from starlette.routing import Mount

from flaxgen.serve import guard, settings
from tests import wires

FREE = {"/", "/favicon.ico", "/health", "/page/nothing"}
KEY = "the-key-of-the-tests"
WRONG = {
    "none": [],
    "wrong": ["Authorization: Bearer the-key-of-the-guess"],
    "a prefix": [f"Authorization: Bearer {KEY[:-1]}"],
    "longer": [f"Authorization: Bearer {KEY}s"],
    "without a scheme": [f"Authorization: {KEY}"],
    "another scheme": [f"Authorization: Basic {KEY}"],
    "a lower scheme": [f"Authorization: bearer {KEY}"],
    "upper case": [f"Authorization: Bearer {KEY.upper()}"],
    "two blanks": [f"Authorization: Bearer  {KEY}"],
    "Latin-1": ["Authorization: Bearer \xe9\xff"],
    "empty": ["Authorization: Bearer "],
    "twice": [f"Authorization: Bearer {KEY}"] * 2,
    "in another header": [f"X-Api-Key: {KEY}"],
}


def asked(served, method: str, target: str, *lines: str, host: str = "localhost") -> wires.Answer:
    raw = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")
    return wires.ask(served, raw)[0]


def routes(served) -> list[tuple[str, str]]:
    """The method and the path of every route of the application."""
    found = served.server.config.app.app.routes
    return [
        ("GET", f"{one.path}/nothing") if isinstance(one, Mount) else ("GET" if "GET" in one.methods else "POST", one.path) for one in found
    ]


def test_every_route_but_the_page_and_health_wants_the_key(served):
    found = routes(served)
    assert {"/v1/completions", "/v1/models", "/metrics", "/ready", "/openapi.json"} <= {path for _, path in found}
    for method, path in found:
        for what, lines in WRONG.items():
            answer = asked(served, method, path, *lines)
            if path in FREE:
                assert answer.status != 401, (path, what)
            else:
                assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer", (path, what, answer)
                assert answer.error["type"] == "authentication_error" and KEY.encode() not in answer.body
        assert asked(served, method, path, f"Authorization: Bearer {KEY}").status != 401, path


def test_no_spelling_of_an_address_gets_round_the_key(served):
    odd = (
        "/v1//models",
        "/%761/models",
        "/v1/models/",
        "/V1/models",
        "//v1/models",
        "/page/../v1/models",
        "/page/%2e%2e/v1/models",
        "/health/../v1/models",
    )
    for target in (*odd, "/v1/models?x=/page/", "/v1/models#/page/", "http://localhost/v1/models", "/v1/models;/page/"):
        answer = asked(served, "GET", target)
        assert answer.status in (400, 401, 404) and b"tiny-writer" not in answer.body, target


def test_the_page_gives_no_file_beside_it(served):
    for target in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page//etc/passwd", "/page/%00", "/page/"):
        assert asked(served, "GET", target).status in (400, 404), target


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "127.0.0.1:8000:80", "0.0.0.0", "[::2]", "a@localhost"]
)
def test_a_foreign_host_is_refused_on_every_route(served, host):
    for method, path in routes(served):
        answer = asked(served, method, path, f"Authorization: Bearer {KEY}", host=host)
        assert answer.status == 403 and answer.error["type"] == "permission_error" and host.encode() not in answer.body


def test_the_names_of_this_machine_are_answered_on_any_port(served):
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST:9000", f"127.0.0.1:{served.url.rsplit(':')[-1]}"):
        assert asked(served, "GET", "/health", host=host).status == 200, host
    with wires.another(served, allow_hosts=("Models.Example.org",)) as named:
        assert asked(named, "GET", "/health", host="models.example.org").status == 200


def test_one_host_is_named(served):
    assert wires.ask(served, b"GET /health HTTP/1.1\r\n\r\n")[0].status == 400
    assert wires.ask(served, b"GET /health HTTP/1.0\r\n\r\n")[0].status == 400
    assert wires.ask(served, b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")[0].status == 400
    assert wires.ask(served, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")[0].status == 200


def test_no_other_site_may_read_unless_it_is_asked_for(served):
    foreign = ["Origin: https://other.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"]
    for method, path in routes(served):
        for answer in (asked(served, "OPTIONS", path, *foreign), asked(served, method, path, f"Authorization: Bearer {KEY}", *foreign)):
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")], path
        assert asked(served, "OPTIONS", path, *foreign).status in (401, 405), path


def test_an_origin_that_is_allowed_may_and_no_other(served):
    def preflight(origin):
        return asked(allowing, "OPTIONS", "/v1/completions", f"Origin: {origin}", "Access-Control-Request-Method: POST")

    with wires.another(served, allow_origins=("https://ours.example",)) as allowing:
        answer = preflight("https://ours.example")
        assert answer.status == 204 and answer.headers["access-control-allow-origin"] == "https://ours.example"
        assert "Authorization" in answer.headers["access-control-allow-headers"] and answer.headers["vary"] == "Origin"
        for other in ("https://ours.example.evil.example", "http://ours.example", "null", "https://ours.example:8443"):
            assert preflight(other).headers["access-control-allow-origin"] is None
        lines = [
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization,x-stainless-os, X-Stainless-Lang,x-evil",
        ]
        names = asked(allowing, "OPTIONS", "/v1/completions", "Origin: https://ours.example", *lines).headers[
            "access-control-allow-headers"
        ]
        assert names == "Authorization, Content-Type, x-stainless-lang, x-stainless-os"
        # A page has to be able to read why it was refused.
        refused = asked(allowing, "GET", "/v1/models", "Origin: https://ours.example")
        assert refused.status == 401 and refused.headers["access-control-allow-origin"] == "https://ours.example"
        assert "access-control-allow-credentials" not in refused.headers


def test_every_answer_is_inert_for_a_browser(served):
    answers = [asked(served, method, path, f"Authorization: Bearer {KEY}") for method, path in routes(served)]
    answers += [asked(served, "GET", "/nothing"), wires.ask(served, b"\0\0\0")[0]]
    for answer in answers:
        assert answer.headers.get_all("content-security-policy") == [guard.POLICY]
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers and "set-cookie" not in answer.headers
        age = datetime.datetime.now(datetime.UTC) - email.utils.parsedate_to_datetime(answer.headers["date"])
        assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    assert asked(served, "GET", "/v1/models", f"Authorization: Bearer {KEY}").headers["cache-control"] == "no-store"


def test_without_a_key_none_is_wanted_on_this_machine_and_no_other_address_is_taken(served):
    with wires.another(served, key=None) as free:
        assert asked(free, "GET", "/v1/models").status == 200
        assert asked(free, "GET", "/v1/models", host="evil.example").status == 403
    assert not {"0.0.0.0", "[::]"} & (settings.Settings(host="0.0.0.0", key=KEY).hosts | settings.Settings(host="::", key=KEY).hosts)
    with pytest.raises(ValueError, match="without a key"):
        settings.Settings(host="0.0.0.0")
    with pytest.raises(ValueError, match="at least 8 ASCII characters"):
        settings.Settings(key="short")


def test_many_guesses_do_not_keep_the_owner_out(served):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        guesses = [pool.submit(asked, served, "GET", "/v1/models", f"Authorization: Bearer guess-{number}") for number in range(60)]
        assert {guess.result().status for guess in guesses} == {401}
    assert asked(served, "GET", "/v1/models", f"Authorization: Bearer {KEY}").status == 200


@pytest.mark.nightly
def test_the_time_of_a_refusal_does_not_tell_how_much_of_a_key_is_right(served):
    """10,000 comparisons of each kind as the guard makes them, of keys that differ in the first and in the last character."""
    wanted = b"Bearer " + KEY.encode() * 3
    kinds = [wanted[:7] + b"X" + wanted[8:], wanted[:-1] + b"X"]
    luck = np.random.default_rng(0)
    for _ in range(3):  # what a busy machine does by chance it does not do three times
        seconds = ([], [])
        for kind in luck.permutation(np.repeat([0, 1], 10_000)):
            start = time.perf_counter_ns()
            hmac.compare_digest(kinds[kind], wanted)
            seconds[kind].append(time.perf_counter_ns() - start)
        trimmed = [np.sort(one)[:9_500] for one in seconds]
        p = stats.ttest_ind(*trimmed, equal_var=False).pvalue
        if p > 0.01:
            return
    pytest.fail(f"Welch p={p}")


def test_a_key_is_compared_in_constant_time(served, monkeypatch):
    compared = []
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda given, wanted: compared.append((given, wanted)) or False)
    assert asked(served, "GET", "/v1/models", "Authorization: Bearer x").status == 401
    assert compared == [(b"Bearer x", f"Bearer {KEY}".encode())]
