"""Beam search: the originals' answers, plain searches over recomputed prefixes, rows that do not mind each other, refusals."""

import dataclasses
import functools
import itertools
import json
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import little
import numpy as np
import pytest
import searches

import flaxgen
from convert import command
from flaxgen import loop, progress, rules, weights
from flaxgen.chains import autoregressive, beam
from flaxgen.text import wordpiece

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
LIMIT = 13


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    def load(name):
        target = tmp_path_factory.mktemp("beam") / "model"
        assert command.main([str(GOLDEN / name), str(target)]) == 0
        return flaxgen.load(target)[:2]

    return load


def find(search, prompts=little.PROMPTS, tree=None, steps=LIMIT, chain=(), **wishes):
    """The answers of the tiny model, or of another one's (model, params)."""
    model, params = tree if isinstance(tree, tuple) else (little.MODEL, little.params(3) if tree is None else tree)
    wishes.setdefault("limit", steps)
    made, start = search.plan(model, little.given(prompts, **wishes), room=24, **dict(chain))
    return loop.generate(made, params, little.KEY, start, steps=steps)


@pytest.mark.parametrize("topk", [1, 2, 3, 5])
def test_the_answers_are_those_of_bert4keras(converted, topk):
    """All prompts of a width together, each with its own temperature, end token, length and number of ends."""
    cases = json.loads((GOLDEN / "decode" / "beam_search_gpt2_ml.json").read_text())["cases"]
    cases = [case for case in cases if case["topk"] == topk]
    search = beam.Search(beams=topk, convention="bert4keras")
    wishes = [
        rules.Rule(temperature=case["temperature"], min_ends=case["min_ends"], end=[case["end_id"]], max_tokens=case["maxlen"])
        for case in cases
    ]
    length_B = np.array([len(case["prompt"]) for case in cases])
    token_BT = np.stack([np.pad(case["prompt"], (0, 8 - len(case["prompt"]))) for case in cases])
    model, params = converted("bert4keras/gpt2_ml")
    chain, given = search.plan(model, autoregressive.prompt(token_BT, length_B, rule=wishes, limit=24), room=24)
    given = given.replace(minlen_B=np.array([case["minlen"] for case in cases], np.int32))
    assert loop.generate(chain, params, little.KEY, given, steps=24).rows() == [case["output"] for case in cases]


@pytest.fixture(scope="module")
def transformers_gpt2(converted):
    expected = np.load(GOLDEN / "transformers/gpt2/expected.npz")
    length_B = expected["left_mask"].sum(axis=1)
    token_BT = np.stack([np.roll(row, length) for row, length in zip(expected["left_ids"], length_B, strict=True)])
    given = autoregressive.prompt(token_BT, length_B, limit=24, end=[int(expected["eos"])])
    return expected, given, *converted("transformers/gpt2")


def cut(row, end):
    """What was drawn, without the padding after its end."""
    row = row[-24:].tolist()
    return row[: row.index(end) + 1] if end in row else row


def test_the_answers_are_those_of_transformers(transformers_gpt2):
    expected, given, model, params = transformers_gpt2
    chain, given = beam.Search(beams=4, returned=4).plan(model, given, room=24)
    found = loop.generate(chain, params, little.KEY, given, steps=24)
    assert found.rows()[::4] == [cut(row, int(expected["eos"])) for row in expected["beam4"]]


def test_the_best_answers_and_scores_under_a_length_penalty_are_those_of_transformers(transformers_gpt2):
    expected, given, model, params = transformers_gpt2
    chain, given = beam.Search(beams=4, length_penalty=0.6, returned=4).plan(model, given, room=24)
    found = loop.generate(chain, params, little.KEY, given, steps=24)
    assert found.rows() == [cut(row, int(expected["eos"])) for row in expected["beam4_lp0.6_sequences"]]
    np.testing.assert_allclose(found.score_B, expected["beam4_lp0.6_scores"], atol=1e-4)


def likely(tree, prompt, count, seed):
    """Some of the likelier next tokens, which as end tokens end some beams and spare others."""
    _, logit_BTV = little.recompute(tree, [prompt])
    return np.random.default_rng(seed).choice(np.argsort(-logit_BTV[0, len(prompt) - 1])[:9], count, replace=False).tolist()


