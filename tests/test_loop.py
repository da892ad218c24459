"""The loop over the autoregressive chain: lengths, ends, seeds, ragged batches, streaming, no recompilation, refusals."""

import contextlib
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from flaxgen import loop, rules, weights
from flaxgen.chains import autoregressive, scoring
from flaxgen.models import config as sizes
from flaxgen.models import transformer

KEY = jax.random.key(11)
PROMPTS = [[5, 9, 2], [7, 7, 1, 30, 4, 4, 8], [36]]


@pytest.fixture(scope="module", params=["pre", "between"])
def chain(request):
    config = sizes.Config(37, 41, 12, 2, 3, 20, request.param, "gelu", init_range=0.4)
    return autoregressive.Autoregressive(transformer.Transformer(config), room=17)


@pytest.fixture(scope="module")
def params(chain):
    noise = np.random.default_rng(3)
    shapes = sizes.shapes(chain.model.config).items()
    return weights.nest({name: noise.normal(name.endswith("scale"), 0.4, shape).astype(np.float32) for name, shape in shapes})


def given(prompts, **wishes):
    length_B = np.array([len(prompt) for prompt in prompts])
    token_BT = np.zeros((len(prompts), 8), int)
    for row, prompt in enumerate(prompts):
        token_BT[row, : len(prompt)] = prompt
    wishes["rule"] = rules.Rule(**wishes.get("rule", {}))
    return autoregressive.prompt(token_BT, length_B, **wishes)


@contextlib.contextmanager
def no_compilation():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    try:
        yield
        assert [name for name in compiled if name.endswith("backend_compile_duration")] == []
    finally:
        jax.monitoring.clear_event_listeners()


def test_greedy_decoding_with_caches_equals_recomputing_every_prefix(chain, params):
    drawn = loop.generate(chain, params, KEY, given(PROMPTS, rule={"temperature": 0}), steps=17).rows()
    apply = jax.jit(chain.model.apply)
    for prompt, answer in zip(PROMPTS, drawn, strict=True):
        ids = prompt + answer
        token_BT = np.array([ids + [0] * (40 - len(ids))])
        logit_TV = np.asarray(apply(params, token_BT)[0][0])
        assert answer == logit_TV[len(prompt) - 1 : len(ids) - 1].argmax(axis=1).tolist()


def test_the_log_probabilities_are_those_of_the_model_before_the_rule(chain, params):
    rule = {"temperature": 0.7, "top_k": 9}
    sample = loop.generate(chain, params, KEY, given(PROMPTS, rule=rule, ban=[3]), steps=6)
    token_BT, length_B = np.zeros((3, 16), int), np.array([len(p) + 6 for p in PROMPTS])
    for row, prompt in enumerate(PROMPTS):
        token_BT[row, : length_B[row]] = prompt + sample.rows()[row]
    scored_BT = scoring.score(chain.model, params, token_BT, length_B)
    for row, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(sample.log_prob_BN[row, :6], scored_BT[row, len(prompt) - 1 : length_B[row] - 1], atol=1e-5)


def test_a_row_draws_the_same_tokens_alone_and_among_others(chain, params):
    keys = jax.random.split(KEY, 3)
    together = loop.generate(chain, params, keys, given(PROMPTS), steps=9).rows()
    for row, prompt in enumerate(PROMPTS):
        assert loop.generate(chain, params, keys[row : row + 1], given([prompt]), steps=9).rows() == [together[row]]


def test_samples_of_one_prompt_differ_and_equal_repeated_prompts(chain, params):
    keys = jax.random.split(KEY, 6)
    sampled = loop.generate(chain, params, keys, given(PROMPTS[:2]), steps=9, samples=3).rows()
    repeated = [prompt for prompt in PROMPTS[:2] for _ in range(3)]
    assert loop.generate(chain, params, keys, given(repeated), steps=9).rows() == sampled
    assert len({tuple(row) for row in sampled}) == 6


def test_a_raw_key_is_taken_as_the_key_it_holds(chain, params):
    wishes = given(PROMPTS[:1])
    typed = loop.generate(chain, params, jax.random.key(5), wishes, steps=5).rows()
    assert loop.generate(chain, params, jax.random.PRNGKey(5), wishes, steps=5).rows() == typed


