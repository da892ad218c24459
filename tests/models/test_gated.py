import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from flaxgen.models import gated, gated_config
from flaxgen.text import single


def small(kind="gated"):
    """A tiny model with every parameter drawn, biases too."""
    model = gated.Gated(gated_config.Config(11, kind, 6, layers=2, units=3 if kind == "bilstm" else None))
    shapes = model.config.shapes()
    leaves = {path: 0.5 * jax.random.normal(jax.random.key(i), shape) for i, (path, shape) in enumerate(shapes.items())}
    return model, flaxgen.weights.nest(leaves)


@pytest.mark.parametrize(("kind", "wanted"), [("gated", 2_647_617), ("bilstm", 2_648_385)])
def test_the_article_s_sizes_have_the_article_s_parameters(kind, wanted):
    sizes = gated_config.Config(8001, kind)
    assert sum(map(math.prod, sizes.shapes().values())) == wanted


@pytest.mark.parametrize("kind", ["gated", "bilstm"])
def test_the_sizes_name_every_parameter_that_the_model_makes(kind):
    model, _ = small(kind)
    made = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    assert {path: leaf.shape for path, leaf in flaxgen.weights.flatten(made).items()} == model.config.shapes()


@pytest.mark.parametrize("kind", ["gated", "bilstm"])
def test_rows_do_not_look_at_each_other(kind):
    model, params = small(kind)
    token_BT = jax.random.randint(jax.random.key(0), (3, 5), 0, 11)
    whole_BTV = model.apply(params, token_BT)
    assert whole_BTV.shape == (3, 5, 11) and whole_BTV.dtype == jnp.float32
    for row in range(3):
        np.testing.assert_allclose(model.apply(params, token_BT[row : row + 1])[0], whole_BTV[row], atol=1e-5)


def test_a_convolution_sees_as_far_as_its_taps_and_the_lstm_sees_all():
    token_BT = jnp.arange(9)[None] % 7
    for kind, wanted in (("gated", range(2, 7)), ("bilstm", range(9))):
        model, params = small(kind)
        moved = model.apply(params, token_BT.at[0, 4].set(9)) != model.apply(params, token_BT)
        assert list(np.flatnonzero(moved.any(axis=(0, 2)))) == list(wanted)


def test_away_from_the_ends_a_line_is_answered_alike_wherever_it_stands():
    model, params = small()
    token_BT = jax.random.randint(jax.random.key(0), (1, 9), 0, 11)
    longer_BT = jnp.concatenate([jnp.full((1, 3), 7), token_BT], axis=1)
    np.testing.assert_allclose(model.apply(params, longer_BT)[:, 5:], model.apply(params, token_BT)[:, 2:], atol=1e-5)


def test_dropout_is_drawn_by_row():
    model, params = small()
    key_B = jax.vmap(jax.random.key)(jnp.arange(2))
    token_BT = jnp.ones((2, 4), jnp.int32)
    dropped_BTV = model.apply(params, token_BT, key_B=key_B)
    assert not np.allclose(dropped_BTV[0], dropped_BTV[1])
    np.testing.assert_allclose(model.apply(params, token_BT[1:], key_B=key_B[1:])[0], dropped_BTV[1], atol=1e-5)


@pytest.mark.parametrize("kind", ["gated", "bilstm"])
def test_a_saved_model_loads_and_gives_the_same_logits(kind, tmp_path):
    model, params = small(kind)
    text = single.Single(("[UNK]", *"天地玄黄宇宙洪荒日月"))
    flaxgen.save(tmp_path / "model", model, params, text)
    again, loaded, vocabulary = flaxgen.load(tmp_path / "model")
    token_BT = jnp.asarray([vocabulary.encode("天雨 黄")])
    assert token_BT.tolist() == [[1, 0, 4]] and again.config == model.config and vocabulary == text
    np.testing.assert_array_equal(again.apply(loaded, token_BT), model.apply(params, token_BT))


@pytest.mark.parametrize("kind", ["gated", "bilstm"])
def test_int8_weights_answer_almost_alike(kind):
    model, params = small(kind)
    token_BT = jnp.arange(8)[None]
    wanted_BTV = model.apply(params, token_BT)
    found_BTV = model.apply(flaxgen.weights.quantize(params), token_BT)
    widened_BTV = model.apply(flaxgen.weights.dequantize(flaxgen.weights.quantize(params)), token_BT)
    np.testing.assert_allclose(found_BTV, widened_BTV, atol=2e-3)
    assert 0 < np.abs(found_BTV - wanted_BTV).max() < 0.1


def test_bfloat16_stays_finite():
    model, params = small()
    logit_BTV = gated.Gated(model.config, jnp.bfloat16).apply(params, jnp.ones((2, 5), jnp.int32))
    assert logit_BTV.dtype == jnp.float32 and np.isfinite(logit_BTV).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "gru"}, "'kind' is 'gru'; wanted one of gated, bilstm"),
        ({"taps": 4}, "'taps' is 4; wanted an odd number"),
        ({"units": 3}, "'units' is 3, but 'gated' has none"),
        ({"kind": "bilstm", "taps": 3}, "'taps' is 3, but 'bilstm' has none"),
        ({"layers": 0}, "'layers' is 0; wanted a positive whole number"),
        ({"width": True}, "'width' is True"),
        ({"dropout": 1.0}, "'dropout' is 1.0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        gated_config.Config(11, **fields)
