"""The layers in training: one result whatever the loop and whatever is kept, and the first parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import weights
from flaxgen.models import config as sizes
from flaxgen.models import layers, transformer


def tiny(wiring="pre", **changes) -> transformer.Transformer:
    return transformer.Transformer(
        sizes.Config(**dict(vars(sizes.Config(37, 23, 12, 2, 3, 20, wiring, "gelu", init_range=0.4)), **changes))
    )


def value_and_gradients(made, params):
    (value, _), grads = jax.jit(jax.value_and_grad(made, has_aux=True))(params)
    return value, weights.flatten(transformer.unstack(grads) if "block" in grads["params"] else grads)


@pytest.mark.parametrize(
    ("wiring", "loop", "remat"),
    [
        ("pre", "scan", "none"),
        ("between", "scan", "full"),
        ("pre", "scan", "dots"),
        ("between", "unroll", "full"),
        ("pre", "unroll", "dots"),
    ],
)
def test_every_loop_and_all_that_is_computed_again_give_the_hidden_states_and_gradients_of_apply(wiring, loop, remat):
    model = tiny(wiring, dropout=0.3)
    params = jax.jit(layers.init, static_argnums=(0, 2))(model, jax.random.key(0), loop)
    noise = np.random.default_rng(7)
    token_BT, floor_BT = noise.integers(0, 37, (2, 6)), np.array([[1, 1, 1, 1, 5, 5], [1, 2, 2, 2, 2, 2]])
    named = {"valid_BT": np.arange(6) < np.array([[4], [6]]), "floor_BT": floor_BT, "key_B": jax.random.split(jax.random.key(1), 2)}

    def plain(params):
        hidden_BTD, _ = model.apply(params, token_BT, **named, head="hidden")
        return jnp.square(hidden_BTD - 0.5).mean(), hidden_BTD

    def ours(params):
        hidden_BTD = layers.hidden(model, params, token_BT, **named, remat=remat)
        return jnp.square(hidden_BTD - 0.5).mean(), hidden_BTD

    wanted, wanted_gradients = value_and_gradients(plain, transformer.unstack(params) if loop == "scan" else params)
    value, gradients = value_and_gradients(ours, params)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    scale = max(jnp.abs(leaf).max() for leaf in wanted_gradients.values())
    assert gradients.keys() == wanted_gradients.keys()
    assert max(jnp.abs(gradients[name] - wanted_gradients[name]).max() for name in gradients) <= 1e-5 * scale


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_the_more_is_computed_again_the_less_is_kept_for_the_backward_pass(loop):
    model = tiny(layers=7, dropout=0.0)
    params = jax.eval_shape(lambda key: layers.init(model, key, loop), jax.random.key(0))

    def kept(remat):
        def loss(params):
            return layers.hidden(model, params, jnp.ones((4, 23), jnp.int32), remat=remat).sum()

        pull = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(pull)) / (4 * 23 * 12 * 7)  # widths a token and layer

    assert kept("full") < 3 and 5 < kept("dots") - kept("full") < 9 and kept("none") - kept("dots") > 6


@pytest.mark.parametrize("wiring", ["pre", "between"])
def test_both_loops_begin_with_the_same_numbers_in_the_models_own_tree(wiring):
    model = tiny(wiring, layers=3)
    stacked, plain = (jax.jit(lambda key, loop=loop: layers.init(model, key, loop))(jax.random.key(5)) for loop in ("scan", "unroll"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), transformer.unstack(stacked), plain)
    flat = weights.flatten(plain)
    assert {name: leaf.shape for name, leaf in flat.items()} == sizes.shapes(model.config)
    assert all(leaf.dtype == jnp.float32 for leaf in flat.values())
    kernels = [leaf for name, leaf in flat.items() if name.endswith(("kernel", "embedding"))]
    assert len({float(leaf[0, 0]) for leaf in kernels}) == len(kernels)
    assert all(0.3 < float(leaf.std()) < 0.5 and float(jnp.abs(leaf).max()) <= 0.91 for leaf in kernels)
    assert all((leaf == name.endswith("scale")).all() for name, leaf in flat.items() if name.endswith(("scale", "bias")))


def test_the_program_that_draws_the_first_parameters_does_not_grow_with_depth():
    def lines(depth):
        model = tiny(layers=depth)
        return len(jax.jit(lambda key: layers.init(model, key, "scan")).lower(jax.random.key(0)).as_text().splitlines())

    assert lines(2) == lines(48)
