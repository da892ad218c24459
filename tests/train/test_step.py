import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import optimizers
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


def optimizer(name="adamw", **settings):
    return optimizers.build(name, **{"steps": 50, "rate": 0.1, "warmup": 5, "clip": 1.0, **settings})


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


def test_a_gradient_that_is_too_steep_is_told_as_infinite_and_changes_nothing():
    task, rule = Parabola(), optimizer()
    state = steps.start(task, rule, jax.random.key(0))
    before = jax.device_get(state.params)
    state, facts = steps.update(task, rule, state, jax.random.key(1), jnp.ones(()), steep=5.0)
    assert np.isinf(facts["norm"]) and np.isfinite(facts["loss"])
    jax.tree.map(np.testing.assert_array_equal, before, state.params)


def test_carry_and_step_travel():
    task, rule = Parabola(), optimizer()
    state = steps.start(task, rule, jax.random.key(0))
    for _ in range(3):
        state, _ = steps.update(task, rule, state, jax.random.key(1), jnp.ones(()))
    assert int(state.step) == 3 and float(state.carry) == 3


@pytest.mark.parametrize("accumulate", [2, 5])
def test_parts_of_a_batch_are_weighed_by_their_weights(accumulate):
    task, rule = Weighed(), optimizer("sgd", warmup=0, clip=0.0)
    batch = {"value_B": jnp.arange(10.0), "weight_B": jnp.asarray([1.0, 0, 2, 0, 0, 3, 1, 0, 0, 1])}
    whole, facts = steps.update(task, rule, steps.start(task, rule, jax.random.key(0)), jax.random.key(1), batch)
    parts, facts_too = steps.update(task, rule, steps.start(task, rule, jax.random.key(0)), jax.random.key(1), batch, accumulate=accumulate)
    np.testing.assert_allclose(parts.params["kernel"], whole.params["kernel"], rtol=1e-6)
    np.testing.assert_allclose(facts_too["loss"], facts["loss"], rtol=1e-6)
    assert facts_too["weight"] == facts["weight"] == 8


@dataclasses.dataclass(frozen=True)
class Weighed:
    """A weighted mean over rows, some of which weigh nothing."""

    def init(self, key) -> Any:
        return {"kernel": jnp.ones(())}

    def carry(self, key):
        return ()

    def loss(self, params, carry, key, batch):
        weight = batch["weight_B"].sum()
        return (params["kernel"] * batch["value_B"] * batch["weight_B"]).sum() / jnp.maximum(weight, 1), (carry, {"weight": weight})
