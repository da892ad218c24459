"""Images out of a flow, and how probable images are to it: a model folder as something to call."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen import canvas, drawing, loop, weights
from flaxgen.chains import inverse
from flaxgen.drawing import Sampling
from flaxgen.errors import Mismatch
from flaxgen.models import flow
from flaxgen.protocols import Array, Params


class FlowPainter:
    """Paints images with a flow, at once.

    >>> painter = flaxgen.Painter.load(flaxgen.painter.bundled("flow"))
    >>> image_BYXC = painter(samples=16, temperature=0.7)       # uint8
    >>> painter.log_prob(image_BYXC), painter.interpolate(image_BYXC[0], image_BYXC[1], steps=8)

    sampling: whose temperature holds unless told otherwise. Image b depends on the seed and b, not on how many are asked for, to rounding.
    """

    def __init__(self, model: flow.Flow, params: Params, *, sampling: Sampling | None = None):
        if getattr(getattr(model, "config", None), "architecture", None) != "flow":
            raise Mismatch(f"{type(model).__name__} is no flow; wanted flaxgen.models.flow.Flow, as python -m train flow makes them")
        self.model, self.params, self.sampling, config = model, params, sampling or Sampling(), model.config
        self.shape = (config.size, config.size, config.channels)

    @classmethod
    def load(cls, folder, *, dtype: weights.Dtype | None = None) -> "FlowPainter":
        model, params, _ = weights.load(folder, dtype=dtype)
        return cls(model, params, sampling=drawing.of(weights.describe(folder)))

    def __call__(self, samples: int = 16, *, seed: int = 0, temperature: float | None = None) -> np.ndarray:
        """image_BYXC, uint8. temperature: by which codes are multiplied; 0 gives the one image in the middle."""
        samples, key = drawing.whole("samples", samples, 1), drawing.key(seed)
        scale = self.sampling.changed(temperature=temperature).temperature
        blocks = (drawing.drawn(key, row_B, (self.model.config.dimensions,), "normal")[0] for row_B in canvas.blocks(samples))
        return np.concatenate([self._painted(scale * z_BD) for z_BD in blocks])[:samples]

    def log_prob(self, image: Any) -> np.ndarray:
        """log_prob_B, float32: the natural logarithm of an image's probability, its density at the middle of the 8-bit cell times the cell.

        It tells likely images from unlikely ones; -log_prob_B / (log(2) * numbers of an image) is in bits per dimension.
        """
        image_BYXC = canvas.images("image", image, self.shape)
        densities = self._by_blocks(_densities, image_BYXC)
        return densities - np.float32(self.model.config.dimensions * (self.model.config.bits - 1) * math.log(2))

    def interpolate(self, one: Any, other: Any, steps: int = 8, *, way: inverse.Way = "spherical") -> np.ndarray:
        """image_NYXC on the way from one image to another through their codes, both among them.

        way: "spherical" turns the code, so that it stays as long as codes are; "linear" goes straight.
        """
        steps = drawing.whole("steps", steps, 2)
        ends = [canvas.images(name, image, self.shape) for name, image in (("one", one), ("other", other))]
        if [len(end) for end in ends] != [1, 1]:
            raise ValueError(f"{len(ends[0])} and {len(ends[1])} images; wanted one at each end")
        z_BD = self._by_blocks(_codes, np.concatenate(ends))
        z_ND = inverse.between(*z_BD, steps, way)
        blocks = (z_ND[np.minimum(row_B, steps - 1)] for row_B in canvas.blocks(steps))
        return np.concatenate([self._painted(z_BD) for z_BD in blocks])[:steps]

    def _painted(self, z_BD: Array) -> np.ndarray:
        return np.asarray(loop.generate(inverse.Inverse(self.model), self.params, jax.random.key(0), z_BD, steps=1))

    def _by_blocks(self, function: Any, image_BYXC: np.ndarray) -> np.ndarray:
        rows = len(image_BYXC)
        found = [function(self.model, self.params, image_BYXC[np.minimum(row_B, rows - 1)]) for row_B in canvas.blocks(rows)]
        return np.concatenate(found)[:rows]


@partial(jax.jit, static_argnames="model")
def _densities(model: flow.Flow, params: Params, image_BYXC: Array) -> Array:
    return model.apply(params, _middle(model, image_BYXC), method=flow.Flow.log_prob)


@partial(jax.jit, static_argnames="model")
def _codes(model: flow.Flow, params: Params, image_BYXC: Array) -> Array:
    return model.apply(params, _middle(model, image_BYXC))[0]


def _middle(model: flow.Flow, image_BYXC: Array) -> Array:
    """Images as the flow reads them, each number in the middle of its cell."""
    return flow.widen(image_BYXC, jnp.full(image_BYXC.shape, 0.5), model.config.bits)
