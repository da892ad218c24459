"""Strange texts and random wishes to the routes of our own: answered or refused with reasons, never failing, nothing compiled."""

import random

import pytest

from tests import serving

STRANGE = [
    *serving.LINE,
    *"天地玄黄宇宙洪荒日月？,，。SunnyDAY12 ｱ½㍿한각\"'\\\u0301\u00ad\u200b\u202e\x00\x7f\ufeff\u2028\u3000\t\n\uffff\U0010ffff🙂ﬁİß",
]
STRANGE += ["👨‍👩‍👧", "[MASK]", "[SEP]", "[CLS]", "[UNK]", "{0}", "%s"]


def text(noise: random.Random, most: int) -> str:
    return "".join(noise.choices(STRANGE, k=noise.randint(0, most)))


def wishes(noise: random.Random) -> tuple[str, dict]:
    """A route and a body that fits its table of limits, more or less."""
    match noise.randrange(4):
        case 0:
            rules = {name: noise.random() < 0.5 for name in ("tones", "ends", "repeats", "fresh")}
            rules["book"] = noise.choice(("mandarin", "pingshui"))
            asked = {"best": noise.randint(1, 20), "alternatives": noise.randint(0, 20), "rules": rules}
            return "/v1/couplets", {"line": text(noise, 40)} | asked
        case 1:
            passages = [text(noise, noise.choice((5, 60, 400))) for _ in range(noise.randint(1, 10))]
            asked = {"mode": noise.choice(("extractive", "generative")), "beams": noise.randint(1, 4)}
            return "/v1/reading", {"question": text(noise, 20), "passages": passages} | asked
        case 2:
            several = [text(noise, 30) for _ in range(noise.randint(0, 20))]
            ids = [[noise.randint(0, 40) for _ in range(9)] for _ in range(9)]
            return "/v1/embeddings", {"input": noise.choice((text(noise, 50), several, ids, ids[0]))}
        case _:
            asked = {"samples": noise.randint(1, 16), "moves": noise.randint(1, 30), "every": noise.randint(1, 50)}
            label = noise.choice((None, 0, 1, 2, text(noise, 4)))
            return "/v1/images", asked | {"label": label, "seed": noise.randint(0, 2**32 - 1), "stream": noise.random() < 0.3}


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_whatever_is_asked_is_answered_or_refused_and_compiles_nothing(served, count):
    noise, before, codes = random.Random(count), served.compilations(), set()
    with served.client() as client:
        for _ in range(count):
            route, body = wishes(noise)
            answer = client.post(route, json=body)
            codes.add(answer.status_code)
            assert answer.status_code in (200, 400), (route, body, answer.text)
            line = body.get("line", "").strip()
            assert answer.status_code == 200 or len(line) < 4 or line not in answer.json()["error"]["message"]
    assert codes == {200, 400} and served.compilations() == before
