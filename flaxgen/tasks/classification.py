"""A label for every image."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from flaxgen.models import classifier
from flaxgen.protocols import Array, Params

Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy of the label of each image.

    A batch holds image_BYXC (uint8) and label_B, and may hold row_B (a row's number in the whole batch, by which its dropout is drawn;
    absent 0, 1, ...) and weight_B (0 for a row that does not count; absent 1).
    dtype: of the activations. Parameters stay float32.
    """

    model: classifier.Classifier
    dtype: Dtype = "float32"

    def __post_init__(self):
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype={self.dtype!r}: wanted one of {', '.join(get_args(Dtype))}")

    def init(self, key):
        c = self.model.config
        return self.model.init(key, jnp.zeros((1, c.size, c.size, c.channels)))

    def carry(self, key):
        return ()

    def loss(self, params, carry, key, batch):
        row_B = batch.get("row_B", jnp.arange(len(batch["label_B"])))
        key_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(row_B) if self.model.config.dropout else None
        nats_B = self._nats(params, batch, key_B)
        weight_B = batch.get("weight_B", jnp.ones(len(nats_B)))
        return (nats_B * weight_B).sum() / jnp.maximum(weight_B.sum(), 1), (carry, {"weight": weight_B.sum()})

    def export(self, params, carry):
        return params

    def nats(self, params: Params, batch: dict[str, Array]) -> Array:
        """Cross-entropy of every label, nats_B, without dropout."""
        return self._nats(params, batch, None)

    def right(self, params: Params, batch: dict[str, Array]) -> Array:
        """Whether the likeliest label is the one given, right_B."""
        return self._logits(params, batch, None).argmax(axis=-1) == batch["label_B"]

    def _logits(self, params, batch, key_B):
        model = classifier.Classifier(self.model.config, jnp.dtype(self.dtype))
        return model.apply(params, batch["image_BYXC"] / jnp.float32(255), key_B=key_B)

    def _nats(self, params, batch, key_B):
        log_prob_BV = jax.nn.log_softmax(self._logits(params, batch, key_B), axis=-1)
        return -jnp.take_along_axis(log_prob_BV, batch["label_B"][:, None], axis=-1)[:, 0]
