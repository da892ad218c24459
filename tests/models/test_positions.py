"""Longer than trained: the decomposition against its definition, and models that use it."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from flaxgen import weights
from flaxgen.chains import scoring
from flaxgen.models import config as sizes
from flaxgen.models import positions, transformer


def tiny(wiring="pre", dtype=np.float32):
    """A model of 5 positions with random parameters."""
    model = transformer.Transformer(sizes.Config(19, 5, 12, 2, 3, 20, wiring, "gelu", init_range=0.4), dtype)
    noise = np.random.default_rng(3)
    shapes = sizes.shapes(model.config).items()
    return model, weights.nest({name: jnp.asarray(noise.normal(name.endswith("scale"), 0.4, shape), dtype) for name, shape in shapes})


apply = jax.jit(lambda model, *given, **named: model.apply(*given, **named), static_argnums=0)


def embedding(params):
    return np.asarray(params["params"]["embed"]["position"]["embedding"])


def by_definition(old_SD: np.ndarray, count: int, alpha: float) -> np.ndarray:
    """Equation by equation, in float64."""
    p = old_SD.astype(np.float64)
    n = len(p)
    u = [(p[i] - alpha * p[0]) / (1 - alpha) for i in range(n)]
    return np.array([alpha * u[i] + (1 - alpha) * u[j] for i in range(n) for j in range(n)])[:count]


def test_one_two_four_becomes_the_published_nine():
    got = positions.decompose(np.array([[1.0], [2.0], [4.0]], np.float32), 9, 0.4)
    np.testing.assert_allclose(got[:, 0], [1, 2, 4, 5 / 3, 8 / 3, 14 / 3, 3, 4, 6], rtol=3e-7)


@settings(max_examples=8, deadline=None)
@given(some.integers(1, 6), some.integers(1, 4), some.floats(0.05, 0.95).filter(lambda a: abs(a - 0.5) > 1e-3), some.data())
def test_rows_are_those_of_the_definition_and_the_first_stay_to_the_last_bit(trained, width, alpha, data):
    count = data.draw(some.integers(trained, trained**2))
    old_SD = np.random.default_rng(data.draw(some.integers(0, 99))).standard_normal((trained, width)).astype(np.float32)
    got_SD = np.asarray(positions.decompose(old_SD, count, alpha))
    np.testing.assert_array_equal(got_SD[:trained], old_SD)
    scale = 1 / (1 - alpha)
    np.testing.assert_allclose(got_SD, by_definition(old_SD, count, alpha), atol=2e-6 * scale, rtol=2e-6)


def test_a_bfloat16_table_is_worked_out_in_float32_and_stays_bfloat16():
    model, params = tiny(dtype=ml_dtypes.bfloat16)
    _, longer = positions.hierarchical(model, params, 23)
    assert embedding(longer).dtype == ml_dtypes.bfloat16
    # Rounding to eight bits once, at the end: half a unit in the last place from the definition.
    np.testing.assert_allclose(embedding(longer).astype(np.float64), by_definition(embedding(params), 23, 0.4), rtol=2**-8, atol=1e-6)
    np.testing.assert_array_equal(embedding(longer)[:5], embedding(params))


@pytest.mark.parametrize("wiring", ["pre", "between"])
def test_a_text_that_fitted_before_reads_as_before_and_a_longer_one_by_the_new_rows(wiring):
    model, params = tiny(wiring)
    longer, grown = positions.hierarchical(model, params, 23)
    assert longer.config == dataclasses.replace(model.config, positions=23) and model.config.positions == 5
    token_BT = np.random.default_rng(1).integers(0, 19, (2, 13))
    np.testing.assert_array_equal(apply(longer, grown, token_BT[:, :5])[0], apply(model, params, token_BT[:, :5])[0])
    # A model that was born with 13 positions and happens to have these rows gives the same logits.
    born = transformer.Transformer(dataclasses.replace(model.config, positions=13))
    flat = weights.flatten(params) | {"embed/position/embedding": jnp.asarray(by_definition(embedding(params), 13, 0.4), jnp.float32)}
    np.testing.assert_allclose(apply(longer, grown, token_BT)[0], apply(born, weights.nest(flat), token_BT)[0], atol=2e-5)


def test_cached_reading_past_the_trained_length_equals_reading_at_once():
    model, params = positions.hierarchical(*tiny(), 23)
    token_BT = np.random.default_rng(2).integers(0, 19, (2, 16))
    whole_BTV, _ = apply(model, params, token_BT)
    caches, parts = (model.cache(2, 16),), []
    for start in range(0, 16, 4):
        logit_BTV, caches = apply(model, params, token_BT[:, start : start + 4], caches=caches)
        parts.append(logit_BTV)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole_BTV, atol=1e-5)


def test_a_lengthened_model_is_saved_and_loaded_like_any_other(tmp_path):
    model, params = positions.hierarchical(*tiny(), 25)
    weights.save(tmp_path / "longer", model, params)
    again, read, _ = weights.load(tmp_path / "longer")
    assert again.config.positions == 25
    np.testing.assert_array_equal(embedding(read), embedding(params))


def test_a_model_of_int8_weights_is_lengthened_too():
    model, params = tiny()
    longer, coded = positions.hierarchical(model, weights.quantize(params), 13)
    np.testing.assert_array_equal(embedding(coded), embedding(positions.hierarchical(model, params, 13)[1]))
    token_BT = np.random.default_rng(5).integers(0, 19, (1, 13))
    assert np.isfinite(apply(longer, coded, token_BT)[0]).all()


def test_a_text_of_all_n_squared_positions_is_scored():
    model, params = positions.hierarchical(*tiny(), 25)
    token_BT = np.random.default_rng(4).integers(0, 19, (1, 25))
    assert np.isfinite(scoring.score(model, params, token_BT, np.array([25]))).all()


def test_nothing_is_changed_in_place_and_other_leaves_are_shared():
    model, params = tiny()
    before = jax.tree.map(np.array, params)
    _, longer = positions.hierarchical(model, params, 7)
    jax.tree.map(np.testing.assert_array_equal, params, before)
    assert longer["params"]["block_00"] is params["params"]["block_00"]


def test_gradients_reach_the_old_rows_through_the_new_ones():
    model, params = tiny()

    def last_row(params):
        return positions.hierarchical(model, params, 25)[1]["params"]["embed"]["position"]["embedding"][24].sum()

    slope_SD = jax.grad(last_row)(params)["params"]["embed"]["position"]["embedding"]
    # Row 24 = 4 * 5 + 4 is u_4, that is (p_4 - 0.4 p_0) / 0.6.
    np.testing.assert_allclose(slope_SD[:, 0], [-2 / 3, 0, 0, 0, 5 / 3], atol=1e-6)


@pytest.mark.parametrize("count", [0, 4, 26, 7.0, "9", None, True])
def test_fewer_positions_than_there_are_or_more_than_their_square_are_refused_with_the_numbers(count):
    with pytest.raises(ValueError, match=r"positions=.*from 5, which the model has, to 5² = 25"):
        positions.hierarchical(*tiny(), count)


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 1.0, -0.1, float("nan"), "0.4", None])
def test_an_alpha_that_divides_by_zero_or_makes_rows_equal_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha=.*between 0 and 1 other than 0.5"):
        positions.hierarchical(*tiny(), 7, alpha=alpha)


def test_a_table_of_whole_numbers_is_refused():
    model, params = tiny()
    flat = weights.flatten(params) | {"embed/position/embedding": jnp.zeros((5, 12), jnp.int8)}
    with pytest.raises(ValueError, match="5 rows of int8"):
        positions.hierarchical(model, weights.nest(flat), 7)
