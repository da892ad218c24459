"""Tiny models that paint, with random weights."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from flaxgen import drawing, flow_painter, painter, weights
from flaxgen.models import energy, energy_config, flow, flow_config


def params(config, seed: int):
    """Random numbers, the scales and gains around 1; quicker than the modules' own init, which has to be compiled."""
    noise = np.random.default_rng(seed)
    flat = {path: 0.3 * noise.standard_normal(shape) + path.endswith(("scale", "gain")) for path, shape in config.shapes().items()}
    return weights.nest({path: np.asarray(leaf, np.float32) for path, leaf in flat.items()})


@dataclasses.dataclass(frozen=True)
class Bowl:
    """An energy that is compiled at once: the squared distance from one image, or from one a class."""

    config: energy_config.Config

    def apply(self, params, image_BYXC, label_B=None, *, key_B=None):
        lowest_BYXC = params["image"][None] if label_B is None else params["image"][label_B]
        return jnp.square(image_BYXC - jnp.broadcast_to(lowest_BYXC, image_BYXC.shape)).sum((1, 2, 3))


def of_bowl(*, channels: int = 1, classes: int = 0, seed: int = 0, **sampling) -> painter.Painter:
    config = energy_config.Config(6, channels, 1, ((1, "same"),), classes=classes)
    shape = (*([classes] if classes else []), 6, 6, channels)
    image = np.random.default_rng(seed).random(shape, np.float32)
    return painter.Painter(Bowl(config), {"image": image}, sampling=drawing.Sampling(**({"moves": 3, "step": 1.0} | sampling)))


def of_energy(*, size: int = 6, channels: int = 1, classes: int = 0, seed: int = 0, **sampling) -> painter.Painter:
    model = energy.Energy(energy_config.Config(size, channels, 3, ((5, "down"),), classes=classes, norm="none"))
    return painter.Painter(model, params(model.config, seed), sampling=drawing.Sampling(**({"moves": 3, "step": 1.0} | sampling)))


def of_flow(*, size: int = 6, channels: int = 1, bits: int = 8, **sampling) -> flow_painter.FlowPainter:
    model = flow.Flow(flow_config.Config(size, channels, flows=(1,), hidden=3, blocks=0, coupling="affine", mixing="standard", bits=bits))
    return flow_painter.FlowPainter(model, params(model.config, 0), sampling=drawing.Sampling(**sampling))


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
