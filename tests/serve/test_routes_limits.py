"""Limits of the routes of our own and of /v1/embeddings: every field at its edges, and what fits a field but not the model."""

import json

import pytest

from flaxgen.serve import kinds, limits, routes
from tests import serving

GOOD = {
    "/v1/embeddings": {"input": "天地"},
    "/v1/couplets": {"line": "天风"},
    "/v1/reading": {"question": "天地？", "passages": ["天地玄黄"]},
    "/v1/images": {"samples": 1, "moves": 1},
}
EDGES = ("-1", "2147483648", "9223372036854775808", "1e400", '"1"', "true", "[]", "{}", "0.5", f'"{"敏" * 40_000}"')
FIELDS = [(route, name) for route in GOOD for name in routes.WORK[route].takes.fields]


def raw(route: str, **fields: str) -> str:
    """A body with fields that are JSON already."""
    body = {name: json.dumps(value) for name, value in GOOD[route].items()} | fields
    return "{" + ", ".join(f'"{name}": {value}' for name, value in body.items()) + "}"


@pytest.fixture(scope="module")
def client(served):
    with served.client() as client:
        client.headers["Content-Type"] = "application/json"
        yield client


def refused(client, route: str, content: str) -> dict:
    answer = client.post(route, content=content)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["type"] == "invalid_request_error", error
    assert "敏" not in answer.text
    return error


@pytest.mark.parametrize(("route", "name"), FIELDS)
def test_a_field_beyond_its_limits_is_refused_by_name_limit_and_value_and_the_next_request_is_served(client, route, name):
    kind = routes.WORK[route].takes.fields[name].kind
    beyond = [str(value) for value in (kind.least - 1, kind.most + 1)] if isinstance(kind, kinds.Number) else []
    wrong = [value for value in (*EDGES, *beyond) if kind.wrong(json.loads(value))]
    assert wrong
    for value in wrong:
        error = refused(client, route, raw(route, **{name: value}))
        given = json.loads(value)
        assert error["param"] == name and error["message"] == f"{name}: got {limits.told(given)}, wanted {kind.wrong(given)}"
    assert client.post(route, content=raw(route)).status_code == 200


@pytest.mark.parametrize("route", GOOD)
def test_null_stands_for_a_field_that_is_left_out(client, route):
    optional = [name for name, field in routes.WORK[route].takes.fields.items() if not field.needed and name not in GOOD[route]]
    assert client.post(route, content=raw(route, **dict.fromkeys(optional, "null"))).status_code == 200
    for name, field in routes.WORK[route].takes.fields.items():
        if field.needed:
            assert refused(client, route, raw(route, **{name: "null"}))["code"] == "missing"


@pytest.mark.parametrize("route", GOOD)
def test_the_largest_numbers_are_within_the_limits(route):
    numbers = {name: field.kind for name, field in routes.WORK[route].takes.fields.items() if isinstance(field.kind, kinds.Number)}
    for edge in ("least", "most"):
        limits.checked(routes.WORK[route].takes, GOOD[route] | {name: getattr(kind, edge) for name, kind in numbers.items()})


@pytest.mark.parametrize("route", GOOD)
def test_unknown_fields_and_foreign_models_are_refused(client, route):
    assert refused(client, route, raw(route, beast="1"))["message"].startswith("unknown field beast; there are model, ")
    answer = client.post(route, content=raw(route, model='"敏敏"'))
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found" and "敏" not in answer.text


def test_rules_are_checked_one_by_one(client):
    assert refused(client, "/v1/couplets", raw("/v1/couplets", rules='{"fresh": 1}'))["param"] == "rules.fresh"
    assert refused(client, "/v1/couplets", raw("/v1/couplets", rules='{"book": "敏"}'))["param"] == "rules.book"
    assert refused(client, "/v1/couplets", raw("/v1/couplets", rules='{"rhyme": true}'))["code"] == "unknown_field"


@pytest.mark.parametrize(
    ("route", "fields", "message"),
    [
        ("/v1/couplets", {"line": "敏" * 33}, "got 33 characters, wanted at most 32"),
        ("/v1/couplets", {"line": "敏"}, "line: it: the model knows none of its characters"),
        ("/v1/couplets", {"line": "  敏\n敏 "}, "line: it has several lines"),
        ("/v1/couplets", {"line": " ，。 "}, "line: it holds no character to answer"),
        ("/v1/couplets", {"line": serving.LINE[:30] + "敏"}, "line: it: no lower line of the model's"),
        ("/v1/reading", {"question": " \n"}, "question: it is blank"),
        ("/v1/reading", {"passages": ["", "\t"]}, "passages: got 2 with text in none of them"),
        ("/v1/images", {"label": "敏"}, "label: got a text of 1 characters, wanted one of shoe, bag, or a number from 0 to 1"),
        ("/v1/images", {"label": 2}, "label: got 2, wanted one of shoe, bag"),
        ("/v1/images", {"stream": True, "response_format": "png"}, "response_format: a stream has b64_json alone"),
        ("/v1/embeddings", {"input": "天" * 65}, "input: text 0 makes 65 tokens, wanted 1 to 64"),
        ("/v1/embeddings", {"input": ["天", "\u00ad"]}, "input: text 1 makes 0 tokens, wanted 1 to 64"),
        ("/v1/embeddings", {"input": [[1], [2, 99]]}, "input: text 1 has the id 99, wanted 0 to "),
        ("/v1/embeddings", {"dimensions": 39}, "dimensions: got 39, wanted 40"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_without_its_words(client, route, fields, message):
    error = refused(client, route, json.dumps(GOOD[route] | fields))
    assert message in error["message"] and error["param"] in fields
