"""What a server says of itself."""

import re

import openai
import prometheus_client.parser
import pytest

from flaxgen.serve import routes
from tests import serving


@pytest.fixture(scope="module")
def client(served):
    with served.client() as client:
        yield client


@pytest.fixture
def state(served):
    yield served.state
    served.state.draining, served.state.warming = False, "starting"


def test_models_are_listed_with_what_there_is_to_know_of_them(client):
    found = client.get("/v1/models").json()
    assert found["object"] == "list" and all(one["object"] == "model" and one["owned_by"] == "flaxgen" for one in found["data"])
    cards = {task: one for one in found["data"] for task in one["tasks"]}
    assert {task: card["id"] for task, card in cards.items()} == serving.IDS
    assert cards["embeddings"] is cards["completions"] and len({one["id"] for one in found["data"]}) == len(found["data"]) == 4
    assert all(one["task"] == one["tasks"][0] for one in found["data"])
    assert (cards["completions"]["context"], cards["images"]["classes"], cards["images"]["size"]) == (64, ["shoe", "bag"], 6)
    assert (cards["embeddings"]["dimensions"], cards["couplets"]["characters"], cards["images"]["moves"]) == (40, 32, 12)


def test_models_of_one_name_that_are_not_the_same_are_listed_each(served, client, monkeypatch):
    monkeypatch.setattr(served.models.couplets, "id", serving.IDS["completions"])
    found = client.get("/v1/models").json()["data"]
    assert [one["tasks"] for one in found if one["id"] == serving.IDS["completions"]] == [["completions", "embeddings"], ["couplets"]]


def test_the_openai_client_lists_and_finds_models(served):
    models = served.openai.models
    assert {one.id for one in models.list()} == set(serving.IDS.values())
    assert models.retrieve("tiny-painter").id == "tiny-painter"
    with pytest.raises(openai.NotFoundError, match="there is no such model"):
        models.retrieve("gpt-5")


def test_health_and_readiness_tell_what_is_the_matter(client, state, served, monkeypatch):
    def told(path):
        answer = client.get(path)
        return answer.status_code, answer.json()

    assert told("/health") == (200, {"status": "ok"}) and told("/ready") == (200, {"ready": True, "warming": ""})
    state.draining = True
    assert told("/health") == (503, {"status": "draining"}) and told("/ready")[0] == 503
    state.draining = False
    with monkeypatch.context() as patch:
        patch.setattr(served.models.completions.texts, "broken", "RuntimeError")
        assert told("/health") == (503, {"status": "broken"}) and told("/ready") == (503, {"ready": False, "warming": ""})
    state.warming = "couplets of 3 characters"
    monkeypatch.setattr(state, "models", None)
    assert told("/health") == (200, {"status": "ok"}) and told("/ready") == (503, {"ready": False, "warming": "couplets of 3 characters"})
    assert client.get("/v1/models").json()["error"]["code"] == client.post("/v1/images", json={}).json()["error"]["code"] == "warming"


def counts(client) -> dict[str, float]:
    text = client.get("/metrics").text
    found = prometheus_client.parser.text_string_to_metric_families(text)
    return {f"{one.name}{sorted(one.labels.items())}": one.value for family in found for one in family.samples}


def test_counts_are_prometheus_text_without_what_clients_send(client):
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    before = counts(client)
    client.post("/v1/embeddings", json={"input": "天地敏敏", "user": "敏敏"})
    client.post("/敏敏?敏敏", json={"model": "敏敏"})
    after = counts(client)
    assert after["flaxgen_tokens_read_total[]"] == before["flaxgen_tokens_read_total[]"] + 4
    waited = "flaxgen_queue_seconds_count[('task', 'embeddings')]"
    assert after[waited] == before.get(waited, 0) + 1 and after["flaxgen_slots[]"] == 4
    assert after["process_resident_memory_bytes[]"] > 1e6 and after["flaxgen_compilations_total[]"] > 0
    assert "敏" not in client.get("/metrics").text


def test_every_wait_is_counted_for_a_slot_too_and_what_runs_waits_no_more(served, client, monkeypatch):
    def waits(task: str) -> tuple[float, float]:
        found = counts(client)
        return tuple(found.get(f"flaxgen_queue_seconds_{what}[('task', '{task}')]", 0) for what in ("count", "sum"))

    before = {task: waits(task) for task in ("completions", "scoring")}
    asked = {"prompt": "天地", "n": 6, "max_tokens": 9, "min_tokens": 9, "echo": True, "logprobs": 1}
    assert client.post("/v1/completions", json=asked).status_code == 200  # two more than there are slots
    assert waits("completions")[0] == before["completions"][0] + 6 and waits("completions")[1] > before["completions"][1]
    assert waits("scoring")[0] == before["scoring"][0] + 1
    for held, waiting in ((0, 0), (1, 0), (3, 2)):
        monkeypatch.setattr(served.models.images.lane, "waiting", held)
        monkeypatch.setattr(served.models.completions.scoring, "waiting", held)
        found = counts(client)
        assert [found[f"flaxgen_waiting[('task', '{task}')]"] for task in ("images", "scoring", "completions")] == [waiting, waiting, 0]


def test_the_description_has_every_route_and_the_limits_of_every_field(served, client):
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1") and found["security"] == [{"key": []}] and found["paths"]["/health"]["get"]["security"] == []
    there = {route.path for route in served.server.config.app.app.routes} - {"/", "/page"}
    assert set(found["paths"]) == there
    for route, work in routes.WORK.items():
        schema = found["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(schema["properties"]) == set(work.takes.fields) and schema["additionalProperties"] is False
    assert found["paths"]["/v1/images"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["samples"] == {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": 16}, {"type": "null"}]
    }
    assert len(set(re.findall(r'"operationId": ?"(\w+)"', client.get("/openapi.json").text))) == len(there)
