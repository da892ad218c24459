"""Energy models of images: a residual network that gives each image one number, low where images are likely."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flaxgen.models.config import block_name
from flaxgen.models.energy_config import Config
from flaxgen.nn import blocks, images
from flaxgen.protocols import Array


def activate(x_BYXC: Array, kind: str) -> Array:
    return jax.nn.leaky_relu(x_BYXC, 0.2) if kind == "leaky" else jax.nn.silu(x_BYXC)


class Conv(nn.Module):
    """A convolution of three by three pixels without bias, the kernel (3, 3, in, out)."""

    out: int
    init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x_BYXC: Array) -> Array:
        kernel_YXCF = self.param("kernel", self.init, (3, 3, x_BYXC.shape[-1], self.out))
        return images.conv(x_BYXC, kernel_YXCF.astype(x_BYXC.dtype))


class Block(nn.Module):
    """act(pool(gain conv(act(conv(x + bias_0)) + bias_1) + bypass)); the bypass is x, or a convolution of it where the filters change."""

    config: Config
    filters: int
    change: str

    @nn.compact
    def __call__(self, x_BYXC: Array, label_B: Array | None, key_B: Array | None) -> Array:
        c = self.config
        first, second = _inits(c)

        def picked(name: str, init, size: int) -> Array:
            table = self.param(name, init, (c.classes, size) if c.classes else (size,))
            return table[label_B] if c.classes else table

        h_BYXF = Conv(self.filters, first, name="conv_0")(images.bias(x_BYXC, picked("bias_0", nn.initializers.zeros, x_BYXC.shape[-1])))
        h_BYXF = activate(blocks.dropout(h_BYXF, key_B, c.dropout), c.activation)
        h_BYXF = Conv(self.filters, second, name="conv_1")(images.bias(h_BYXF, picked("bias_1", nn.initializers.zeros, self.filters)))
        gain = picked("gain", nn.initializers.ones, self.filters)
        if c.classes:
            gain += self.param("shared_gain", nn.initializers.zeros, (self.filters,))[None]
        h_BYXF = images.gain(h_BYXF, gain)
        bypass_BYXF = Conv(self.filters, first, name="bypass")(x_BYXC) if self.filters != x_BYXC.shape[-1] else x_BYXC
        out_BYXF = h_BYXF + bypass_BYXF
        return activate(images.mean_pool(out_BYXF) if self.change == "down" else out_BYXF, c.activation)


def _inits(c: Config):
    """Of the first and of the second convolution of a block, which begins at nothing."""
    if c.norm == "spectral":
        return nn.initializers.normal(1.0), nn.initializers.normal(1e-10)
    return nn.initializers.he_normal(), nn.initializers.zeros


class Energy(nn.Module):
    """`apply(params, image_BYXC, label_B)` gives energy_B in float32; images are numbers in [0, 1], labels 0 to classes - 1.

    The model is class-conditional where its config has classes; label_B is None otherwise. Kernels are used as they are: in training
    flaxgen.tasks.contrast normalises them first.
    """

    config: Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image_BYXC: Array, label_B: Array | None = None, *, key_B: Array | None = None) -> Array:
        """key_B: one dropout key a row, None for none."""
        c = self.config
        if (label_B is None) != (c.classes == 0):
            raise ValueError(
                f"the model has {c.classes} classes and label_B is {'absent' if label_B is None else 'given'}; wanted both or none"
            )
        first, _ = _inits(c)
        x_BYXC = images.squeeze(image_BYXC.astype(self.dtype), c.squeeze)
        x_BYXC = activate(Conv(c.stem, first, name="stem")(x_BYXC), c.activation)
        for layer, (filters, change) in enumerate(c.blocks):
            x_BYXC = Block(c, filters, change, name=block_name(layer))(x_BYXC, label_B, blocks.keys(key_B, layer))
        x_BYXC = jax.nn.relu(x_BYXC) if c.last == "relu" else activate(x_BYXC, c.activation)
        sum_BF = x_BYXC.astype(jnp.float32).sum((1, 2))
        return blocks.Dense(1, (2 / (1 + sum_BF.shape[-1])) ** 0.5, name="out")(sum_BF[:, None])[:, 0, 0]


SHARDING = ((r".*", PartitionSpec()),)
