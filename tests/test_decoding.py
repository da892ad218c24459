"""What a Writer offers beyond plain draws: guesses, many prompts, contexts, sliding, patterns, stops, alternatives, processors, warming."""

import itertools
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from flaxgen.chains import beam, contrastive
from tests import writers

GREEDY = flaxgen.Rule(temperature=0)
PROMPTS = ["天地玄黄", "日月盈昃辰宿列张", "sunny day 天", "宇", "洪荒日月盈昃辰宿列张，天地玄黄。"]


@pytest.fixture(scope="module")
def writer():
    return writers.characters(rule=flaxgen.Rule())


def test_guessing_changes_no_token_and_saves_moves_where_text_repeats(writer):
    prompt, wishes = "日月盈昃" * 4, {"tokens": 40, "rule": flaxgen.Rule(temperature=0, ban=[3])}
    plain, guessed = writer.write([prompt], **wishes), writer.write([prompt], speculate=3, **wishes)
    assert guessed[0][0].tokens == plain[0][0].tokens
    assert guessed.stats.tokens == plain.stats.tokens and guessed.stats.moves < plain.stats.moves


def test_many_prompts_through_few_slots_give_what_each_alone_gives_in_order(writer):
    prompts, seeds = [noisy(seed) for seed in range(23)], list(range(23))
    rules = [flaxgen.Rule(temperature=0, max_tokens=1 + seed % 9) for seed in seeds]
    many = list(writer.write_many(prompts, tokens=16, rule=rules, seed=seeds, slots=3))
    assert [one.tokens for one in many] == [row[0].tokens for row in writer.write(prompts, tokens=16, rule=rules, seed=seeds)]
    assert [len(one.tokens) <= rule.max_tokens for one, rule in zip(many, rules, strict=True)] == [True] * 23


def noisy(seed: int) -> str:
    noise = random.Random(seed)
    return "".join(noise.choices("天地玄黄宇宙洪荒日月盈昃", k=noise.randrange(1, 30)))


def test_an_engine_serves_who_comes_later_and_forgets_who_leaves(writer):
    from flaxgen import jobs

    job = jobs.job(writer.setup, PROMPTS, GREEDY, tokens=12)
    alone = [row[0].tokens for row in writer.write(PROMPTS, tokens=12, rule=GREEDY)]
    running = jobs.free_engine(writer.setup, job, slots=2)
    waiting, done = list(jobs.requests(writer.setup, job)), {}
    for request in waiting[:3]:
        running.submit(request)
    for turn in itertools.count():
        if turn == 2:
            running.cancel(0)
            running.cancel(2)  # still in the queue
        if turn == 3:
            running.submit(waiting[3])
        if turn > 3 and not running.busy:
            break
        done |= {row.name: row.tokens for row in running.step(1) if row.finish != "running"}
    assert done == {name: alone[name] for name in (1, 3)}


def test_a_context_gives_what_its_text_gives_alone_shared_and_mixed(writer):
    wishes = {"tokens": 9, "rule": GREEDY, "samples": 2}
    texts = writer([PROMPTS[0], PROMPTS[4]], **wishes)
    context = writer.read(PROMPTS[0])
    assert writer([context, PROMPTS[4]], **wishes) == texts
    assert writer([context, context], **wishes) == [texts[0]] * 2
    # Of the first only two tokens are shared.
    longer = [writer.read("天地日月", after=context), writer.read(PROMPTS[0] + "宇宙", after=context)]
    assert writer(longer, **wishes) == writer(["天地日月", PROMPTS[0] + "宇宙"], **wishes)


def test_a_context_keeps_no_more_slots_than_its_text_needs_and_serves_an_engine():
    wide = writers.characters(positions=192, rule=GREEDY)
    context = wide.read("天地" * 40)
    assert context.cache.rank_BS.shape == (1, 128)
    many = list(wide.write_many([context, "日月"], tokens=9))
    assert [one.text for one in many] == [texts[0] for texts in wide(["天地" * 40, "日月"], tokens=9)]


def test_a_prompt_gets_as_many_tokens_as_it_would_alone(writer):
    rule = flaxgen.Rule(temperature=0, ban=[3])
    written = writer.write(["天地" * 25, "天"], rule=[rule, rule.replace(max_tokens=30)])
    assert [len(one[0].tokens) for one in written] == [14, 30]


