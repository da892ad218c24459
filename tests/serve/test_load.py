"""What a request gets does not depend on who else is served: the same bits alone and in any company."""

import concurrent.futures
import json
import random

import pytest

from flaxgen.serve import limits
from tests import writers

NEEDLE = {"prompt": "天地玄黄宇宙", "seed": 7, "max_tokens": 16, "temperature": 1.3, "logprobs": 5}


def company(noise: random.Random) -> dict:
    """A request of any kind."""
    prompt = "".join(noise.choices(writers.WORDS[5:23], k=noise.randrange(1, 40)))
    more = noise.choice([{}, {"n": 3}, {"regex": "[天地日月]{3,}。"}, {"stop": "月"}, {"temperature": 0}, {"echo": True, "logprobs": 1}])
    return {"prompt": prompt, "seed": noise.randrange(limits.SEEDS), "max_tokens": noise.randrange(4, 20)} | more


def bits(answer) -> str:
    """The choices of a completion, with every digit of their log-probabilities."""
    assert answer.status_code == 200, answer.text
    return json.dumps(answer.json()["choices"])


@pytest.mark.parametrize("times", [25, pytest.param(1000, marks=pytest.mark.nightly)])
def test_a_request_has_the_same_bits_in_any_company(served, times):
    noise = random.Random(times)
    with served.client() as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        alone = bits(client.post("/v1/completions", json=NEEDLE))
        found = {alone}
        for _ in range(times):
            others = [pool.submit(client.post, "/v1/completions", json=company(noise)) for _ in range(noise.randrange(4))]
            found.add(bits(client.post("/v1/completions", json=NEEDLE)))
            assert [other.result().text for other in others if other.result().status_code != 200] == []
    assert found == {alone}


def test_prompts_and_samples_of_one_request_have_the_bits_they_have_alone(served):
    with served.client() as client:
        one, two = (json.loads(bits(client.post("/v1/completions", json=NEEDLE | {"prompt": prompt}))) for prompt in ("天地", "日月盈昃"))
        both = json.loads(bits(client.post("/v1/completions", json=NEEDLE | {"prompt": ["天地", "日月盈昃"], "n": 4})))
    assert [both[0], both[4]] == [one[0], two[0] | {"index": 4}]
