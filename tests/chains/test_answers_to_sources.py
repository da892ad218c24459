"""Answers of a T5: the originals' greedy and beam answers, samples that share a source, searches, refusals."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from convert import command
from flaxgen import loop, rules, weights
from flaxgen.chains import autoregressive, beam, contrastive, seq2seq
from flaxgen.models import config as sizes
from flaxgen.models import t5, t5_config, transformer

ROOT = pathlib.Path(__file__).parents[1]
KEY = jax.random.key(7)
MODEL = t5.T5(t5_config.Config(37, 14, 1, 3, 2, 10, "gated_gelu", "own", decoder_layers=2, buckets=8, distance=11, start=3))
SOURCES = [[5, 9, 2, 30], [7], [11, 4, 4, 8, 20, 36]]
LIMIT = 6


@pytest.fixture(scope="module")
def params():
    noise = np.random.default_rng(0)
    shapes = MODEL.config.shapes().items()
    return weights.nest({name: jnp.asarray(noise.normal(name.endswith("scale"), 0.4, shape), jnp.float32) for name, shape in shapes})


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    def load(folder):
        target = tmp_path_factory.mktemp("t5") / "model"
        assert command.main([str(folder), str(target)]) == 0
        return flaxgen.load(target)[:2]

    return load


def answers(model, params, sources, steps=LIMIT, samples=1, **wishes):
    chain, given = seq2seq.plan(model, sources, room=16, limit=steps, **wishes)
    return loop.generate(chain, params, KEY, given, steps=steps, samples=samples)


def check(folder, model, params):
    """The answers of transformers' generate: 16 tokens after the start, padded with 0 after the end."""
    expected = np.load(folder / "expected.npz")
    pairs = zip(expected["input_ids"], expected["lengths"], strict=True)
    sources, end = [row[:length].tolist() for row, length in pairs], [int(expected["eos"])]
    greedy = {"rule": rules.Rule(temperature=0)}
    for name, wishes in (("greedy_no_eos", greedy), ("greedy", greedy | {"end": end}), ("beam4", {"search": beam.Search(), "end": end})):
        rows = answers(model, params, sources, 16, **wishes).rows()
        assert [[0, *row, *[0] * (16 - len(row))] for row in rows] == expected[name].tolist(), name


@pytest.mark.parametrize("name", ["t5", "mt5_1_1"])
def test_greedy_and_beam_answers_are_those_of_transformers(name, loaded):
    check(ROOT / "golden/google_t5" / name, *loaded(ROOT / "golden/google_t5" / name))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["google_t5/t5", "google_t5/t5_1_1", "google_t5/mt5_1_1", "transformers/t5", "transformers/t5_1_1"])
def test_answers_are_those_of_every_reference(name, loaded, shared):
    check(shared / "oracle" / name, *loaded(shared / "oracle" / name))


def test_greedy_answers_are_those_of_whole_recomputations(params):
    rows = answers(MODEL, params, SOURCES, rule=rules.Rule(temperature=0)).rows()
    forward = jax.jit(MODEL.apply)
    for source, row in zip(SOURCES, rows, strict=True):
        padded = np.zeros((1, 8), int)
        padded[0, : len(source)] = source
        target_BT = np.array([[3, *row]])
        logit_BTV, _ = forward(params, padded, target_BT, valid_BT=np.arange(8)[None] < len(source))
        assert logit_BTV[0, :-1].argmax(axis=-1).tolist() == row


def test_samples_share_a_source_and_are_those_of_it_alone(params):
    """A row's draws follow its key, and the neighbours of its source change nothing."""
    chain, given = seq2seq.plan(MODEL, SOURCES, room=16, limit=LIMIT)
    keys = jax.random.split(KEY, 6)
    both = loop.generate(chain, params, keys, given, steps=LIMIT, samples=2).rows()
    for place, source in enumerate(SOURCES):
        one, begun = seq2seq.plan(MODEL, [source], room=16, limit=LIMIT)
        assert loop.generate(one, params, keys[2 * place : 2 * place + 2], begun, steps=LIMIT, samples=2).rows() == both[2 * place :][:2]
    memory, _ = loop.begin(chain, params, keys, given, steps=LIMIT, samples=2)
    assert [cache.k[0].shape[0] for cache in memory.caches] == [3, 3]


