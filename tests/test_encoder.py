"""Texts to vectors: the same in any company, by every pooling, and clear refusals."""

import dataclasses

import jax
import numpy as np
import pytest

import flaxgen
from flaxgen import encoder as encoders
from flaxgen.errors import Mismatch
from flaxgen.models import config as sizes
from flaxgen.text import wordpiece
from tests import writers

TEXTS = ["天地玄黄", "宇宙洪荒日月盈昃", ("天", "sunny day"), "", "辰宿列张，" * 5]


def encoder(**changes) -> flaxgen.Encoder:
    config = sizes.Config(len(writers.WORDS), 40, 12, 2, 3, 20, "post", "gelu", segments=2, outputs=("mlm", "pool", "nsp"), init_range=0.3)
    model = flaxgen.Transformer(dataclasses.replace(config, **changes))
    return flaxgen.Encoder(model, jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2), int)), wordpiece.WordPiece(writers.WORDS))


@pytest.fixture(scope="module")
def made():
    return encoder()


@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_a_text_has_the_same_vector_alone_and_among_others(made, pooling):
    together_ND = made(TEXTS, pooling=pooling)
    assert together_ND.shape == (5, 12) and together_ND.dtype == np.float32
    for number, text in enumerate(TEXTS):
        np.testing.assert_allclose(made(text, pooling=pooling), together_ND[number], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(made(TEXTS, pooling=pooling, unit=True), axis=1), 1, atol=1e-6)


def test_vectors_are_those_of_the_model(made):
    ids = [2, *made.text.encode("天"), 3, *made.text.encode("sunny day"), 3]
    segment_BT = np.array([[0] * 3 + [1] * (len(ids) - 3)])
    model = dataclasses.replace(made.model, config=dataclasses.replace(made.model.config, application="encoder"))
    hidden_BTD, _ = model.apply(made.params, np.array([ids]), segment_BT=segment_BT, head="hidden")
    np.testing.assert_allclose(made(("天", "sunny day"), pooling="mean"), hidden_BTD[0].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(made(("天", "sunny day")), hidden_BTD[0, 0], atol=1e-6)


def test_many_lengths_compile_few_programs(made):
    noise = np.random.default_rng(0)
    texts = ["".join(noise.choice(list("天地玄黄"), noise.integers(1, 30))) for _ in range(70)]
    made(texts)
    before = encoders._pooled._cache_size()
    for count in (70, 33, 40):
        made(texts[:count][::-1])
    assert encoders._pooled._cache_size() - before <= 4


def test_masks_are_filled_in_order_by_probability(made):
    guesses = made.fill("天[MASK]玄[MASK]", top=3)
    assert [len(one) for one in guesses] == [3, 3]
    ids = [2, *made.text.encode("天"), 4, *made.text.encode("玄"), 4, 3]
    logit_BTV, _ = made.model.apply(made.params, np.array([ids]))
    share_TV = np.asarray(jax.nn.softmax(logit_BTV))[0]
    for place, one in zip((2, 4), guesses, strict=True):
        assert [guess.token for guess in one] == [writers.WORDS[i] for i in np.argsort(-share_TV[place])[:3]]
        np.testing.assert_allclose([guess.probability for guess in one], np.sort(share_TV[place])[::-1][:3], rtol=1e-4)


def test_what_is_too_long_is_refused_or_cut_at_its_end(made):
    with pytest.raises(ValueError, match=r'text 1 makes 62 tokens; the model has 40 positions\..*overflow="cut"'):
        made(["天", "地" * 60])
    np.testing.assert_allclose(made("地" * 60, overflow="cut"), made("地" * 38), atol=1e-6)
    np.testing.assert_allclose(made(("地" * 60, "天"), overflow="cut"), made(("地" * 36, "天")), atol=1e-6)


def test_mistakes_are_named(made):
    with pytest.raises(ValueError, match="pooling='max', overflow='refuse': wanted one of cls, mean, pooler"):
        made("天", pooling="max")
    with pytest.raises(ValueError, match="has no pooler"):
        encoder(outputs=("mlm",))("天", pooling="pooler")
    with pytest.raises(ValueError, match="no MLM head"):
        encoder(outputs=("pool",)).fill("天[MASK]")
    with pytest.raises(ValueError, match=r"holds no \[MASK\]"):
        made.fill("天地")
    with pytest.raises(TypeError, match="text 0: got int"):
        made([3])
    with pytest.raises(TypeError, match="texts: got bytes, wanted a str"):
        made(b"abc")
    with pytest.raises(ValueError, match=r"Shorten it$"):
        made.fill("地" * 60 + "[MASK]")
    with pytest.raises(Mismatch, match=r"flaxgen\.Writer"):
        encoder(wiring="between", outputs=("tied",))
    with pytest.raises(Mismatch, match=r"no \[CLS\]"):
        flaxgen.Encoder(made.model, made.params, writers.byte_pairs().text)
