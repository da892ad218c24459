"""A small classifier of images, whose features others are measured with."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flaxgen.models.classifier_config import Config
from flaxgen.models.config import block_name
from flaxgen.nn import blocks, images
from flaxgen.protocols import Array


class Convolution(nn.Module):
    """A three by three convolution, its bias, max(0, x), and, where it goes down, means of two by two pixels."""

    filters: int
    down: bool

    @nn.compact
    def __call__(self, x_BYXC: Array) -> Array:
        spread = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
        kernel_YXCF = self.param("kernel", spread, (3, 3, x_BYXC.shape[-1], self.filters))
        x_BYXC = images.bias(
            images.conv(x_BYXC, kernel_YXCF.astype(x_BYXC.dtype)), self.param("bias", nn.initializers.zeros, (self.filters,))
        )
        x_BYXC = jax.nn.relu(x_BYXC)
        return images.mean_pool(x_BYXC) if self.down else x_BYXC


class Classifier(nn.Module):
    """`apply(params, image_BYXC)` gives logit_BV in float32; image in [0, 1]. `method=Classifier.features` gives feature_BD."""

    config: Config
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        for layer, (filters, change) in enumerate(self.config.blocks):
            setattr(self, block_name(layer), Convolution(filters, change == "down"))
        self.out = blocks.Dense(self.config.classes, self.config.features**-0.5)

    def __call__(self, image_BYXC: Array, *, key_B: Array | None = None) -> Array:
        """key_B: one dropout key a row, None for none."""
        return self.logits(blocks.dropout(self.features(image_BYXC), key_B, self.config.dropout))

    def features(self, image_BYXC: Array) -> Array:
        """feature_BD in float32: means of the last convolution over the image."""
        x_BYXC = (2 * image_BYXC - 1).astype(self.dtype)
        for layer in range(self.config.layers):
            x_BYXC = getattr(self, block_name(layer))(x_BYXC)
        return x_BYXC.astype(jnp.float32).mean((1, 2))

    def logits(self, feature_BD: Array) -> Array:
        """logit_BV in float32 of features."""
        return self.out(feature_BD[:, None].astype(self.dtype))[:, 0].astype(jnp.float32)


SHARDING = ((r".*", PartitionSpec()),)
