"""A UniLM through the chains of language models: prompts read whole, answers token by token."""

import jax
import numpy as np
import pytest

import flaxgen
from flaxgen import loop, rules
from flaxgen.chains import autoregressive, beam
from flaxgen.errors import Mismatch
from flaxgen.models import config as sizes
from tests import writers

CONFIG = sizes.Config(
    31, 40, 12, 2, 3, 20, "post", "gelu", segments=2, outputs=("mlm",), application="unilm", position="relative", init_range=0.5
)
MODEL = flaxgen.Transformer(CONFIG)
PROMPTS = np.array([[2, 9, 14, 7, 3], [2, 8, 3, 0, 0]]), np.array([5, 3])


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0), np.zeros((1, 2), int))


def test_greedy_answers_are_those_of_reading_everything_anew(params):
    given = autoregressive.prompt(*PROMPTS, rule=rules.Rule(temperature=0), vocab=31)
    drawn = loop.generate(autoregressive.Autoregressive(MODEL, room=6), params, jax.random.key(0), given, steps=6).rows()
    read = jax.jit(lambda token_BT, segment_BT, valid_BT: MODEL.apply(params, token_BT, segment_BT=segment_BT, valid_BT=valid_BT)[0])
    for token_T, length, answer in zip(*PROMPTS, drawn, strict=True):
        ids, place_BT = token_T[:length].tolist() + answer, np.arange(16)[None]
        token_BT = np.array([ids + [0] * (16 - len(ids))])
        logit_BTV = read(token_BT, (place_BT >= length).astype(int), place_BT < len(ids))
        assert np.argmax(logit_BTV[0, length - 1 : len(ids) - 1], axis=-1).tolist() == answer


def test_one_beam_is_greedy(params):
    given = autoregressive.prompt(*PROMPTS, rule=rules.Rule(temperature=0), vocab=31)
    drawn = loop.generate(autoregressive.Autoregressive(MODEL, room=4), params, jax.random.key(0), given, steps=4).rows()
    plan = beam.Search(beams=1).plan(MODEL, autoregressive.prompt(*PROMPTS, limit=4, vocab=31), room=4)
    assert loop.generate(plan[0], params, jax.random.key(0), plan[1], steps=4).rows() == drawn


def test_what_reads_a_prompt_in_pieces_and_what_continues_nothing_is_refused(params):
    given = autoregressive.prompt(*PROMPTS, vocab=31)
    with pytest.raises(ValueError, match="sees its whole prompt at once"):
        loop.generate(autoregressive.Autoregressive(MODEL, room=16, chunk=4), params, jax.random.key(0), given, steps=2)
    text = writers.characters().text
    for application, words in (("unilm", "loaded as unilm"), ("encoder", "loaded as encoder")):
        config = sizes.Config(len(text), 40, 12, 2, 3, 20, "post", "gelu", application=application)
        with pytest.raises(Mismatch, match=words):
            flaxgen.Writer(flaxgen.Transformer(config), {}, text)
    encoder = flaxgen.Transformer(sizes.Config(31, 40, 12, 2, 3, 20, "post", "gelu", application="encoder"))
    with pytest.raises(ValueError, match="continues nothing"):
        loop.generate(autoregressive.Autoregressive(encoder, room=4), params, jax.random.key(0), given, steps=2)
