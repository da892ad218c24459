"""Streamed texts: pieces of whole characters that join to the text, whatever its bytes are, and nothing of the prompt among them."""

import concurrent.futures
import json
import random

import numpy as np
import pytest

from flaxgen import engine, rules
from flaxgen.serve import choices
from tests import serving, writers

PROMPT = "祕密☃"
TEXTS = (
    "👩‍👩‍👧‍👦 et 🏳️‍🌈",  # joined emoji
    "𠮷野家𝄞",  # beyond the first plane: surrogate pairs in UTF-16
    "e\u0301a\u0308\u0323 각",  # combining marks
    "a\r\nb\rc\n\r\n",
    "\x00\x01\x7f\x80\x9f\u2028\u2029\ufeff",
    "data: [DONE]\n\ndata: {}",
    'quotes " and \\ and </script>',
    "混 mixed Ελ עב हि ไท",
)


@pytest.fixture(scope="module")
def client():
    found = serving.writing(writers.byte_pairs(), slots=4, queue=64)
    with found.client() as made:
        yield made
    serving.stop(found)


def pieces(client, **wishes) -> list[str]:
    answer = client.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 50, "stream": True} | wishes)
    assert answer.status_code == 200, answer.text
    *events, done, rest = answer.content.decode().split("\n\n")  # strictly: each event is whole characters
    assert done == "data: [DONE]" and rest == ""
    return [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]


def whole(client, **wishes) -> str:
    answer = client.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 50} | wishes)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def random_text(noise: random.Random) -> str:
    """Up to 12 characters of all lengths in UTF-8."""
    ranges = ((0x00, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))
    return "".join(chr(noise.randint(*noise.choice(ranges))) for _ in range(noise.randint(1, 12)))


def check_forced(client, text: str) -> None:
    found = pieces(client, choices=[text])
    assert "".join(found) == text == whole(client, choices=[text])
    assert all(piece.encode() for piece in found[:-1])  # a surrogate alone could not be encoded


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_streamed_in_whole_characters(client, text):
    check_forced(client, text)


@pytest.mark.parametrize("count", [20, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_random_characters_of_all_lengths_are_streamed_whole(client, count):
    noise = random.Random(count)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: check_forced(client, text), [random_text(noise) for _ in range(count)]))


def test_what_a_pattern_draws_is_streamed_as_it_is_given_whole(client):
    for seed in range(6):
        wishes = {"regex": "(👍🏽|é|\r\n|𠮷|ü){3,8}", "seed": seed}
        found = pieces(client, **wishes)
        assert "".join(found) == whole(client, **wishes) and "\ufffd" not in "".join(found)


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.nightly)])  # bytes 0, 9, 18, … of every kind, or all 256
def test_each_byte_is_streamed_and_only_a_bad_one_becomes_the_replacement_character(client, step):
    def check(byte: int) -> None:
        wishes = {"logit_bias": {str(byte): 100}, "temperature": 0, "max_tokens": 3}
        said = "".join(pieces(client, **wishes))
        assert said == whole(client, **wishes) == bytes([byte] * 3).decode(errors="replace")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(0, 256, step)))


def test_unforced_texts_are_the_same_streamed_and_whole_and_never_hold_the_prompt(client):
    for seed in range(6):
        found = "".join(pieces(client, seed=seed))
        assert found == whole(client, seed=seed) and PROMPT not in found


@pytest.mark.parametrize("count", [3_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])
def test_a_choice_gives_out_random_bytes_in_whole_characters_however_its_row_grows(count):
    noise, text = random.Random(count), writers.byte_pairs().text
    for _ in range(count):
        given = random_text(noise).encode() if noise.random() < 0.5 else noise.randbytes(noise.randint(1, 24))
        ids = list(given)  # the tokens of the vocabulary are the bytes in their order
        choice, said, at = choices.Choice(0, text, text.encode(PROMPT), rules.Rule(), None, None), "", 0
        while at < len(ids):
            at = min(at + noise.randint(1, 3), len(ids))
            drawn = np.array(ids[:at])
            choice.grow(engine.Row(0, drawn, np.zeros(at), "length" if at == len(ids) else "running", at))
            said += (choice.piece() or {"text": ""})["text"]
            assert given.decode(errors="replace").startswith(said)
        assert choice.done and said == given.decode(errors="replace")
