"""Tiny models that paint, with random weights."""

import jax
import numpy as np

from flaxgen import drawing, flow_painter, painter
from flaxgen.models import energy, energy_config, flow, flow_config


def of_energy(*, size: int = 6, channels: int = 1, classes: int = 0, seed: int = 0, **sampling) -> painter.Painter:
    model = energy.Energy(energy_config.Config(size, channels, 3, ((5, "down"),), classes=classes, norm="none"))
    label_B = np.zeros(1, np.int32) if classes else None
    params = model.init(jax.random.key(seed), np.zeros((1, size, size, channels), np.float32), label_B)
    stirred = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(seed + 1), leaf.shape), params)
    return painter.Painter(model, stirred, sampling=drawing.Sampling(**({"moves": 3, "step": 1.0} | sampling)))


def of_flow(*, size: int = 4, channels: int = 1, bits: int = 8, **sampling) -> flow_painter.FlowPainter:
    model = flow.Flow(flow_config.Config(size, channels, flows=(1, 1), hidden=3, blocks=1, bits=bits))
    params = model.init(jax.random.key(0), np.zeros((1, size, size, channels), np.float32))
    stirred = jax.tree.map(lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    return flow_painter.FlowPainter(model, stirred, sampling=drawing.Sampling(**sampling))


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
