import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import weights
from flaxgen.models import field, field_config

SMALL = field_config.Config(width=3, hidden=(4, 5), bowl=2.0)


def test_shapes_are_those_of_the_module_and_json_gives_the_config_back():
    shapes = jax.eval_shape(field.Field(SMALL).init, jax.random.key(0), jnp.zeros((1, 3)))
    assert {path: leaf.shape for path, leaf in weights.flatten(shapes).items()} == SMALL.shapes()
    assert field_config.Config(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL


def test_the_energy_is_a_perceptron_in_a_bowl():
    model = field.Field(SMALL)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(1), jnp.zeros((1, 3))))
    x_BD = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    h = x_BD.astype(np.float64)
    for name in ("block_00", "block_01"):
        h = h @ np.asarray(params["params"][name]["kernel"]).T + np.asarray(params["params"][name]["bias"])
        h = h / (1 + np.exp(-h))
    plain = (h @ np.asarray(params["params"]["out"]["kernel"]).T)[:, 0]
    np.testing.assert_allclose(model.apply(params, x_BD), plain + (x_BD**2).sum(axis=1) / 8, rtol=1e-5)
    np.testing.assert_allclose(field.Field(dataclasses.replace(SMALL, bowl=None)).apply(params, x_BD), plain, rtol=1e-5)


def test_labels_and_sizes_that_make_no_model_are_refused():
    with pytest.raises(ValueError, match="knows no classes"):
        field.Field(SMALL).init(jax.random.key(0), jnp.zeros((1, 3)), jnp.zeros((1,), jnp.int32))
    for changed, complaint in (
        ({"width": 0}, "'width' is 0"),
        ({"hidden": (0,)}, r"'hidden' is \(0,\)"),
        ({"bowl": -1.0}, "'bowl' is -1.0"),
    ):
        with pytest.raises(ValueError, match=complaint):
            dataclasses.replace(SMALL, **changed)
