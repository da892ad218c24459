"""The chain that is done at once."""

import jax
import numpy as np
import pytest

from flaxgen import loop
from flaxgen.chains import direct
from flaxgen.models import gated, gated_config

CONFIG = gated_config.Config(vocab=11, width=6, layers=2)


@pytest.fixture(scope="module")
def model():
    made = gated.Gated(CONFIG)
    return made, made.init(jax.random.key(0), np.zeros((1, 1), np.int32))


def test_one_move_gives_the_log_probabilities_of_all_places(model):
    made, params = model
    token_BT = np.array([[1, 5, 0, 10, 3], [2, 2, 7, 7, 9]], np.int32)
    got_BTV = loop.generate(direct.Direct(made), params, jax.random.key(0), token_BT, steps=1)
    np.testing.assert_allclose(got_BTV, jax.nn.log_softmax(made.apply(params, token_BT)), atol=1e-6)
    np.testing.assert_allclose(np.exp(got_BTV).sum(axis=-1), 1, atol=1e-5)
    (streamed_BTV,) = loop.stream(direct.Direct(made), params, jax.random.key(7), token_BT, steps=9)
    np.testing.assert_array_equal(streamed_BTV, got_BTV)


@pytest.mark.parametrize("token_BT", [np.array([[1, 11]]), np.array([[-1]]), np.array([1, 2]), np.array([[0.5]]), np.zeros((1, 0), int)])
def test_what_is_no_row_of_ids_is_refused(model, token_BT):
    made, params = model
    with pytest.raises(ValueError, match="token_BT"):
        loop.generate(direct.Direct(made), params, jax.random.key(0), token_BT, steps=1)
