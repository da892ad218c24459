"""Images and weights for Inception, random and the same everywhere."""

import numpy as np

from flaxgen.models import inception


def drawn_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), np.uint8)


def drawn_weights() -> dict[str, np.ndarray]:
    """Weights by the names of torch's modules, random in the order of the forward pass."""
    noise, made = np.random.default_rng(1), {}
    for name, (height, width, inputs, out) in inception.units().items():
        spread = (2 / (height * width * inputs)) ** 0.5
        made[f"{name}.conv.weight"] = spread * noise.standard_normal((out, inputs, height, width), np.float32)
        for part, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("running_mean", -0.5, 0.5), ("running_var", 0.5, 2.0)):
            made[f"{name}.bn.{part}"] = noise.uniform(low, high, out).astype(np.float32)
    made["fc.weight"] = 0.02 * noise.standard_normal((inception.CLASSES, inception.FEATURES), np.float32)
    return made | {"fc.bias": noise.standard_normal(inception.CLASSES, np.float32)}
