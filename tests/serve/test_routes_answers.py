"""Couplets, answers, pictures and vectors over HTTP: what the pipelines give by themselves, and nothing that compiles."""

import base64
import io
import json
import time

import jax
import numpy as np
import PIL.Image
import pytest

from flaxgen import couplets, gallery
from flaxgen.serve import embeddings, pictures, settings
from flaxgen.text import tones
from tests import painters, serving

GIVEN = ["天地 玄黄，宇宙Sunny。", "日月盈昃辰宿列张天地玄黄宇宙洪荒日月", "日月"]


@pytest.fixture(scope="module")
def client(served):
    with served.client() as client:
        yield client


def asked(client, route: str, **body) -> dict:
    answer = client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def pixels(png: bytes) -> np.ndarray:
    found = np.asarray(PIL.Image.open(io.BytesIO(png)))
    return found[..., None] if found.ndim == 2 else found


def images(answer: dict) -> np.ndarray:
    return np.stack([pixels(base64.b64decode(one["b64_json"])) for one in answer["data"]])


def chunks(client, route: str, **body) -> list[dict]:
    with client.stream("POST", route, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        *lines, last, end = answer.read().decode().split("\n\n")
    assert last == "data: [DONE]" and end == ""
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize("book", ["mandarin", "pingshui"])
def test_couplets_are_those_of_the_writer(served, client, book):
    rules = {"tones": True, "ends": False, "repeats": True, "fresh": False, "book": book}
    got = asked(client, "/v1/couplets", line="晚风摇 树树还挺", best=3, alternatives=2, rules=rules)
    wanted = served.pipelines["couplets"]("晚风摇树树还挺", best=3, alternatives=2, rules=couplets.Rules(**rules))
    assert got["object"] == "couplets" and got["model"] == "tiny-couplets" and tones.load(book)
    for one, other in zip(got["couplets"], wanted, strict=True):
        places = [[(pair["text"], pair["probability"]) for pair in place] for place in one["alternatives"]]
        assert (one["upper"], one["text"], one["score"], one["unknown"]) == (other.upper, other.text, other.score, other.unknown)
        assert places == other.alternatives and len(places) == 7


def test_by_default_there_is_one_couplet_by_all_rules(served, client):
    got = asked(client, "/v1/couplets", line="天风，敏树")
    (one,), (wanted,) = got["couplets"], served.pipelines["couplets"]("天风，敏树")
    assert (one["text"], one["unknown"], one["alternatives"]) == (wanted.text, "敏", [[]] * 5)


@pytest.mark.parametrize("mode", ["extractive", "generative"])
@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_those_of_the_reader(served, client, mode, beams):
    got = asked(client, "/v1/reading", question="天地？", passages=GIVEN, mode=mode, beams=beams)
    wanted = served.models.reading.reader("天地？", GIVEN, mode=mode, beams=beams)
    assert (got["text"], got["quote"], got["passage"]) == (wanted.text, wanted.quote, wanted.passage)
    assert got["span"] == (wanted.span and list(wanted.span)) and got["dismissed"] == list(wanted.dismissed)
    assert (got["cut"], got["question_cut"], len(got["chances"])) == ([1], False, 3)
    assert (got["score"], got["confidence"], got["chances"]) == (wanted.score, wanted.confidence, list(wanted.chances))


def test_a_span_counts_code_points(client):
    got = asked(client, "/v1/reading", question="天地？", passages=["🙂🙂" + GIVEN[0]])
    start, end = got["span"]
    assert ("🙂🙂" + GIVEN[0])[start:end] == got["quote"]


def test_pictures_are_those_of_the_painter(served, client):
    painter = served.pipelines["images"]
    got = asked(client, "/v1/images", samples=5, seed=3)
    np.testing.assert_array_equal(images(got), painter(5, seed=3))
    assert [one["label"] for one in got["data"]] == ["shoe", "bag", "shoe", "bag", "shoe"] and got["moves"] == 12
    for label in ("BAG", 1):
        got = asked(client, "/v1/images", samples=2, seed=4, label=label, moves=7)
        np.testing.assert_array_equal(images(got), painter(2, seed=4, label=1, moves=7))
        assert [one["label"] for one in got["data"]] == ["bag"] * 2
    answer = client.post("/v1/images", json={"samples": 5, "seed": 3, "response_format": "png"})
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(pixels(answer.content), gallery.grid(painter(5, seed=3)))


def test_a_stream_of_pictures_goes_from_noise_to_what_a_call_gives(served, client):
    found = chunks(client, "/v1/images", samples=3, seed=3, every=5)
    assert [one["move"] for one in found] == [0, 1, 6, 11, 12] and {one["moves"] for one in found} == {12}
    for one, frame_BYXC in zip(found, served.pipelines["images"].stream(3, seed=3, every=5), strict=True):
        np.testing.assert_array_equal(images(one), frame_BYXC)
    assert found[0]["object"] == "images.chunk" and [one["label"] for one in found[0]["data"]] == ["shoe", "bag", "shoe"]
    assert len(chunks(client, "/v1/images", samples=1, moves=1000)) <= 60


def test_a_client_that_leaves_a_stream_of_pictures_frees_the_lane(served, client):
    lane = served.models.images.lane
    with client.stream("POST", "/v1/images", json={"samples": 16, "moves": 1000, "stream": True}) as answer:
        next(answer.iter_raw())
        assert lane.waiting == 1
    end = time.monotonic() + 5
    while lane.waiting and time.monotonic() < end:
        time.sleep(0.005)
    assert lane.waiting == 0


def test_vectors_of_a_writer_are_the_mean_of_what_its_last_layer_gives(served, client):
    writer = served.pipelines["completions"]
    got = asked(client, "/v1/embeddings", input="天地玄黄")
    token_BT = np.array([writer.text.encode("天地玄黄")])
    hidden_BTD, _ = jax.jit(lambda params: writer.model.apply(params, token_BT, head="hidden"))(writer.params)
    wanted_D = hidden_BTD[0].mean(axis=0)
    np.testing.assert_allclose(got["data"][0]["embedding"], wanted_D / np.linalg.norm(wanted_D), atol=1e-5)
    assert got["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_a_vector_is_the_same_whatever_stands_beside_it(served, client):
    texts = ["天" * count for count in (1, 40, 3, 33, 9, 31, 2, 60, 5, 17)]
    together = [one["embedding"] for one in asked(client, "/v1/embeddings", input=texts)["data"]]
    for text, vector in zip(texts, together, strict=True):
        (alone,) = asked(client, "/v1/embeddings", input=[served.pipelines["completions"].text.encode(text)])["data"]
        np.testing.assert_allclose(alone["embedding"], vector, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_the_openai_client_reads_vectors_of_both_encodings(served):
    client = served.openai
    packed = client.embeddings.create(model="tiny-writer", input=["天地", "日月"])
    plain = client.embeddings.create(model="tiny-writer", input=["天地", "日月"], encoding_format="float", dimensions=40)
    assert [one.index for one in packed.data] == [0, 1] and packed.usage.prompt_tokens == 4
    for one, other in zip(packed.data, plain.data, strict=True):
        assert np.array_equal(np.float32(one.embedding), np.float32(other.embedding)) and len(one.embedding) == 40


def test_nothing_compiles_whatever_is_asked(served, client):
    before = served.compilations()
    for length in (1, 13, 32):
        asked(client, "/v1/couplets", line="天" * length, best=20, alternatives=20, rules={"repeats": False, "fresh": False})
    for count in (1, 2, 3, 10):
        asked(client, "/v1/reading", question="天" * count, passages=["日月盈昃"] * count, beams=min(count, 4))
    asked(client, "/v1/reading", question="天", passages=["玄" * 3000] * 7, mode="generative", beams=2)
    for samples in (1, 2, 7, 9, 16):
        asked(client, "/v1/images", samples=samples, moves=samples, label="shoe", seed=2**32 - 1)
        client.post("/v1/images", json={"samples": samples, "response_format": "png"})
        chunks(client, "/v1/images", samples=samples, moves=3)
    for width in (1, 33, 64):
        asked(client, "/v1/embeddings", input=["天" * width] * width)
    assert served.compilations() == before


@pytest.fixture(scope="module")
def others():
    """A server of what the first one has not: an encoder, and a flow that paints."""
    from tests import test_encoder

    given = settings.Settings(port=0)
    made = {"images": painters.of_flow(), "embeddings": test_encoder.encoder(outputs=("mlm",))}
    parts = [pictures.Pictures(given, made["images"], "flow"), embeddings.Embeddings(given, made["embeddings"], "encoder")]
    found = serving.listen(given, serving.models.Models(parts), made)
    yield found
    serving.stop(found)


def test_vectors_of_an_encoder_are_the_encoders(others):
    texts = ["天地玄黄", "sunny day", "宇宙" * 12]
    with others.client() as client:
        got = asked(client, "/v1/embeddings", input=texts, model="encoder")
        refused = client.post("/v1/embeddings", json={"input": "天" * 39})
    assert refused.status_code == 400 and "makes 41 tokens, wanted 1 to 40" in refused.json()["error"]["message"]
    wanted_ND = others.pipelines["embeddings"](texts, pooling="mean", unit=True)
    np.testing.assert_allclose([one["embedding"] for one in got["data"]], wanted_ND, atol=1e-5)


def test_a_server_without_a_writer_tells_of_itself(others):
    with others.client() as client:
        assert [client.get(path).status_code for path in ("/health", "/ready", "/metrics", "/v1/models")] == [200] * 4


def test_a_flow_paints_at_once_and_knows_no_classes(others):
    with others.client() as client:
        before = others.compilations()
        for samples in (1, 3, 16):
            got = asked(client, "/v1/images", samples=samples, seed=9)
            np.testing.assert_array_equal(images(got), others.pipelines["images"](samples, seed=9))
        (frame,) = chunks(client, "/v1/images", samples=3, seed=9)
        assert (frame["move"], frame["moves"], frame["data"][0]["label"]) == (1, 1, None)
        assert others.compilations() == before
        for name, value in (("label", "bag"), ("moves", 5)):
            error = client.post("/v1/images", json={name: value}).json()["error"]
            assert error["param"] == name and "'flow', has none, so leave it out" in error["message"]
        missing = client.post("/v1/couplets", json={"line": "天"})
        assert missing.status_code == 404 and missing.json()["error"]["code"] == "no_model"
