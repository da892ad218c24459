import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train import step as steps


@dataclasses.dataclass(frozen=True)
class Parabola:
    """A task of two numbers, to see the step alone."""

    def init(self, key) -> Any:
        return {"kernel": jnp.asarray([3.0, -2.0]), "bias": jnp.asarray([1.0])}

    def carry(self, key):
        return jnp.zeros(())

    def loss(self, params, carry, key, batch):
        return batch * (jnp.sum(params["kernel"] ** 2) + jnp.sum(params["bias"] ** 2)), (carry + 1, {"weight": jnp.ones(())})

    def export(self, params, carry):
        return params


def optimizer(**settings):
    return steps.adamw(**{"steps": 50, "rate": 0.1, "warmup": 5, "decay": 0.0, "clip": 1.0, **settings})


def test_the_rate_rises_over_the_warm_up_and_falls_to_a_twentieth():
    rate = steps.schedule(steps=100, rate=2e-3, warmup=10)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(100)], [0, 1e-3, 2e-3, 1e-4], rtol=1e-6)


def test_only_kernels_and_embeddings_decay():
    tree = {"a": {"kernel": 1, "bias": 2}, "norm": {"scale": 3, "bias": 4}, "token": {"embedding": 5}}
    wanted = {"a": {"kernel": True, "bias": False}, "norm": {"scale": False, "bias": False}, "token": {"embedding": True}}
    assert steps.decayed(tree) == wanted


def test_an_infinite_loss_changes_no_number_but_the_step():
    task, rule = Parabola(), optimizer()
    state = steps.start(task, rule, jax.random.key(0))
    state, _ = steps.update(task, rule, state, jax.random.key(1), jnp.ones(()))
    before = jax.device_get(state)
    state, facts = steps.update(task, rule, state, jax.random.key(1), jnp.asarray(jnp.inf))
    assert not np.isfinite(facts["loss"])
    jax.tree.map(np.testing.assert_array_equal, (before.params, before.opt, before.carry), (state.params, state.opt, state.carry))
    assert int(state.step) == 2


def test_a_large_gradient_moves_no_further_than_its_clip_allows():
    task = Parabola()
    state = steps.start(task, optimizer(), jax.random.key(0))
    _, facts = steps.update(task, optimizer(), state, jax.random.key(1), jnp.asarray(1e6))
    np.testing.assert_allclose(facts["norm"], 2e6 * np.sqrt(14), rtol=1e-6)


def test_carry_and_step_travel():
    task, rule = Parabola(), optimizer()
    state = steps.start(task, rule, jax.random.key(0))
    for _ in range(3):
        state, _ = steps.update(task, rule, state, jax.random.key(1), jnp.ones(()))
    assert int(state.step) == 3 and float(state.carry) == 3
