"""Optimizers and learning rates by name; stacked and unrolled layers get the same update.

Whatever looks at a whole leaf (factored moments, clips and scales by root mean square) looks at one layer of a stacked leaf.
"""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from train import partition

Name = Literal["adamw", "adam", "adam-0", "adamax", "adafactor", "lion", "sgd", "adafactor-gpt2-ml"]
Schedule = Literal["cosine", "linear", "wsd", "halves", "constant", "gpt2-ml"]


def build(
    name: Name,
    *,
    steps: int,
    rate: float,
    schedule: Schedule = "cosine",
    warmup: int = 0,
    cooldown: int = 0,
    decay: float = 0.0,
    clip: float = 0.0,
    ema: float = 0.0,
    layer_rate: float = 1.0,
    layers: int = 0,
    freeze: str = "",
    lower: float = 1.0,
) -> optax.GradientTransformation:
    """update = -rate (direction + decay parameter), the direction by `name`, the decay for kernels and embeddings only.

    adamw: b1 0.9, b2 0.98 (Loshchilov & Hutter 2019).  adam: b1 0.9, b2 0.999, as published (Kingma & Ba 2015).
    adam-0: b1 0, b2 0.999, as energy models are trained (Du & Mordatch 2019).  adamax: b1 0.9, b2 0.999 (Kingma & Ba 2015, section 7.1).
    lion: b1 0.9, b2 0.99; a third to a tenth of AdamW's rate (Chen et al. 2023).
    adafactor: optax's, relative to each parameter's root mean square, so rates are near 1e-2 (Shazeer & Stern 2018). optax.adafactor itself
    does not multiply its decay by the rate; here it is, as everywhere.  adafactor-gpt2-ml: what trained GPT2_ML.  sgd: the gradient.
    clip: largest global norm of the gradient, 0 for none.  ema: see `average`, 0 for none.
    layer_rate: see `scale_by_depth`, 1 for one rate; it wants the number of `layers`, and the regex the parameters were split by.
    lower: see `lowered`; 1 for a rate that stays as it is whatever happens.
    """
    for what, given, choices in (("optimizer", name, get_args(Name)), ("schedule", schedule, get_args(Schedule))):
        if given not in choices:
            raise ValueError(f"{what} {given!r}: wanted one of {', '.join(choices)}")
    if not 0 <= ema < 1:
        raise ValueError(f"ema={ema}: wanted a number from 0 (none) up to 1, for example 0.999")
    if not 0 < layer_rate <= 1 or (layer_rate < 1 and layers < 1):
        raise ValueError(f"layer_rate={layer_rate}, layers={layers}: wanted a rate over 0 and up to 1 (1: none), and the model's layers")
    parts = [optax.clip_by_global_norm(clip)] if clip else []
    parts.append(direction(name))
    parts += [optax.add_decayed_weights(decay, mask=decayed)] if decay else []
    parts.append(optax.scale_by_learning_rate(rates(schedule, steps=steps, rate=rate, warmup=warmup, cooldown=cooldown)))
    parts += [scale_by_depth(layer_rate, layers, freeze)] if layer_rate < 1 else []
    parts += [scale_by_share()] if lower < 1 else []
    parts += [average(ema)] if ema else []
    return optax.chain(*parts)