def test_under_a_pattern_the_end_token_is_no_part_of_the_text(writer):
    for (one,) in writer.write(["天地"] * 4, tokens=9, rule=flaxgen.Rule(regex="[天地]+", end=[22]), seed=[1, 2, 3, 4]):
        assert re.fullmatch("[天地]+", one.text)


def test_a_failing_row_among_many_leaves_the_others_alone(writer):
    stuck = flaxgen.Rule(logit_bias=dict.fromkeys([3, *range(6, len(writers.WORDS))], -np.inf), ban=[[5, 5]])
    first, second = writer.write_many(["天", "日月"], tokens=5, rule=[stuck, GREEDY])
    assert "left no token" in first.error and second.error is None and second.text == writer("日月", tokens=5, rule=GREEDY)[0]


def test_sliding_goes_on_as_if_the_latest_half_were_a_new_prompt():
    sliding = writers.characters(longer="sliding", positions=20, rule=GREEDY)
    plain = writers.characters(positions=20, rule=GREEDY)
    rule = flaxgen.Rule(temperature=0, ban=[3])
    drawn = sliding.write(["天地玄黄"], tokens=50, rule=rule)[0][0].tokens
    assert len(drawn) == 50
    ids = sliding.text.encode("天地玄黄")
    slots, keep, wanted, read = 20, 10, [], list(ids)
    apply = jax.jit(plain.model.apply)
    while len(wanted) < 50:
        if len(read) == slots + 1:  # the last token has no slot left: the `keep` before it are read again
            read = read[-keep - 1 :]
        token_BT = np.array([read + [0] * (21 - len(read))])[:, :20]
        logit_BTV, _ = apply(plain.params, token_BT, valid_BT=np.arange(20)[None] < len(read))
        allowed_V = np.asarray(logit_BTV[0, len(read) - 1]).copy()
        allowed_V[[0, 1, 2, 3, 4, len(writers.WORDS), len(writers.WORDS) + 1]] = -np.inf
        wanted.append(int(allowed_V.argmax()))
        read.append(wanted[-1])
    assert drawn == wanted
    assert len(sliding("天地" * 40, tokens=5)[0]) > 0  # a prompt beyond the context


@pytest.mark.parametrize("make", [writers.characters, writers.byte_pairs])
@pytest.mark.parametrize("pattern", ["[天地日月]{2,9}。?", "(sun|月)+", "[123]( [123])*", ".{1,5}"])
def test_what_is_written_under_a_pattern_matches_it_also_when_tokens_run_short(make, pattern, request):
    patterned = make(rule=flaxgen.Rule(temperature=1.5))
    for seed, tokens in itertools.product(range(3), (9, 30)):
        for (one,) in patterned.write(["天地", "日"], tokens=tokens, rule=flaxgen.Rule(temperature=1.5, regex=pattern), seed=seed):
            assert re.fullmatch(pattern, one.text)


PIECES = ["天", "地", "日", "[天地]", "[^日]", ".", "(日|月地?)", "sun", "[1-3]", "\\w"]
REPEATS = ["", "", "?", "*", "+", "{2}", "{1,3}", "{2,}"]


def random_pattern(noise: random.Random) -> str:
    return "".join(noise.choice(PIECES) + noise.choice(REPEATS) for _ in range(noise.randrange(1, 6)))


@pytest.mark.parametrize("make", [writers.characters, writers.byte_pairs])
@pytest.mark.parametrize("patterns", [5, pytest.param(100, marks=pytest.mark.nightly)])
def test_random_patterns_are_matched_or_refused_before_anything_is_drawn(make, patterns):
    noise, matched = random.Random(patterns), 0
    for number in range(patterns):
        patterned = make(rule=flaxgen.Rule(temperature=noise.uniform(0.5, 3)), key=number % 3)
        pattern = random_pattern(noise)
        try:
            written = patterned.write(["天地"] * 3, tokens=noise.randrange(6, 32), rule=flaxgen.Rule(regex=pattern), seed=number)
        except ValueError as error:
            assert "regex" in str(error)
            continue
        assert [one.text for (one,) in written if not re.fullmatch(pattern, one.text)] == []
        matched += 1
    assert matched > patterns / 2


