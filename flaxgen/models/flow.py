"""The matrix-exponential flow (Xiao & Liu 2020, arXiv 2007.09651): images to codes of equal size and back, with exact densities."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flaxgen.models.config import block_name
from flaxgen.models.flow_config import Config
from flaxgen.nn import coupling, images, invertible
from flaxgen.protocols import Array, Params


class Step(nn.Module):
    """Scale and shift, mixing of the channels, coupling; with their log-determinants."""

    config: Config
    size: int
    channels: int

    def setup(self):
        c = self.config
        self.normalise = invertible.Normalise((self.size, self.size, self.channels), c.least)
        self.mix = invertible.Mix(c.mixing, self.channels)
        kind, out = c.kind(self.channels // 2), c.outputs(self.channels // 2)
        self.couple = coupling.Coupling(kind, c.rank, self.channels, c.hidden, c.blocks, out)

    def __call__(self, x_BYXC: Array, matrix_FC: Array) -> tuple[Array, Array]:
        x_BYXC, scaled = self.normalise(x_BYXC)
        x_BYXC, mixed = self.mix(x_BYXC, matrix_FC)
        x_BYXC, logdet_B = self.couple(x_BYXC)
        return x_BYXC, logdet_B + jnp.broadcast_to(scaled + mixed, logdet_B.shape)

    def inverse(self, y_BYXC: Array, undone_FC: Array) -> Array:
        return self.normalise.inverse(invertible.at_pixels(undone_FC, self.couple.inverse(y_BYXC)))


class Flow(nn.Module):
    """`apply(params, image_BYXC)` gives (z_BD, logdet_B) in float32, `apply(params, z_BD, method=Flow.inverse)` image_BYXC.

    An image holds numbers from -1 to 1, see `widen`. z is its code, what the first level puts aside first; logdet is the log of
    |det dz / dimage|. The steps of a level run in one loop, and but for CPUs are compiled once: 14 published steps as 3.
    """

    config: Config
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        if not self.is_initializing():
            return
        for step, names in self._levels():
            image_BYXC = jnp.zeros((1, step.size, step.size, step.channels))
            key_L = jax.random.split(self.make_rng("params"), len(names))
            made = jax.lax.map(lambda key: step.init(key, image_BYXC, jnp.eye(step.channels)), key_L)["params"]
            for at, name in enumerate(names):
                self.put_variable("params", name, jax.tree.map(lambda leaf: leaf[at], made))

    def __call__(self, image_BYXC: Array) -> tuple[Array, Array]:
        if self.is_initializing():  # parameters alone are wanted
            return jnp.zeros((len(image_BYXC), self.config.dimensions)), jnp.zeros(len(image_BYXC))
        return self._code(image_BYXC, [])[:2]

    def fitted(self, image_BYXC: Array) -> Params:
        """The parameters with all scales and shifts fitted to the images, which should be some hundreds: a flow's training begins here."""
        return {"params": self._code(image_BYXC, ["params"])[2]}

    def _code(self, image_BYXC: Array, mutable: list[str]) -> tuple[Array, Array, dict]:
        """z_BD, logdet_B, and by step the variables that are mutable."""
        c = self.config
        if image_BYXC.shape != (*image_BYXC.shape[:1], c.size, c.size, c.channels) or not jnp.issubdtype(image_BYXC.dtype, jnp.floating):
            raise ValueError(
                f"image is {image_BYXC.dtype} of shape {image_BYXC.shape}: want floating-point numbers from -1 to 1 of shape "
                f"(B, {c.size}, {c.size}, {c.channels}); flow.widen makes them of 8-bit images"
            )
        x_BYXC, codes, logdet_B, changed = image_BYXC.astype(jnp.float32), [], jnp.zeros(len(image_BYXC)), {}
        for level, (step, names) in enumerate(self._levels()):
            x_BYXC = images.squeeze(x_BYXC)

            def along(x_BYXC, given):
                params, matrix_FC = given
                (x_BYXC, logdet_B), variables = step.apply({"params": params}, x_BYXC, matrix_FC, mutable=mutable)
                return x_BYXC, (logdet_B, variables.get("params"))

            x_BYXC, (logdet_LB, made) = _scan(along, x_BYXC, self._stacked(step, names, invertible.Mix.matrix))
            logdet_B += logdet_LB.sum(0)
            changed |= {name: jax.tree.map(lambda leaf: leaf[at], made) for at, name in enumerate(names)}
            if level < len(self.config.flows) - 1:
                x_BYXC, out_BYXC = jnp.split(x_BYXC, 2, axis=-1)
                codes.append(out_BYXC)
        codes = [code_BYXC.reshape(len(image_BYXC), math.prod(code_BYXC.shape[1:])) for code_BYXC in (*codes, x_BYXC)]
        return jnp.concatenate(codes, axis=1), logdet_B, changed

    def inverse(self, z_BD: Array) -> Array:
        if z_BD.shape != (*z_BD.shape[:1], self.config.dimensions):
            raise ValueError(f"z of shape {z_BD.shape}: want codes (B, {self.config.dimensions}), one for every image")
        sizes = [(size, size, channels // 2) for size, channels in self.config.levels()]
        sizes[-1] = (*sizes[-1][:2], 2 * sizes[-1][2])
        ends = [sum(map(math.prod, sizes[:level])) for level in range(1, len(sizes))]
        codes = [each.reshape(-1, *size) for each, size in zip(jnp.split(z_BD.astype(jnp.float32), ends, axis=1), sizes, strict=True)]
        x_BYXC = codes.pop()
        for level, (step, names) in reversed(list(enumerate(self._levels()))):
            if level < len(sizes) - 1:
                x_BYXC = jnp.concatenate([x_BYXC, codes.pop()], axis=-1)

            def back(x_BYXC, given):
                params, undone_FC = given
                return step.apply({"params": params}, x_BYXC, undone_FC, method=Step.inverse), None

            x_BYXC, _ = _scan(back, x_BYXC, self._stacked(step, names, invertible.Mix.undone), reverse=True)
            x_BYXC = images.unsqueeze(x_BYXC)
        return x_BYXC

    def log_prob(self, image_BYXC: Array) -> Array:
        """The log-density of each image, in nats, under a standard normal code."""
        z_BD, logdet_B = self(image_BYXC)
        return logdet_B - (jnp.square(z_BD).sum(1) + z_BD.shape[1] * math.log(2 * math.pi)) / 2

    def _levels(self) -> list[tuple[Step, list[str]]]:
        """The step of every level, and the names of its parameters."""
        names = map(block_name, range(self.config.layers))
        places = zip(self.config.levels(), self.config.flows, strict=True)
        return [(Step(self.config, *place, parent=None), [next(names) for _ in range(count)]) for place, count in places]

    def _stacked(self, step: Step, names: list[str], make) -> tuple[Params, Array]:
        """The parameters of the steps of one level, side by side, and what `make` makes of their mixings, all at once."""
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(self.variables["params"][name] for name in names))
        mix = invertible.Mix(self.config.mixing, step.channels, parent=None)
        return params, jax.vmap(lambda params: mix.apply({"params": params}, method=make))(params["mix"])


def _scan(body, x_BYXC: Array, given, *, reverse: bool = False) -> tuple[Array, Any]:
    """jax.lax.scan, unrolled on a CPU: there the gradient of a kernel is five times slower inside a loop."""
    return jax.lax.scan(body, x_BYXC, given, reverse=reverse, unroll=jax.default_backend() == "cpu" or 1)


def widen(image_BYXC: Array, noise_BYXC: Array, bits: int = 8) -> Array:
    """8-bit images as numbers from -1 to 1: `bits` of them kept, and noise from 0 to 1 within a level (uniform dequantisation)."""
    level_BYXC = jnp.right_shift(image_BYXC, 8 - bits).astype(jnp.float32)
    return (level_BYXC + noise_BYXC) / 2 ** (bits - 1) - 1


def narrow(image_BYXC: Array, bits: int = 8) -> Array:
    """The inverse of `widen`, noise lost: the lowest 8-bit number of each level; what lies outside -1 to 1 becomes the nearest level."""
    level_BYXC = jnp.clip(jnp.floor((image_BYXC + 1) * 2 ** (bits - 1)), 0, 2**bits - 1)
    return jnp.left_shift(level_BYXC.astype(jnp.uint8), 8 - bits)


def bits(log_prob_B: Array, config: Config) -> Array:
    """Bits per dimension of images of 2^bits levels, from the log-density of numbers from -1 to 1."""
    return config.bits - 1 - log_prob_B / (config.dimensions * math.log(2))


SHARDING = ((r".*", PartitionSpec()),)