def wishes_of(tree, seed, ends):
    """A rule a prompt: its own end tokens and length."""
    noise = np.random.default_rng(seed)
    found = [likely(tree, prompt, ends, seed) for prompt in little.PROMPTS]
    return [rules.Rule(end=end, max_tokens=int(noise.integers(3, LIMIT + 1))) for end in found]


def compare(found, wanted, returned):
    """wanted: for each prompt a list of (score, tokens), best first."""
    rows, scores = found.rows(), found.score_B
    for prompt, answers in enumerate(wanted):
        own = range(prompt * returned, (prompt + 1) * returned)
        answers = answers[:returned]
        assert [rows[i] for i in own] == [tokens for _, tokens in answers] + [[]] * (returned - len(answers))
        np.testing.assert_allclose([scores[i] for i in own][: len(answers)], [score for score, _ in answers], atol=1e-4)


SETTINGS = (
    {"beams": 4},
    {"beams": 5, "early_stopping": "never"},
    {"beams": 4, "groups": 2, "early_stopping": True},
    {"beams": 3, "early_stopping": True},
    {"beams": 1},
    {"beams": 6, "groups": 3},
)


@pytest.mark.parametrize("setting", SETTINGS[:3], ids=str)
def test_answers_are_those_of_a_plain_search(setting, cases=4):
    for seed in range(cases):
        tree = little.params(seed)
        penalty = (1.0, 0.6, 0.0, -0.7, 2.0)[seed % 5]
        diversity = (0.8, 0.0, 2.5)[seed % 3] if "groups" in setting else 0.0
        wishes = wishes_of(tree, seed, 1 + seed % 3)
        search = beam.Search(length_penalty=penalty, diversity=diversity, returned=setting["beams"], **setting)
        plain = {"early" if name == "early_stopping" else name: value for name, value in setting.items()}
        wanted = [
            searches.transformers(
                little.predictor(tree, prompt), rule.max_tokens, ends=rule.end, penalty=penalty, diversity=diversity, **plain
            )
            for prompt, rule in zip(little.PROMPTS, wishes, strict=True)
        ]
        compare(find(search, tree=tree, rule=wishes), wanted, setting["beams"])


@pytest.mark.nightly
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_many_answers_are_those_of_a_plain_search(setting):
    test_answers_are_those_of_a_plain_search(setting, cases=60)


@pytest.mark.parametrize("topk", [4])
def test_the_narrowing_search_is_the_plain_one(topk, cases=8):
    narrowed = 0
    for seed in range(cases):
        tree, noise = little.params(seed), np.random.default_rng(seed)
        minlen, temperature, min_ends = int(noise.integers(1, 6)), float(noise.uniform(0.5, 1.6)), int(noise.integers(1, 3))
        wishes = [rule.replace(temperature=temperature, min_ends=min_ends) for rule in wishes_of(tree, seed, 1)]

        def tempered(row_V, ids, drawn, temperature=temperature):
            share_V = np.exp(row_V / temperature)
            return np.log(share_V / share_V.sum() + 1e-12)

        wanted = []
        for prompt, rule in zip(little.PROMPTS, wishes, strict=True):
            predict, widths = little.predictor(tree, prompt, tempered), []

            def watched(rows, predict=predict, widths=widths):
                widths.append(len(rows))
                return predict(rows)

            wanted.append([searches.bert4keras(watched, rule.max_tokens, topk, rule.end[0], minlen, min_ends)])
            narrowed += any(width < topk for width in widths[1:])
        search = beam.Search(beams=topk, convention="bert4keras", minlen=minlen)
        compare(find(search, tree=tree, rule=wishes), wanted, 1)
    assert narrowed >= 3 or topk == 1


@pytest.mark.nightly
@pytest.mark.parametrize("topk", [1, 4, 6])
def test_the_narrowing_search_is_often_the_plain_one(topk):
    test_the_narrowing_search_is_the_plain_one(topk, cases=100)