def rates(schedule: Schedule, *, steps: int, rate: float, warmup: int, cooldown: int = 0) -> optax.Schedule:
    """Learning rate of the update after `count` others: a straight line up from 0 over `warmup` updates, then by name.

    cosine: half a cosine down to a twentieth.  linear: down to 0.  constant: flat.  wsd: flat, then straight down to 0 over the last
    `cooldown` updates (Hu et al. 2024, MiniCPM).  halves: flat, and half of itself after every `cooldown` updates.  gpt2-ml: straight down
    to 0 from update 0 on, warm-up included, so the rate is at most rate (1 - warmup / steps), with a small jump down at the end of the
    warm-up (imcaspar/gpt2-ml, train/optimization_adafactor.py).
    """
    if schedule != "gpt2-ml":
        warmup = min(warmup, steps - 1)
    if schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, steps, end_value=rate / 20)

    def at(count):
        step = jnp.minimum(count, steps).astype(jnp.float32)
        rise = step / max(warmup, 1)
        if schedule == "gpt2-ml":
            return rate * jnp.where(step < warmup, rise, 1 - step / steps)
        if schedule == "halves":
            return rate * jnp.where(step < warmup, rise, 1.0) * 0.5 ** (step // max(cooldown, 1))
        fall = {"linear": (steps - step) / (steps - warmup), "wsd": (steps - step) / max(cooldown, 1), "constant": 1.0}[schedule]
        return rate * jnp.minimum(jnp.where(step < warmup, rise, 1.0), fall)

    return at


def decayed(params) -> Any:
    """The tree of `params` with True at kernels (LoRA's too) and embeddings."""
    kinds = ("kernel", "kernel_a", "kernel_b", "embedding")
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in kinds, params)


def direction(name: Name) -> optax.GradientTransformation:
    """What the optimizer of that name makes of a gradient, before decay and rate."""
    if name == "adamw":
        return optax.scale_by_adam(b1=0.9, b2=0.98)
    if name in ("adam", "adam-0"):
        return optax.scale_by_adam(b1=0.9 if name == "adam" else 0.0)
    if name == "adamax":
        return optax.scale_by_adamax()
    if name == "lion":
        return optax.scale_by_lion(b1=0.9, b2=0.99)
    if name == "sgd":
        return optax.identity()
    if name == "adafactor":
        return by_layer(optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms()))
    return by_layer(optax.chain(scale_by_gpt2_ml(), optax.clip_by_block_rms(1.0)))


class Factored(NamedTuple):
    """Moving means of the squared gradient: over columns and over rows of a matrix; of all else elementwise in `row`, a lone 0 in `col`."""

    row: Any
    col: Any


def scale_by_gpt2_ml(beta: float = 0.999, epsilon: float = 1e-30) -> optax.GradientTransformation:
    """The factored root mean square of imcaspar/gpt2-ml: constant beta, no bias correction, every matrix factored whatever its size.

    Moments begin at 0, so early directions are about 1 / sqrt(1 - beta) = 30 times too long and rely on the clip by root mean square.
    """

    def init(params):
        row = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[:-1] if leaf.ndim >= 2 else leaf.shape, leaf.dtype), params)
        col = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[:-2] + leaf.shape[-1:] if leaf.ndim >= 2 else (1,), leaf.dtype), params)
        return Factored(row, col)

    def update(grads, state, params=None):
        squares = jax.tree.map(lambda grad: jnp.square(grad) + epsilon, grads)
        mean = lambda old, now: beta * old + (1 - beta) * now  # noqa: E731
        row = jax.tree.map(lambda old, s: mean(old, s.mean(axis=-1) if s.ndim >= 2 else s), state.row, squares)
        col = jax.tree.map(lambda old, s: mean(old, s.mean(axis=-2)) if s.ndim >= 2 else old, state.col, squares)

        def scale(grad, r, c):
            if grad.ndim < 2:
                return grad * jax.lax.rsqrt(r + epsilon)
            r = r / r.mean(axis=-1, keepdims=True)
            return grad * jax.lax.rsqrt(r + epsilon)[..., :, None] * jax.lax.rsqrt(c + epsilon)[..., None, :]

        return jax.tree.map(scale, grads, row, col), Factored(row, col)

    return optax.GradientTransformation(init, update)


