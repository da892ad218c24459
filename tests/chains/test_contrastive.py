"""Contrastive search: a plain search over recomputed prefixes, greedy decoding at no penalty, rows alone and together, refusals."""

import jax
import little
import numpy as np
import pytest
import searches

from flaxgen import loop, rules, weights
from flaxgen.chains import autoregressive, contrastive

STEPS = 9


def find(search, prompts=little.PROMPTS, tree=None, steps=STEPS, chain=(), **wishes):
    wishes.setdefault("limit", steps)
    made, start = search.plan(little.MODEL, little.given(prompts, **wishes), room=12, **dict(chain))
    return loop.generate(made, little.params(3) if tree is None else tree, little.KEY, start, steps=steps)


@pytest.mark.parametrize("candidates", [5, 2])
def test_the_tokens_are_those_of_a_plain_search(candidates, cases=4):
    for seed in range(cases):
        tree, penalty = little.params(seed), (0.6, 0.3, 1.0, 0.9)[seed % 4]
        ends = [3 + seed, 20 + seed]
        wanted = [
            searches.contrastive(
                little.predictor(tree, prompt),
                lambda ids, tree=tree: next(little.recompute(tree, [ids]))[0, : len(ids)].astype(float),
                prompt,
                STEPS,
                ends,
                candidates,
                penalty,
            )
            for prompt in little.PROMPTS
        ]
        assert find(contrastive.Search(candidates, penalty), tree=tree, end=ends).rows() == wanted


@pytest.mark.nightly
def test_many_tokens_are_those_of_a_plain_search():
    test_the_tokens_are_those_of_a_plain_search(5, cases=60)


def test_the_penalty_makes_the_text_repeat_itself_less():
    def repeated(penalty):
        return sum(len(row) - len(set(row)) for row in find(contrastive.Search(5, penalty)).rows())

    assert repeated(0.9) < repeated(0.0)


def test_no_penalty_is_greedy_decoding_under_the_same_rule():
    rule = rules.Rule(repetition_penalty=1.3, no_repeat_ngram=2, ban=[5])
    found = find(contrastive.Search(5, 0.0), rule=rule)
    chain = autoregressive.Autoregressive(little.MODEL, room=12)
    given = little.given(little.PROMPTS, limit=STEPS, rule=rule.replace(temperature=0))
    greedy = loop.generate(chain, little.params(3), little.KEY, given, steps=STEPS)
    assert found.rows() == greedy.rows()
    np.testing.assert_allclose(found.log_prob_BN[:, :STEPS], greedy.log_prob_BN[:, :STEPS], atol=1e-5)


def test_a_row_has_the_same_tokens_alone_and_among_others():
    together = find(contrastive.Search(5)).rows()
    assert find(contrastive.Search(5), little.PROMPTS[1:2]).rows() == together[1:2]


def test_the_prompt_and_the_answer_are_cached_once_for_all_candidates():
    chain, given = contrastive.Search(5).plan(little.MODEL, little.given(little.PROMPTS, limit=4), room=12)
    memory, state = loop.begin(chain, little.params(3), little.KEY, given, steps=4)
    assert {len(leaf) for leaf in jax.tree.leaves((memory, state))} == {len(little.PROMPTS)}


def test_layers_dispatched_from_the_host_find_the_same_tokens():
    assert find(contrastive.Search(5), chain={"layers": "dispatched"}).rows() == find(contrastive.Search(5)).rows()


def test_new_numbers_compile_nothing():
    compiled = []
    find(contrastive.Search(5))
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    try:
        for seed in range(3):
            find(contrastive.Search(5, 0.2 * seed), [[4, seed]] * 4, little.params(seed), limit=3 + seed)
    finally:
        jax.monitoring.clear_event_listeners()
    assert [name for name in compiled if name.endswith("backend_compile_duration")] == []


def test_weights_that_are_not_finite_are_an_error():
    flat = weights.flatten(little.params(3))
    flat["block_01/mlp/up/bias"] = flat["block_01/mlp/up/bias"] * np.nan
    with pytest.raises(FloatingPointError, match="row 0: the model's logits are not finite at token 1"):
        find(contrastive.Search(5), tree=weights.nest(flat))


@pytest.mark.parametrize(("fields", "words"), [({"candidates": 0}, "candidates=0"), ({"penalty": 1.5}, "penalty=1.5")])
def test_a_search_that_means_nothing_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        contrastive.Search(**fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": {"temperature": 0.5}}, "temperature=0.5"),
        ({"rule": {"top_p": 0.5}}, "top_p=0.5"),
        ({"candidates": 38}, "at most the 37 tokens"),
        ({"samples": 2}, "ask for one sample"),
        ({"steps": 35}, "make 42 tokens"),
        ({"context": little.MODEL.cache(1, 2)}, "keeps none of that"),
    ],
)
def test_what_a_search_cannot_do_is_refused(change, words):
    steps = change.get("steps", 5)
    given = little.given(little.PROMPTS, rule=rules.Rule(**change.get("rule", {})), limit=steps).replace(context=change.get("context"))
    chain, given = contrastive.Search(change.get("candidates", 4)).plan(little.MODEL, given, room=36)
    with pytest.raises(ValueError, match=words):
        loop.generate(chain, little.params(3), little.KEY, given, steps=steps, samples=change.get("samples", 1))