def test_rules_hold_for_answers(params):
    free = answers(MODEL, params, SOURCES, rule=rules.Rule(temperature=0)).rows()
    banned = sorted({row[0] for row in free})
    rule = rules.Rule(temperature=0, ban=banned, max_tokens=4)
    assert all(len(row) == 4 and not set(row) & set(banned) for row in answers(MODEL, params, SOURCES, rule=rule).rows())


def test_contrastive_search_answers_too(params):
    found = answers(MODEL, params, SOURCES, search=contrastive.Search(penalty=0.0))
    assert found.rows() == answers(MODEL, params, SOURCES, rule=rules.Rule(temperature=0)).rows()


def test_other_sources_of_the_same_bucket_do_not_compile_anew(params):
    answers(MODEL, params, SOURCES)
    before = loop._start._cache_size()
    answers(MODEL, params, [[1] * 64, [2, 3], [4]])
    assert loop._start._cache_size() == before


@pytest.mark.parametrize(
    ("sources", "why"),
    [([], "0 sources"), ([[1], []], "some without a token"), ([[1], [37]], "from 1 to 37"), ([[-1]], "from -1 to -1"),
     ([1, 2], "each a list of token ids"), (7, "each a list of token ids"), ("ab", "each a list of token ids"),
     (["ab"], "each a list of token ids"), ([[1.5]], "each a list of token ids"), (np.ones((2, 2)), "each a list of token ids"),
     (np.zeros((0, 3), int), "0 sources")],
)  # fmt: skip
def test_wrong_sources_are_refused(sources, why, params):
    with pytest.raises(ValueError, match=why):
        answers(MODEL, params, sources)


def test_sources_may_be_arrays(params):
    whole = np.array([[5, 9, 2], [7, 7, 1]])
    assert answers(MODEL, params, whole).rows() == answers(MODEL, params, whole.tolist()).rows()
    assert answers(MODEL, params, [*whole]).rows() == answers(MODEL, params, whole.tolist()).rows()


@pytest.mark.parametrize("room", [0, -3, 1.5, "8"])
def test_a_room_for_no_token_is_refused(room):
    with pytest.raises(ValueError, match=r"room=.*at least 1"):
        seq2seq.plan(MODEL, SOURCES, room=room)


def test_what_does_not_go_together_is_refused(params):
    decoder_only = transformer.Transformer(sizes.Config(37, 41, 12, 2, 3, 20, "pre", "gelu"))
    with pytest.raises(ValueError, match="the model is a Transformer"):
        seq2seq.plan(decoder_only, SOURCES)
    chain, given = seq2seq.plan(MODEL, SOURCES, room=16)
    begin = {"steps": LIMIT}
    with pytest.raises(ValueError, match=r"wanted a t5\.Decoder"):
        loop.begin(seq2seq.Seq2Seq(autoregressive.Autoregressive(MODEL, 16)), params, KEY, given, **begin)
    for wrong in ({"layers": "dispatched"}, {"chunk": 4}):
        with pytest.raises(ValueError, match="no chunk"):
            loop.begin(dataclasses.replace(chain, inner=dataclasses.replace(chain.inner, **wrong)), params, KEY, given, **begin)
    with pytest.raises(ValueError, match="source lengths run from 4 to 65"):
        loop.begin(chain, params, KEY, given.replace(length_B=np.array([4, 65, 6])), **begin)
    with pytest.raises(ValueError, match=r"length_B \(2,\)"):
        loop.begin(chain, params, KEY, given.replace(length_B=np.array([4, 5])), **begin)