def by_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with each layer of a stacked leaf as a leaf of its own; the states are keyed "whole", and "layers_12" for stacks of 12."""

    def kind(path, leaf) -> str:
        return f"layers_{leaf.shape[0]}" if partition.stacked(partition.name(path)) else "whole"

    def parts(tree):
        kinds = jax.tree_util.tree_map_with_path(kind, tree)
        pick = lambda wanted: jax.tree.map(lambda k, leaf: leaf if k == wanted else optax.MaskedNode(), kinds, tree)  # noqa: E731
        return {wanted: pick(wanted) for wanted in sorted(set(jax.tree.leaves(kinds)))}

    def mapped(function, wanted):
        return function if wanted == "whole" else jax.vmap(function)

    def init(params):
        return {wanted: mapped(inner.init, wanted)(part) for wanted, part in parts(params).items()}

    def update(updates, state, params):
        given, new = parts(params), {}
        for wanted, part in parts(updates).items():
            moves, new[wanted] = mapped(inner.update, wanted)(part, state[wanted], given[wanted])
            updates = jax.tree.map(
                lambda move, old: old if isinstance(move, optax.MaskedNode) else move,
                moves,
                updates,
                is_leaf=lambda node: isinstance(node, optax.MaskedNode),
            )
        return updates, new

    return optax.GradientTransformation(init, update)


def scale_by_depth(layer_rate: float, layers: int, freeze: str) -> optax.GradientTransformation:
    """Layer i of L times layer_rate^(L - 1 - i), embeddings times layer_rate^L, all else (the last norm) times 1.

    As in ELECTRA (Clark et al. 2020) and BEiT (Bao et al. 2021), counted from the last layer, since no new head lies above it.
    """

    def scale(path, leaf):
        name = partition.name(path)
        top = name.partition("/")[0]
        if top == "embed":
            return leaf * layer_rate**layers
        if partition.stacked(name):
            kept = partition.layers(name, layers, freeze)[0]
            if len(kept) != leaf.shape[0]:
                found = f"{name} has {leaf.shape[0]} layers, freeze={freeze!r} leaves {len(kept)} of layers={layers}"
                raise ValueError(f"{found}; give both as they are")
            factors = jnp.asarray([layer_rate ** (layers - 1 - layer) for layer in kept], leaf.dtype)
            return leaf * factors.reshape(-1, *[1] * (leaf.ndim - 1))
        return leaf * layer_rate ** (layers - 1 - int(top.removeprefix("block_"))) if top.startswith("block_") else leaf

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


class Share(NamedTuple):
    """What the rate is times the planned one."""

    share: jax.Array


def scale_by_share() -> optax.GradientTransformation:
    """Updates times a share that begins at 1 and that `lowered` sets; it lies in the state, so a resumed run keeps it."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda leaf: leaf * state.share.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: Share(jnp.ones(())), update)


def lowered(opt_state, share: float) -> Any:
    """An optimizer's state with the rate at that share of what the schedule plans; as it is where `build` was given lower=1."""
    swap = lambda node: Share(jnp.full_like(node.share, share)) if isinstance(node, Share) else node  # noqa: E731
    return jax.tree.map(swap, opt_state, is_leaf=lambda node: isinstance(node, Share))


def share(opt_state) -> jax.Array | float:
    """What `lowered` set."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Share))
    return next((node.share for node in nodes if isinstance(node, Share)), 1.0)


class Average(NamedTuple):
    """The averaged parameters, and how many updates went into them."""

    count: jax.Array
    params: Any


def average(most: float) -> optax.GradientTransformation:
    """Keeps a moving mean of the parameters and changes no update; the last of a chain.

    mean = d mean + (1 - d) new, d = min(most, (1 + t) / (10 + t)) at update t = 1, 2, ...: begun at the initial parameters, whose share
    vanishes within some dozens of updates, so nothing is left to debias (tf.train.ExponentialMovingAverage with num_updates).
    """

    def init(params):
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates, state, params):
        count = state.count + 1
        d = jnp.minimum(most, (1 + count) / (10 + count))
        new = optax.apply_updates(params, updates)
        return updates, Average(count, jax.tree.map(lambda old, now: d * old + (1 - d) * now, state.params, new))

    return optax.GradientTransformation(init, update)


def averaged(opt_state, params) -> Any:
    """The averaged parameters of an optimizer's state; `params` where it keeps none."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Average))
    return next((node.params for node in nodes if isinstance(node, Average)), params)