def ruled(rule):
    """What `rule` makes of log-probabilities, written down plainly."""

    def change(row_V, ids, drawn):
        row_V = row_V.copy()
        for token, value in rule.logit_bias.items():
            row_V[token] += value
        for token in set(ids):
            row_V[token] *= rule.repetition_penalty if row_V[token] < 0 else 1 / rule.repetition_penalty
        for token in drawn:
            row_V[token] -= rule.frequency_penalty
        n = rule.no_repeat_ngram
        for start in range(len(ids) - n + 1 if n else 0):
            if ids[start : start + n - 1] == ids[len(ids) - n + 1 :]:
                row_V[ids[start + n - 1]] = -np.inf
        if len(drawn) < rule.min_tokens:
            row_V[list(rule.end)] = -np.inf
        row_V[list(rule.ban)] = -np.inf
        return row_V

    return change


@pytest.mark.parametrize("groups", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_the_rule_set_steers_every_beam_by_its_own_past(groups):
    shared = {"repetition_penalty": 1.3, "no_repeat_ngram": 2, "min_tokens": 3, "logit_bias": {3: 1.5}, "frequency_penalty": 0.4}
    tree = little.params(5)
    wishes = [rule.replace(**shared, ban=[b + 9, 8], max_tokens=LIMIT) for b, rule in enumerate(wishes_of(tree, 5, 2))]
    wanted = [
        searches.transformers(little.predictor(tree, prompt, ruled(rule)), LIMIT, 4, rule.end, groups=groups, diversity=groups - 1)
        for prompt, rule in zip(little.PROMPTS, wishes, strict=True)
    ]
    search = beam.Search(beams=4, groups=groups, diversity=groups - 1, returned=4)
    compare(find(search, tree=tree, rule=wishes), wanted, 4)


def only_odd(logit_BV, token_BS, length_B):
    """A processor of a user's: never two even tokens in a row."""
    last_B = jnp.take_along_axis(token_BS, length_B[:, None] - 1, axis=1)[:, 0]
    even_V = jnp.arange(logit_BV.shape[1]) % 2 == 0
    return jnp.where((last_B % 2 == 0)[:, None] & even_V[None], -jnp.inf, logit_BV)


def test_a_users_processor_sees_the_beams_own_tokens():
    found = find(beam.Search(beams=3, returned=3), chain={"processors": (only_odd,)})
    for row, tokens in enumerate(found.rows()):
        ids = [little.PROMPTS[row // 3][-1], *tokens]
        assert not any(a % 2 == 0 and b % 2 == 0 for a, b in itertools.pairwise(ids))


@pytest.mark.parametrize("convention", ["transformers", pytest.param("bert4keras", marks=pytest.mark.nightly)])
def test_a_prompt_has_the_same_answer_alone_and_among_others(convention):
    search = beam.Search(convention=convention, returned=1 if convention == "bert4keras" else 4)
    wishes = wishes_of(little.params(3), 3, 2)
    together = find(search, rule=wishes)
    for row, prompt in enumerate(little.PROMPTS):
        alone = find(search, [prompt], rule=wishes[row : row + 1])
        own = slice(row * search.returned, (row + 1) * search.returned)
        assert alone.rows() == together.rows()[own]
        np.testing.assert_allclose(alone.score_B, together.score_B[own], atol=1e-5)


def test_the_log_probabilities_are_the_models_own():
    found = find(beam.Search(beams=4, returned=4), rule=rules.Rule(ban=[3]))
    for row, tokens in enumerate(found.rows()):
        predict = little.predictor(little.params(3), little.PROMPTS[row // 4])
        wanted_N = [predict([tokens[:n]])[0][token] for n, token in enumerate(tokens)]
        np.testing.assert_allclose(found.log_prob_BN[row, : len(tokens)], wanted_N, atol=1e-4)


def test_the_prompts_cache_has_one_row_a_prompt_and_the_answers_one_a_beam():
    chain, given = beam.Search(beams=5).plan(little.MODEL, little.given(little.PROMPTS, limit=4), room=6)
    memory, state = loop.begin(chain, little.params(3), little.KEY, given, steps=4)
    assert [cache.k[0].shape[0] for cache in memory.caches] == [len(little.PROMPTS)]
    assert state.answer.k[0].shape[::3] == (5 * len(little.PROMPTS), 6)
    assert {len(leaf) for leaf in jax.tree.leaves((memory, state.pools))} == {len(little.PROMPTS)}


TEXT = wordpiece.WordPiece(("[PAD]", "[UNK]", *map(chr, range(ord("一"), ord("一") + 35))))


def ranked(prompt, texts, penalty):
    """(score, tokens) of whole texts, best first."""
    found = []
    for tokens in map(TEXT.encode, texts):
        rows = little.predictor(little.params(3), prompt)([tokens[:n] for n in range(len(tokens))])
        found.append((sum(row[token] for row, token in zip(rows, tokens, strict=True)) / len(tokens) ** penalty, tokens))
    return sorted(found, key=lambda answer: -answer[0])


def test_a_choice_list_gives_its_texts_in_the_order_of_their_scores():
    """With as many beams as texts nothing is lost on the way, so the search equals rating every text."""
    texts = ["一丁七万", "一丁丂", "丈三", "上", "下丌不"]
    search = beam.Search(beams=6, length_penalty=0.5, returned=6)
    found = find(search, rule=rules.Rule(choices=texts), text=TEXT)
    compare(found, [ranked(prompt, texts, 0.5) for prompt in little.PROMPTS], 6)
    assert {progress.FINISH[finish] for finish in found.finish_B[:5]} == {"complete"}


def test_a_stop_string_ends_a_beam_as_it_ends_a_plain_search():
    tree, search = little.params(3), beam.Search(beams=6, length_penalty=0.5, returned=6)
    stops = [text for row in find(beam.Search(returned=4)).rows()[::3] if len(text := TEXT.decode(row[1:3])) == 2]
    found = find(search, rule=rules.Rule(stop=stops), text=TEXT)
    wanted = [
        searches.transformers(
            little.predictor(tree, prompt), LIMIT, 6, penalty=0.5, hit=lambda tokens: any(stop in TEXT.decode(tokens) for stop in stops)
        )
        for prompt in little.PROMPTS
    ]
    compare(found, wanted, 6)
    assert "stop" in {progress.FINISH[finish] for finish in found.finish_B}


def test_a_context_that_was_read_before_gives_the_same_answers():
    tree, prefix = little.params(3), [4, 4, 31]
    whole = find(beam.Search(returned=4), [prefix + prompt[:3] for prompt in little.PROMPTS])
    valid_BT = np.ones((1, 3), bool)
    read = jax.jit(functools.partial(little.MODEL.apply, head="hidden"))
    _, (context,) = read(tree, np.array([prefix]), valid_BT=valid_BT, caches=(little.MODEL.cache(1, 3),))
    given = little.given([prompt[:3] for prompt in little.PROMPTS], limit=LIMIT).replace(context=context)
    chain, given = beam.Search(returned=4).plan(little.MODEL, given, room=24)
    assert loop.generate(chain, tree, little.KEY, given, steps=LIMIT).rows() == whole.rows()


def test_layers_dispatched_from_the_host_find_the_same_answers():
    search = beam.Search(beams=4, groups=2, diversity=0.5, early_stopping=True, returned=4)
    hosted, whole = find(search, chain={"layers": "dispatched"}), find(search)
    assert hosted.rows() == whole.rows()


def test_new_numbers_and_lengths_compile_nothing():
    compiled = []
    find(beam.Search(returned=4), rule=rules.Rule(end=[1]))
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    try:
        for seed in range(3):
            find(
                beam.Search(returned=4, length_penalty=0.3 * seed),
                [[4, seed]] * 4,
                little.params(seed),
                rule=rules.Rule(end=[seed]),
                limit=3 + seed,
            )
    finally:
        jax.monitoring.clear_event_listeners()
    assert [name for name in compiled if name.endswith("backend_compile_duration")] == []


def test_an_unfinished_search_shows_what_it_has_found():
    search = beam.Search(returned=4)
    chain, given = search.plan(little.MODEL, little.given(little.PROMPTS, limit=6), room=24)
    seen = list(loop.stream(chain, little.params(3), little.KEY, given, steps=6))
    assert seen[0].rows() == [[]] * 16 and set(seen[0].finish_B) == {progress.RUNNING}
    assert seen[-1].rows() == find(search, limit=6, steps=6).rows()
    assert set(seen[-1].finish_B) == {progress.LENGTH} and seen[-1].moves_B.tolist() == [6] * 16


@pytest.mark.parametrize("convention", ["transformers", pytest.param("bert4keras", marks=pytest.mark.nightly)])
def test_a_rule_that_leaves_no_answer_is_an_error(convention):
    nothing = rules.Rule(logit_bias=dict.fromkeys(range(16), -np.inf), ban=range(17, 37), no_repeat_ngram=1)
    with pytest.raises(ArithmeticError, match="prompt 0: the rule left no token"):
        find(beam.Search(convention=convention, returned=1 if convention == "bert4keras" else 4), rule=nothing)


@pytest.mark.parametrize("convention", ["transformers", "bert4keras"])
def test_weights_that_are_not_finite_are_an_error(convention):
    flat = weights.flatten(little.params(3))
    flat["block_01/mlp/up/bias"] = flat["block_01/mlp/up/bias"] * np.nan
    with pytest.raises(FloatingPointError, match="prompt 0: the model's logits are not finite at token 1"):
        find(beam.Search(convention=convention, returned=1 if convention == "bert4keras" else 4), tree=weights.nest(flat))


def broken(logit_BV, token_BS, length_B):
    return logit_BV * jnp.nan


@pytest.mark.parametrize("convention", [pytest.param("transformers", marks=pytest.mark.nightly), "bert4keras"])
def test_a_processor_that_gives_no_numbers_is_an_error(convention):
    with pytest.raises(FloatingPointError, match="not finite at token 1"):
        find(beam.Search(beams=2, convention=convention), chain={"processors": (broken,)})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"beams": 0}, "beams=0"),
        ({"beams": 2.0}, "beams=2.0"),
        ({"beams": 4, "groups": 3}, "beams do not divide into groups"),
        ({"diversity": 0.5}, "a single group has none to differ from"),
        ({"groups": 2, "diversity": -1.0}, "diversity=-1.0"),
        ({"returned": 5}, "no more answers than beams"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
        ({"early_stopping": "always"}, "early_stopping='always'"),
        ({"early_stopping": 1}, "early_stopping=1"),
        ({"convention": "fairseq"}, "convention='fairseq'"),
        ({"minlen": 3}, "use Rule"),
        ({"convention": "bert4keras", "returned": 2}, "returned=2"),
        ({"convention": "bert4keras", "length_penalty": 0.5}, "length_penalty=0.5"),
    ],
)
def test_a_search_that_means_nothing_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        beam.Search(**fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": {"temperature": 0.5}}, "temperature=0.5"),
        ({"rule": {"top_k": 5}}, "top_k=5"),
        ({"rule": {"top_p": 0.5}}, "top_p=0.5"),
        ({"rule": {"min_p": 0.5}}, "min_p=0.5"),
        ({"rule": {"typical_p": 0.5}}, "typical_p=0.5"),
        ({"rule": {"temperature": 0}, "search": {"convention": "bert4keras"}}, "wanted more than 0"),
        ({"rule": {"top_p_below": 0.5}, "search": {"convention": "bert4keras"}}, "top_p_below=0.5"),
        ({"search": {"beams": 37}}, "fewer than the 37 tokens"),
        ({"limit": 9}, "steps=5: answers are compared whole"),
        ({"samples": 2}, "ask for Search"),
        ({"token": 37}, "ids 0 to 36"),
        ({"limit": 40, "steps": 40}, "room"),
    ],
)
def test_what_a_search_cannot_do_is_refused(change, words):
    given = little.given(little.PROMPTS, rule=rules.Rule(**change.get("rule", {})), limit=change.get("limit", 5))
    given.token_BT[1, 2] = change.get("token", 1)
    chain, given = beam.Search(**change.get("search", {})).plan(little.MODEL, given, room=24)
    draw = partial(loop.generate, chain, little.params(3), little.KEY, given)
    with pytest.raises(ValueError, match=words):
        draw(steps=change.get("steps", 5), samples=change.get("samples", 1))


def test_a_search_longer_than_the_context_is_refused():
    short = little.MODEL.clone(config=dataclasses.replace(little.MODEL.config, positions=12))
    with pytest.raises(ValueError, match="the model has 12 positions"):
        find(beam.Search(), tree=(short, little.params(3)))
