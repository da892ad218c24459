"""/v1/completions by the openai client, which knows nothing of flaxgen, against the writer itself."""

import concurrent.futures
import time

import httpx
import openai
import pytest

from flaxgen import rules
from flaxgen.serve import kinds, limits

MODEL = "tiny-writer"


@pytest.fixture(scope="module")
def client(served):
    with served.openai as made:
        yield made.completions


@pytest.fixture(scope="module")
def writer(served):
    return served.pipelines["completions"]


def text_of(chunks) -> str:
    return "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def refused(client, **wishes) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        client.create(**{"model": MODEL, "prompt": "天地"} | wishes)
    return caught.value


def test_a_completion_is_what_the_writer_gives(client, writer):
    answer = client.create(model=MODEL, prompt="天地玄黄", seed=5, max_tokens=9)
    (choice,) = answer.choices
    assert choice.text == writer("天地玄黄", seed=5, tokens=9)[0] and choice.logprobs is None
    assert (answer.object, answer.model, choice.index) == ("text_completion", MODEL, 0) and choice.finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens == 4 and answer.usage.total_tokens == 4 + answer.usage.completion_tokens


def test_a_stream_gives_the_same_text_and_its_usage_last(client):
    whole = client.create(model=MODEL, prompt="天地", seed=7, max_tokens=12)
    chunks = list(client.create(model=MODEL, prompt="天地", seed=7, max_tokens=12, stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == whole.choices[0].text
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == whole.choices[0].finish_reason
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    plain = client.create(model=MODEL, prompt="天地", seed=7, max_tokens=2, stream=True)
    assert not any("usage" in chunk.model_fields_set for chunk in plain)


def test_several_prompts_have_several_choices_each_in_their_order(client, writer):
    answer = client.create(model=MODEL, prompt=["天地", "日月"], n=3, seed=2, max_tokens=6)
    assert [choice.text for choice in answer.choices] == [
        text for prompt in ("天地", "日月") for text in writer(prompt, samples=3, seed=2, tokens=6)
    ]
    assert [choice.index for choice in answer.choices] == list(range(6)) and answer.usage.prompt_tokens == 4
    streamed = ["" for _ in range(6)]
    for chunk in client.create(model=MODEL, prompt=["天地", "日月"], n=3, seed=2, max_tokens=6, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in answer.choices]


def test_ids_are_prompts_too(client, writer):
    ids = writer.text.encode("天地玄黄")
    by_text, by_ids, listed = (client.create(model=MODEL, prompt=prompt, seed=1, max_tokens=5) for prompt in ("天地玄黄", ids, [ids]))
    assert by_text.choices == by_ids.choices == listed.choices


def test_log_probabilities_are_those_of_the_writer(client, writer):
    answer = client.create(model=MODEL, prompt="天地", seed=4, max_tokens=5, logprobs=3, extra_body={"min_tokens": 5})
    (one,) = writer.write(["天地"], seed=4, tokens=5, alternatives=3, rule=writer.rule.replace(min_tokens=5))[0]
    facts = answer.choices[0].logprobs
    assert facts.token_logprobs == pytest.approx(one.log_probs, abs=1e-4) and len(facts.tokens) == 5
    for drawn, others, likeliest in zip(facts.tokens, facts.top_logprobs, one.top, strict=True):
        assert drawn in others and max(others.values()) == pytest.approx(likeliest[0][1], abs=1e-4) and 3 <= len(others) <= 4
    assert [answer.choices[0].text[at:][:1] for at in facts.text_offset[:1]] == [answer.choices[0].text[:1]]
    streamed = list(client.create(model=MODEL, prompt="天地", seed=4, max_tokens=5, logprobs=3, extra_body={"min_tokens": 5}, stream=True))
    assert [token for chunk in streamed for token in chunk.choices[0].logprobs.tokens] == facts.tokens


def test_an_echoed_prompt_comes_first_and_can_be_scored_without_drawing(client, writer):
    answer = client.create(model=MODEL, prompt="天地玄黄", echo=True, max_tokens=0, logprobs=1)
    facts = answer.choices[0].logprobs
    assert answer.choices[0].text == "天地玄黄" and answer.usage.completion_tokens == 0 and answer.choices[0].finish_reason == "length"
    assert facts.token_logprobs[0] is None and facts.token_logprobs[1:] == pytest.approx(writer.score("天地玄黄").log_probs, abs=1e-4)
    assert facts.tokens == list("天地玄黄") and facts.text_offset == [0, 1, 2, 3]
    whole = client.create(model=MODEL, prompt="天" * 64, echo=True, max_tokens=0, logprobs=0).choices[0]
    assert len(whole.logprobs.tokens) == 64 and whole.text == "天" * 64  # as many as the context holds
    likeliest = [writer.write([prefix], tokens=1, alternatives=1)[0][0].top[0][0] for prefix in ("天", "天地", "天地玄")]
    for others, (token, value) in zip(facts.top_logprobs[1:], likeliest, strict=True):
        assert max(others.values()) == pytest.approx(value, abs=1e-4) and others[writer.text.decode([token]) or writer.text.tokens[token]]
    longer = client.create(model=MODEL, prompt="天地", echo=True, seed=3, max_tokens=4, stream=True)
    assert text_of(longer) == "天地" + client.create(model=MODEL, prompt="天地", seed=3, max_tokens=4).choices[0].text


def test_stop_regex_choices_and_bans_are_the_rules_of_the_library(client, writer):
    free = client.create(model=MODEL, prompt="天地", seed=6, max_tokens=20, extra_body={"min_tokens": 20}).choices[0].text
    stopped = client.create(model=MODEL, prompt="天地", seed=6, max_tokens=20, stop=[free[3]], extra_body={"min_tokens": 20}).choices[0]
    assert stopped.text == free[: free.index(free[3])] and stopped.finish_reason == "stop"
    matching = client.create(model=MODEL, prompt="天地", seed=6, max_tokens=9, extra_body={"regex": "[日月]{3}。"}).choices[0]
    assert set(matching.text[:3]) <= set("日月") and matching.text[3:] == "。"
    chosen = client.create(model=MODEL, prompt="天地", seed=6, max_tokens=9, extra_body={"choices": ["玄黄", "宇宙"]}).choices[0]
    assert chosen.text in ("玄黄", "宇宙")
    (banned,) = writer.text.encode("天")
    biased = client.create(model=MODEL, prompt="地", seed=6, max_tokens=8, logit_bias={str(banned): 100}, temperature=0).choices[0]
    assert set(biased.text) == {"天"}
    assert "天" not in client.create(model=MODEL, prompt="地", max_tokens=8, n=4, extra_body={"ban": ["天"]}).choices[0].text


def test_a_request_gets_the_same_text_alone_and_among_others(client, served):
    def ask(number):
        return client.create(model=MODEL, prompt="天地玄黄"[: 1 + number % 4], seed=number, max_tokens=16, logprobs=1).choices

    alone = [ask(number) for number in range(12)]
    before = served.compilations()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == alone
    assert served.compilations() == before
    assert settled(served)


SECRET = "天地不可告人"


@pytest.mark.parametrize(
    "wishes",
    [{"regex": f"({SECRET}"}, {"choices": [SECRET, SECRET]}, {"stop": [SECRET], "regex": SECRET}, {"ban": [SECRET], "regex": SECRET}],
)
def test_no_word_of_a_rule_stands_in_an_error(served, wishes):
    with served.client() as client:
        error = client.post("/v1/completions", json={"prompt": "天", "max_tokens": 9} | wishes).json()["error"]
    assert error["param"] in wishes and SECRET not in error["message"] and error["code"] == "rule"


def test_without_a_seed_texts_differ(client):
    texts = {client.create(model=MODEL, prompt="天地", max_tokens=16, extra_body={"min_tokens": 16}).choices[0].text for _ in range(4)}
    assert len(texts) > 1


@pytest.mark.parametrize(
    ("wishes", "param", "words"),
    [
        ({"prompt": " "}, "prompt", "makes no token"),
        ({"prompt": [999]}, "prompt", "got the id 999, wanted 0 to"),
        ({"prompt": ["a"] * 17}, "prompt", "a list of 17 entries"),
        ({"n": 17}, "n", "got 17, wanted a whole number from 1 to 16"),
        ({"n": 11, "prompt": ["天"] * 2}, "n", "wanted at most 20 texts in all"),
        ({"max_tokens": 100}, "max_tokens", "the model's context holds 64"),
        ({"max_tokens": 4097}, "max_tokens", "got 4097, wanted a whole number from 0 to 4096"),
        ({"logprobs": 6}, "logprobs", "got 6"),
        ({"seed": 2**32}, "seed", "got 4294967296"),
        ({"best_of": 3}, "best_of", "got 3, wanted n, which is 1"),
        ({"suffix": "x"}, "suffix", "not served"),
        ({"stop": ["a"] * 9}, "stop", "a list of 0 to 8 entries"),
        ({"stop": [""]}, "stop", "1 to 64 characters"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "-100 to 100"),
        ({"logit_bias": {"999": 1}}, "logit_bias", "999"),
        ({"temperature": -1}, "temperature", "got -1"),
        ({"extra_body": {"regex": "("}}, "regex", "regex"),
        ({"extra_body": {"regex": "a", "choices": ["b"]}}, "regex", "one of the two"),
        ({"extra_body": {"regex": "(.{0,50}){0,50}"}}, "regex", "smaller repeat counts"),
        ({"extra_body": {"min_tokens": 9}, "max_tokens": 3}, "min_tokens", "min_tokens"),
        ({"extra_body": {"nonsense": 1}}, "nonsense", "unknown field nonsense"),
        ({"model": "gpt-4"}, "model", "there is 'tiny-writer'"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(client, wishes, param, words):
    error = refused(client, **wishes)
    assert error.status_code == (404 if "model" in wishes else 400)
    assert error.param == param
    assert words in error.body["message"]


EDGES = ("1", None, True, -1, 2**31, 2**63, 10**90, 1e300, [], {}, "", [None], {"a": 1})


@pytest.mark.parametrize("field", sorted(limits.COMPLETIONS.fields))
def test_every_field_is_checked_at_its_edges_before_anything_runs(served, field):
    kind = limits.COMPLETIONS.fields[field].kind
    values = [*EDGES]
    if isinstance(kind, kinds.Number):
        values += [kind.least - 1, kind.most + 1]
    with served.client() as client:
        for value in values:
            body = {"prompt": "天", "max_tokens": 1} | {field: value}
            answer = client.post("/v1/completions", json=body)
            if kind.wrong(value) is None or (value is None and field != "prompt"):
                assert answer.status_code in (200, 400, 404)
            else:
                error = answer.json()["error"]
                assert answer.status_code == 400 and error["param"].startswith(field) and error["message"].startswith(field), error
                assert ("wanted" in error["message"] or "missing" in error["message"]) and len(error["message"]) < 1000
        assert client.post("/v1/completions", json={"prompt": "天", "max_tokens": 1}).status_code == 200


def settled(served) -> bool:
    """Whether all places are free, after a moment: the engine hears of what has ended between two steps."""
    end = time.monotonic() + 5
    while served.models.completions.texts.live and time.monotonic() < end:
        time.sleep(0.01)
    return served.models.completions.texts.live == 0


def test_a_full_queue_says_when_to_come_again(served):
    texts = served.models.completions.texts

    def ask(number):
        with served.client() as client:
            return client.post("/v1/completions", json={"prompt": "天", "n": 8, "max_tokens": 60, "min_tokens": 60, "seed": number})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429} and statuses.count(200) >= texts.capacity // 8
    late = next(answer for answer in answers if answer.status_code == 429)
    assert late.json()["error"]["type"] == "rate_limit_error" and int(late.headers["retry-after"]) >= 1
    assert settled(served)


def test_the_rule_of_the_model_holds_where_a_request_says_nothing(served):
    given = served.pipelines["completions"]
    assert given.rule == rules.Rule(top_p=0.95)
    with served.client() as client:
        plain, same = (
            client.post("/v1/completions", json={"prompt": "天地", "seed": 3, "max_tokens": 9} | more).json()["choices"]
            for more in ({}, {"top_p": 0.95})
        )
    assert plain == same


def test_a_wrong_route_or_method_has_openais_shape(served):
    with served.client() as client:
        for answer, status in ((client.get("/v1/completions"), 405), (client.get("/v1/nothing"), 404)):
            assert answer.status_code == status and set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx.get(served.url + "/v1/models").status_code == 401
