"""Long texts, read both ways, against reading every window by itself."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from flaxgen import longer, weights
from flaxgen.models import config as sizes
from flaxgen.models import positions, transformer

apply = jax.jit(lambda model, *given: model.apply(*given), static_argnums=0)


def tiny(count=5):
    model = transformer.Transformer(sizes.Config(19, count, 12, 2, 3, 20, "pre", "gelu", init_range=0.4))
    noise = np.random.default_rng(3)
    shapes = sizes.shapes(model.config).items()
    return model, weights.nest({name: jnp.asarray(noise.normal(name.endswith("scale"), 0.4, shape), jnp.float32) for name, shape in shapes})


def texts(*lengths):
    noise = np.random.default_rng(7)
    return [noise.integers(0, 19, length).tolist() for length in lengths]


def alone(model, params, context, token):
    """log p(token | context), by one plain reading."""
    token_BT = np.array([context + [0] * (model.config.positions - len(context))])
    logit_V = np.asarray(apply(model, params, token_BT)[0][0, len(context) - 1], np.float64)
    return logit_V[token] - np.log(np.exp(logit_V).sum())


@pytest.mark.parametrize("count", [2, 4, 5])
def test_a_sliding_reading_sees_the_last_half_and_what_came_since(count):
    model, params = tiny(count)
    (row,) = texts(11)
    got = longer.log_probs(model, params, [row], way="sliding")[0]
    wanted, start = [], 0
    for place in range(1, len(row)):
        if place - start == count:  # full: the last half begins a new text
            start = place - count // 2
        wanted.append(alone(model, params, row[start:place], row[place]))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_hierarchical_reading_is_one_reading_with_more_positions():
    model, params = tiny()
    rows = texts(13, 2, 25, 5)
    got = longer.log_probs(model, params, rows, way="hierarchical")
    long, grown = positions.hierarchical(model, params, 25)
    for row, values in zip(rows, got, strict=True):
        token_BT = np.array([row + [0] * (25 - len(row))])
        logit_TV = np.asarray(apply(long, grown, token_BT)[0][0, : len(row) - 1], np.float64)
        wanted_T = logit_TV[np.arange(len(row) - 1), row[1:]] - np.log(np.exp(logit_TV).sum(axis=1))
        np.testing.assert_allclose(values, wanted_T, atol=1e-5)


def test_both_ways_agree_where_the_text_still_fits(monkeypatch):
    model, params = tiny()
    monkeypatch.setattr(longer, "TOGETHER", 11)  # blocks of two rows
    rows = texts(9, 3, 5, 8, 2)
    ways = [longer.log_probs(model, params, rows, way=way) for way in ("sliding", "hierarchical")]
    for row, sliding, hierarchical in zip(rows, *ways, strict=True):
        assert len(sliding) == len(hierarchical) == len(row) - 1
        np.testing.assert_allclose(sliding[:4], hierarchical[:4], atol=1e-5)


def test_a_deep_model_is_read_layer_by_layer_with_the_same_result():
    model, params = tiny()
    rows = texts(9, 3)
    for way in ("sliding", "hierarchical"):
        both = [longer.log_probs(model, params, rows, way=way, layers=layers) for layers in ("unrolled", "dispatched")]
        np.testing.assert_allclose(*map(np.concatenate, both), atol=1e-5)


def test_the_curves_of_the_bundled_model_stand_side_by_side():
    model, params, text = weights.load(pathlib.Path(flaxgen.__file__).parent / "bundled" / "poetry")
    row = text.encode("床前明月光，疑是地上霜。举头望明月，低头思故乡。" * 9)
    curves = longer.curves(model, params, [row])
    assert list(curves) == ["hierarchical", "sliding"]
    for curve in curves.values():
        assert curve.width == 48 and curve.count_E.tolist() == [47, 48, 48, 48, 24]
    # Up to the trained 192 both are the model itself.
    np.testing.assert_allclose(curves["sliding"].nats_E[:4], curves["hierarchical"].nats_E[:4], rtol=1e-4)


def test_what_cannot_be_read_is_refused_with_the_numbers():
    model, params = tiny()
    with pytest.raises(ValueError, match="way='plain': wanted one of hierarchical, sliding"):
        longer.log_probs(model, params, texts(3), way="plain")
    with pytest.raises(ValueError, match="26 tokens; 5 positions are lengthened to 25 at most"):
        longer.log_probs(model, params, texts(3, 26), way="hierarchical")
    with pytest.raises(ValueError, match="text 1 has 1 tokens, wanted at least 2"):
        longer.log_probs(model, params, texts(3, 1), way="sliding")
    with pytest.raises(ValueError, match="text 0 has ids 1 to 19; the model's vocabulary has 0 to 18"):
        longer.log_probs(model, params, [[1, 19]], way="sliding")
    with pytest.raises(ValueError, match="wanted at least 2 positions"):
        longer.log_probs(*tiny(1), texts(3), way="sliding")
