"""GPT2_ML with weights from a formula, against numbers computed by an independent float64 program of ours in NumPy."""

import jax
import numpy as np
import pytest

from flaxgen import loop, rules, weights
from flaxgen.chains import autoregressive, scoring
from flaxgen.models import config as sizes
from flaxgen.models import transformer

IDS = [3, 7, 1, 10, 5]
FIRST = [
    2.52172298,
    -2.42969811,
    0.2043218,
    2.20045549,
    -2.67316358,
    0.79874988,
    1.77699136,
    -2.79247824,
    1.3560813,
    1.27099771,
    -2.78210072,
]
LAST = [
    -2.65895055,
    1.79287343,
    0.64740301,
    -2.51923922,
    2.17910408,
    0.07435305,
    -2.26252586,
    2.46412973,
    -0.50215011,
    -1.90073312,
    2.63471282,
]


@pytest.fixture(scope="module")
def tiny():
    """Weights 0.5 sin(0.7 k + 1.3 i), biases 0.1 sin(…), scales 1 + 0.1 sin(…), k counting the arrays as the original creates them."""
    config = sizes.Config(11, 12, 8, 2, 2, 16, "between", "gelu")
    order = ["embed/token/embedding", "embed/position/embedding", "embed/norm/bias", "embed/norm/scale"]
    for layer in range(config.layers):
        block = sizes.block_name(layer)
        order += [f"{block}/attend/{part}/{leaf}" for part in "qkvo" for leaf in ("kernel", "bias")]
        order += [f"{block}/norm_0/bias", f"{block}/norm_0/scale"]
        order += [f"{block}/mlp/{part}/{leaf}" for part in ("up", "down") for leaf in ("kernel", "bias")]
        order += [f"{block}/norm_1/bias", f"{block}/norm_1/scale"]
    flat, shapes = {}, sizes.shapes(config)
    for number, name in enumerate(order, 1):
        turned = name.endswith("kernel")
        shape = shapes[name][::-1] if turned else shapes[name]
        amplitude = 0.5 if len(shape) == 2 else 0.1
        values = (amplitude * np.sin(0.7 * number + 1.3 * np.arange(np.prod(shape)))).reshape(shape)
        flat[name] = ((values.T if turned else values) + name.endswith("scale")).astype(np.float32)
    return transformer.Transformer(config), weights.nest(flat)


def test_the_logits_and_the_likelihood_are_the_computed_ones(tiny):
    model, params = tiny
    logit_TV = np.asarray(model.apply(params, np.array([IDS]))[0][0])
    np.testing.assert_allclose(logit_TV[0], FIRST, atol=1e-5)
    np.testing.assert_allclose(logit_TV[-1], LAST, atol=1e-5)
    scored_BT = scoring.score(model, params, np.array([IDS]), np.array([5]))
    np.testing.assert_allclose(-scored_BT.mean(), 2.4872941353947158, rtol=1e-6)


def test_the_greedy_continuation_is_the_computed_one(tiny):
    model, params = tiny
    given = autoregressive.prompt(np.array([IDS]), np.array([5]), rule=rules.Rule(temperature=0))
    sample = loop.generate(autoregressive.Autoregressive(model, room=7), params, jax.random.key(0), given, steps=7)
    assert sample.rows() == [[10, 10, 9, 9, 0, 0, 9]]