def test_choices_stop_strings_and_reasons_to_finish(writer):
    assert writer("天", tokens=9, rule=flaxgen.Rule(choices=["日月", "sunny day"]))[0] in ("日月", "sunny day")
    free = writer.write(["天地"], tokens=30, rule=flaxgen.Rule(ban=[3]), seed=1)[0][0]
    stop = free.text[10:12]
    one = writer.write(["天地"], tokens=30, rule=flaxgen.Rule(ban=[3], stop=[stop]), seed=1)[0][0]
    assert (one.text, one.finish, free.finish) == (free.text[: free.text.index(stop)], "stop", "length")
    pieces = list(writer.stream("天地", tokens=30, rule=flaxgen.Rule(ban=[3], stop=[stop]), seed=1))
    assert "".join(pieces) == one.text
    assert writer.write(["天"], tokens=9, rule=flaxgen.Rule(regex="日月"))[0][0].finish == "complete"
    assert {row[0].finish for row in writer.write(["天"] * 9, tokens=60, seed=list(range(9)))} >= {"end"}


def test_alternatives_are_the_likeliest_tokens_at_every_place(writer):
    (one,) = writer.write(["天地"], tokens=5, rule=GREEDY, alternatives=3)[0]
    assert [len(place) for place in one.top] == [3] * len(one.tokens)
    for token, log_prob, place in zip(one.tokens, one.log_probs, one.top, strict=True):
        values = [value for _, value in place]
        assert values == sorted(values, reverse=True)
        assert dict(place).get(token, log_prob) == pytest.approx(log_prob, abs=1e-6)


def no_same_again(logit_BV, token_BS, length_B):
    """A user's own processor: the last token may not come twice in a row."""
    last_B = jnp.take_along_axis(token_BS, length_B[:, None] - 1, axis=1)[:, 0]
    return jnp.where(jnp.arange(logit_BV.shape[1])[None] == last_B[:, None], -jnp.inf, logit_BV)


def test_a_users_own_processor_joins_the_rule_in_batches_engines_and_searches():
    own = writers.characters(processors=(no_same_again,))
    for written in (
        own.write(["天天"], tokens=20)[0],
        own.write_many(["天天"], tokens=20),
        own.write(["天天"], tokens=9, search=beam.Search())[0],
    ):
        for one in written:
            assert all(a != b for a, b in itertools.pairwise([5, *one.tokens]))


def test_searches_come_best_first_with_their_scores(writer):
    result = writer.write(["天地", "日月盈"], tokens=9, search=beam.Search(beams=4, returned=3))
    for several in result:
        assert len(several) == 3 and [one.score for one in several] == sorted((one.score for one in several), reverse=True)
    alone = writer.write(["日月盈"], tokens=9, search=beam.Search(beams=4, returned=3))[0]
    assert [one.tokens for one in alone] == [one.tokens for one in result[1]]
    assert len(writer("天地", tokens=9, search=contrastive.Search())) == 1


def test_every_result_carries_its_speed(writer):
    stats = writer("天地", tokens=9, samples=2).stats
    assert 2 <= stats.tokens <= 18 and 0 < stats.first_token_seconds < stats.seconds
    assert stats.tokens_per_second == stats.tokens / stats.seconds
    assert stats.moves == 0 or 0 < stats.bandwidth_share < 2


