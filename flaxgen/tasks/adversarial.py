"""Adversarial training and its penalty: losses that look a step away from the parameters, as wrappers of a task."""

import dataclasses
import re

import jax
import jax.numpy as jnp
from flax import traverse_util

from flaxgen import protocols
from flaxgen.protocols import Array, Params


@dataclasses.dataclass(frozen=True)
class FastGradient:
    """The task's loss at parameters p + epsilon g / (|g| + 1e-8), g its gradient at p (FGM; Miyato et al. 2017, arXiv 1605.07725).

    As bert4keras's adversarial_training: only the loss at the moved parameters is learnt from, and the move itself is not differentiated.
    Both passes drop the same activations. One update costs two.
    pattern: a regex found in the paths of what is moved, by default the token embedding; |g| is the norm over all of it.
    epsilon: the length of the move.
    g is that of the rows which `loss` is given: under accumulation or pmap each part of a batch moves by its own.
    """

    task: protocols.Task
    epsilon: float
    pattern: str = "embed/token/embedding"

    def init(self, key: Array) -> Params:
        return self.task.init(key)

    def carry(self, key: Array):
        return self.task.carry(key)

    def loss(self, params: Params, carry, key: Array, batch):
        fixed = jax.lax.stop_gradient(params)
        _, grads = slope(self.task, fixed, carry, key, batch, self.pattern)
        step = self.epsilon / (jnp.sqrt(square(grads)) + 1e-8)
        moved = {path: leaf + step * grads[path] for path, leaf in chosen(params, self.pattern).items()}
        return self.task.loss(put(params, moved), carry, key, batch)

    def export(self, params: Params, carry) -> Params:
        return self.task.export(params, carry)


@dataclasses.dataclass(frozen=True)
class GradientPenalty:
    """The task's loss plus epsilon / 2 |g|^2, g its gradient by the token embedding (Ross & Doshi-Velez 2018, arXiv 1711.09404).

    As bert4keras's loss_with_gradient_penalty, whose g however has a row a token of the batch; ours, of the embedding, sums what one token
    gets at its several places, and in a model with a tied head what it gets there. An update costs somewhat more than two.
    pattern: a regex found in the paths of what g is taken by.
    g is that of the mean over the rows which `loss` is given: accumulation or pmap average the penalties of the parts of a batch, whose
    gradients are longer than the whole one's, so epsilon belongs to a size of parts.
    """

    task: protocols.Task
    epsilon: float
    pattern: str = "embed/token/embedding"

    def init(self, key: Array) -> Params:
        return self.task.init(key)

    def carry(self, key: Array):
        return self.task.carry(key)

    def loss(self, params: Params, carry, key: Array, batch):
        (loss, rest), grads = slope(self.task, params, carry, key, batch, self.pattern)
        return loss + 0.5 * self.epsilon * square(grads), rest

    def export(self, params: Params, carry) -> Params:
        return self.task.export(params, carry)


def slope(task: protocols.Task, params: Params, carry, key: Array, batch, pattern: str):
    """What task.loss gives, and its gradient by the leaves that `pattern` takes, keyed by path."""

    def value(leaves):
        return task.loss(put(params, leaves), carry, key, batch)

    return jax.value_and_grad(value, has_aux=True)(chosen(params, pattern))


def chosen(params: Params, pattern: str) -> dict[str, Array]:
    """The leaves in whose path, without "params/", the regex is found; stacked layers go by "block/..."."""
    leaves = traverse_util.flatten_dict(params, sep="/")
    found = {path: leaf for path, leaf in leaves.items() if re.search(pattern, path.removeprefix("params/"))}
    if not found:
        some = ", ".join(path.removeprefix("params/") for path in sorted(leaves)[:8])
        raise ValueError(f"{pattern!r} takes no parameter; the paths are {some}, ...")
    return found


def put(params: Params, leaves: dict[str, Array]) -> Params:
    """`params` with these leaves in their places."""
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(params, sep="/") | leaves, sep="/")


def square(leaves: dict[str, Array]) -> Array:
    """The sum of all squares."""
    return sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in leaves.values())
