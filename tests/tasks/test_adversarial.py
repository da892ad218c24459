import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.models import config, transformer
from flaxgen.tasks import adversarial, language

TOKEN_BT = np.array([[0, 3, 3], [2, 0, 4]])
TARGET_B = np.array([1, 0])
KINDS = [adversarial.FastGradient, adversarial.GradientPenalty]


@dataclasses.dataclass(frozen=True)
class Bag:
    """Two classes of a bag of words: softmax(kernel tanh(sum of embeddings)), small enough to be written out in numpy."""

    def init(self, key) -> Any:
        random = np.random.default_rng(0)
        token, kernel = random.normal(size=(5, 3)), random.normal(size=(2, 3))
        return {"params": {"embed": {"token": {"embedding": jnp.asarray(token)}}, "head": {"kernel": jnp.asarray(kernel)}}}

    def carry(self, key):
        return jnp.zeros(())

    def loss(self, params, carry, key, batch):
        token_VD, kernel_FD = params["params"]["embed"]["token"]["embedding"], params["params"]["head"]["kernel"]
        logit_BF = jnp.tanh(token_VD[batch["token_BT"]].sum(axis=1)) @ kernel_FD.T
        nats_B = -jnp.take_along_axis(jax.nn.log_softmax(logit_BF), batch["target_B"][:, None], axis=1)[:, 0]
        return nats_B.mean(), (carry + 1, {"weight": jnp.asarray(2.0)})

    def export(self, params, carry):
        return params


BATCH = {"token_BT": TOKEN_BT, "target_B": TARGET_B}


def by_hand(token_VD, kernel_FD):
    """Loss of the bag, and its gradients by embedding and kernel, in float64."""
    h_BD = np.tanh(token_VD[TOKEN_BT].sum(axis=1))
    p_BF = np.exp(h_BD @ kernel_FD.T)
    p_BF /= p_BF.sum(axis=1, keepdims=True)
    slope_BF = (p_BF - np.eye(2)[TARGET_B]) / 2
    token_slope_VD = np.zeros_like(token_VD)
    for row, tokens in enumerate(TOKEN_BT):
        for token in tokens:
            token_slope_VD[token] += (slope_BF[row] @ kernel_FD) * (1 - h_BD[row] ** 2)
    return -np.log(p_BF[[0, 1], TARGET_B]).mean(), token_slope_VD, slope_BF.T @ h_BD


def numbers():
    params = Bag().init(None)["params"]
    return np.asarray(params["embed"]["token"]["embedding"], np.float64), np.asarray(params["head"]["kernel"], np.float64)


def graded(task):
    """Loss, facts, and gradients by embedding and kernel."""
    differentiate = jax.jit(jax.value_and_grad(lambda params: task.loss(params, jnp.zeros(()), jax.random.key(0), BATCH), has_aux=True))
    (loss, rest), grads = differentiate(task.init(jax.random.key(0)))
    return loss, rest, grads["params"]["embed"]["token"]["embedding"], grads["params"]["head"]["kernel"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_epsilon_of_zero_is_the_task_itself(kind):
    loss, _, *grads = graded(kind(Bag(), 0.0))
    for found, wanted in zip((loss, *grads), by_hand(*numbers()), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_fast_gradient_learns_from_the_moved_embedding():
    token_VD, kernel_FD = numbers()
    _, slope_VD, _ = by_hand(token_VD, kernel_FD)
    moved_VD = token_VD + 0.5 * slope_VD / (np.sqrt((slope_VD**2).sum()) + 1e-8)
    loss, (carry, facts), *grads = graded(adversarial.FastGradient(Bag(), 0.5))
    for found, wanted in zip((loss, *grads), by_hand(moved_VD, kernel_FD), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert loss > by_hand(token_VD, kernel_FD)[0] and carry == 1 and facts["weight"] == 2


def test_the_penalty_is_half_epsilon_times_the_squared_gradient():
    token_VD, kernel_FD = numbers()

    def penalised(token_VD, kernel_FD):
        loss, slope_VD, _ = by_hand(token_VD, kernel_FD)
        return loss + 0.5 * 0.7 * (slope_VD**2).sum()

    loss, (carry, facts), *grads = graded(adversarial.GradientPenalty(Bag(), 0.7))
    np.testing.assert_allclose(loss, penalised(token_VD, kernel_FD), atol=1e-6)
    for found, which in zip(grads, (token_VD, kernel_FD), strict=True):
        for place in np.ndindex(which.shape):
            ends, kept = [], which[place]
            for sign in (1, -1):
                which[place] = kept + sign * 1e-5
                ends.append(penalised(token_VD, kernel_FD))
            which[place] = kept
            np.testing.assert_allclose(found[place], (ends[0] - ends[1]) / 2e-5, atol=1e-6)
    assert carry == 1 and facts["weight"] == 2


SIZES = config.Config(29, 7, 12, 2, 3, 20, wiring="between", activation="gelu", dropout=0.3)


def batch():
    row_BT = np.random.default_rng(0).integers(1, 29, (2, 6)).astype(np.int32)
    return {"token_BT": row_BT[:, :-1], "target_BT": row_BT[:, 1:], "weight_BT": np.ones((2, 5), np.float32)}


@functools.cache
def plain(loop):
    """Parameters drawn by numpy, which has nothing to compile."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(language.Language(transformer.Transformer(SIZES), "scan").init, jax.random.key(0))
    draw = lambda path, leaf: jnp.asarray(random.normal(path[-1].key == "scale", 0.1, leaf.shape), jnp.float32)  # noqa: E731
    stacked = jax.tree_util.tree_map_with_path(draw, shapes)
    return stacked if loop == "scan" else transformer.unstack(stacked)


@functools.cache
def of_language(kind, epsilon, **given):
    """Loss and gradient of an adversarial language model with unstacked parameters, whatever its loop."""
    task = kind(language.Language(transformer.Transformer(SIZES), **given), epsilon)
    differentiate = jax.jit(jax.value_and_grad(lambda params: task.loss(params, (), jax.random.key(1), batch())[0]))
    loss, grads = differentiate(plain(given["loop"]))
    return float(loss), transformer.unstack(grads) if given["loop"] == "scan" else grads


OTHERS = [{"loop": "scan", "remat": "full"}, {"loop": "scan", "chunks": 3}, {"loop": "unroll", "remat": "dots"}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", OTHERS, ids=str)
def test_layer_loops_rematerialisation_and_chunks_change_neither_loss_nor_gradient(kind, given):
    loss, grads = of_language(kind, 0.5, loop="scan")
    loss_too, grads_too = of_language(kind, 0.5, **given)
    np.testing.assert_allclose(loss, loss_too, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, grads_too)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_that_takes_nothing_is_refused(kind):
    task = kind(Bag(), 0.5, pattern="nonsense")
    with pytest.raises(ValueError, match="'nonsense' takes no parameter; the paths are embed/token/embedding, head/kernel"):
        task.loss(task.init(None), jnp.zeros(()), jax.random.key(0), BATCH)