def test_an_end_token_ends_its_row_only_and_not_before_the_minimum(chain, params):
    rule = {"temperature": 0}
    free = loop.generate(chain, params, KEY, given(PROMPTS, rule=rule), steps=17).rows()
    end = free[0][3]
    ended = loop.generate(chain, params, KEY, given(PROMPTS, rule=rule, end=[end]), steps=17)
    for row, answer in enumerate(free):
        stop = answer.index(end) + 1 if end in answer else 17
        assert ended.rows()[row] == answer[:stop]
        assert ended.done_B[row] == (end in answer)
    late = loop.generate(chain, params, KEY, given(PROMPTS, rule=rule | {"min_tokens": 8}, end=[end]), steps=17).rows()
    assert all(end not in answer[:8] for answer in late)


def test_each_row_has_its_own_limit(chain, params):
    assert [len(row) for row in loop.generate(chain, params, KEY, given(PROMPTS, limit=[1, 17, 4]), steps=12).rows()] == [1, 12, 4]


def test_streaming_gives_growing_samples_that_end_in_the_whole(chain, params):
    wishes = given(PROMPTS, limit=[3, 11, 7])
    whole = loop.generate(chain, params, KEY, wishes, steps=12)
    for every in (1, 5):
        seen = [sample.rows() for sample in loop.stream(chain, params, KEY, wishes, steps=12, every=every)]
        assert seen[-1] == whole.rows()
        for before, after in itertools.pairwise(seen):
            assert all(b == a[: len(b)] for b, a in zip(before, after, strict=True))


def test_layers_dispatched_from_the_host_draw_the_same_tokens(chain, params):
    hosted = dataclasses.replace(chain, layers="dispatched")
    assert (
        loop.generate(hosted, params, KEY, given(PROMPTS), steps=9).rows()
        == loop.generate(chain, params, KEY, given(PROMPTS), steps=9).rows()
    )


def test_new_rules_seeds_and_lengths_compile_nothing(chain, params):
    loop.generate(chain, params, KEY, given(PROMPTS), steps=5)
    noise = np.random.default_rng(0)
    requests = []
    for seed in range(50):
        limit = int(noise.integers(1, 17))
        rule = {
            "temperature": noise.uniform(0, 2),
            "top_k": int(noise.integers(0, 40)),
            "top_p": noise.uniform(),
            "min_tokens": int(noise.integers(limit + 1)),
        }
        prompts = [noise.integers(0, 37, noise.integers(1, 8)).tolist() for _ in range(3)]
        requests.append((jax.random.key(seed), given(prompts, rule=rule, limit=limit), int(noise.integers(1, 17))))
    with no_compilation():
        for key, wishes, steps in requests:
            loop.generate(chain, params, key, wishes, steps=steps)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 18}, "room for 17"),
        ({"steps": 0}, "steps=0"),
        ({"samples": 2.5}, "samples=2.5"),
        ({"token": 37}, "ids 0 to 36"),
        ({"token": -1}, "ids 0 to 36"),
        ({"length": 0}, "lengths run from 0"),
        ({"length": 9}, "to 9; wanted 1 to 8"),
        ({"end": [37]}, "end token ids"),
        ({"limit": 0}, "tokens=0"),
        ({"keys": 2}, "2 keys for 3 rows"),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_compiles(chain, params, change, words):
    key = jax.random.split(KEY, change["keys"]) if "keys" in change else KEY
    with pytest.raises(ValueError, match=words), no_compilation():
        wishes = given(PROMPTS, end=change.get("end", [1]), limit=change.get("limit", 9))
        wishes.token_BT[1, 2] = change.get("token", 1)
        wishes.length_B[0] = change.get("length", 3)
        loop.generate(chain, params, key, wishes, steps=change.get("steps", 5), samples=change.get("samples", 1))


def test_a_prompt_and_answer_longer_than_the_context_are_refused(chain, params):
    short = dataclasses.replace(chain.model.config, positions=12)
    cramped = autoregressive.Autoregressive(transformer.Transformer(short), room=17)
    with pytest.raises(ValueError, match=r"7 tokens and 9 more make 16; the model has 12 positions"):
        loop.generate(cramped, params, KEY, given(PROMPTS), steps=9)


@pytest.mark.parametrize("every", [0, -1, 1.5])
def test_a_stream_that_would_never_move_is_refused(chain, params, every):
    with pytest.raises(ValueError, match="every="):
        next(loop.stream(chain, params, KEY, given(PROMPTS), steps=4, every=every))


def test_weights_that_are_not_finite_are_an_error_and_not_token_zero(chain, params):
    flat = weights.flatten(params)
    flat["block_01/mlp/up/bias"] = flat["block_01/mlp/up/bias"] * np.nan
    with pytest.raises(FloatingPointError, match="row 0: the model's logits are not finite at token 1"):
        loop.generate(chain, weights.nest(flat), KEY, given(PROMPTS), steps=3)