def random_rule(noise: random.Random) -> flaxgen.Rule:
    """Any field of a rule, or several that go together."""
    wishes = {
        "temperature": noise.uniform(0, 2),
        "top_k": noise.randrange(9),
        "top_p": noise.random(),
        "top_p_below": noise.random(),
        "min_p": noise.uniform(0, 0.2),
        "typical_p": noise.random(),
        "repetition_penalty": noise.uniform(0.5, 2),
        "presence_penalty": noise.uniform(-2, 2),
        "frequency_penalty": noise.uniform(-2, 2),
        "logit_bias": {noise.randrange(5, 20): noise.uniform(-5, 5) for _ in range(noise.randrange(4))},
        "stop": [["月"], ["天地", "sun"], []][noise.randrange(3)],
    }
    wishes |= noise.choice(
        [
            {"no_repeat_ngram": noise.randrange(4), "min_tokens": noise.randrange(9), "ban": [noise.randrange(21, 25), [5, 6], "日月"]},
            {"max_tokens": noise.randrange(1, 16), "end": [3, 7], "min_ends": noise.randrange(1, 3)},
            {"regex": noise.choice(["[天地]{1,5}", "日月?(盈|昃)*", ".{2,4}"])},
            {"choices": ["日月", "天地玄黄", "sunny day"]},
        ]
    )
    kept = set(noise.sample(sorted(wishes), noise.randrange(1, len(wishes))))
    kept -= {"stop"} if kept & {"regex", "choices"} else set()
    return flaxgen.Rule(**{name: wishes[name] for name in kept})


@pytest.mark.parametrize("requests", [60, pytest.param(500, marks=pytest.mark.nightly)])
def test_requests_of_every_kind_compile_nothing_after_warming_up(requests):
    warmed = writers.characters()
    warmed.warm((2,), (16,), tokens=(16,), families=("plain", "full", "constrained"), exact=True, slots=2)
    compiled, noise = [], random.Random(3)
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    try:
        for seed in range(requests):
            prompts = ["天" * noise.randrange(1, 17) for _ in range(2)]
            rules, wishes = [random_rule(noise) for _ in prompts], {"tokens": 16, "seed": seed}
            kind = noise.randrange(4)
            if kind == 0:
                warmed.write(prompts, rule=rules, **wishes)
            elif kind == 1:
                list(warmed.write_many(prompts * noise.randrange(1, 4), rule=rules[0], slots=2, **wishes))
            elif kind == 2:
                warmed.write(prompts[:1] * noise.randrange(1, 6), rule=rules[0], exact=True, **wishes)
            else:
                list(warmed.stream(prompts[0], rule=rules[0], exact=True, **wishes))
    finally:
        jax.monitoring.clear_event_listeners()
    assert [name for name in compiled if name.endswith("backend_compile_duration")] == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: w("天", rule=flaxgen.Rule(regex="日{9}"), tokens=5), "9 tokens"),
        (lambda w: w("天", rule=flaxgen.Rule(regex="z")), "regex"),
        (lambda w: w("天", rule=flaxgen.Rule(regex="日", choices=["日"])), "choices"),
        (lambda w: w("天", rule=flaxgen.Rule(min_tokens=9), tokens=5), "min_tokens"),
        (lambda w: w(["天", "地"], rule=[flaxgen.Rule()]), "a list of 2"),
        (lambda w: w("天", speculate=-1), "speculate=-1"),
        (lambda w: w("天", alternatives=1.5), "alternatives=1.5"),
        (lambda w: w("天", search=beam.Search(), samples=2), "samples=2"),
        (lambda w: w("天", search=beam.Search(), exact=True), "only draws are exact"),
        (lambda w: w("天", search=beam.Search(), rule=flaxgen.Rule(top_p=0.5)), "top_p"),
        (lambda w: w.write_many(["天", ""], tokens=5), "empty"),
        (lambda w: w.write_many(["天"], tokens=5, slots=0), "slots=0"),
        (lambda w: w.read(""), "empty"),
        (lambda w: w.warm(tables=9), "tables=9"),
        (lambda w: w.warm(tokens=(64,)), "tokens=64"),
        (lambda w: flaxgen.Writer(w.model, w.params, w.text, longer="for ever"), "longer="),
        (lambda w: w.stream("天", samples=2), "samples"),
    ],
)
def test_what_cannot_be_done_says_why_at_the_door(writer, call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call(writer)


def test_a_rule_that_leaves_nothing_to_choose_is_an_error_of_its_row(writer):
    everything = [[a, b] for a in range(5, 10) for b in range(5, 10)]
    rule = flaxgen.Rule(temperature=0, logit_bias=dict.fromkeys([3, *range(10, len(writers.WORDS))], -np.inf), ban=everything)
    with pytest.raises(ArithmeticError, match="prompt 0: the rule left no token"):
        writer("天", tokens=5, rule=rule)
