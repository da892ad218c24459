"""A label for every character of a line."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from flaxgen.models import gated
from flaxgen.nn import entropy

Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Tagging:
    """Cross-entropy of the character that answers each character of a line; all characters count alike, unknown ones too.

    A batch holds token_BT, target_BT, all rows of one length, and may hold row_B (a row's number in the whole batch, by which its dropout
    is drawn; absent 0, 1, ...) and weight_B (0 for a row that does not count; absent 1).
    dtype: of the activations. Parameters stay float32.
    """

    model: gated.Gated
    dtype: Dtype = "float32"

    def __post_init__(self):
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype={self.dtype!r}: wanted one of {', '.join(get_args(Dtype))}")

    def init(self, key):
        return self.model.init(key, jnp.zeros((1, 1), jnp.int32))

    def carry(self, key):
        return ()

    def loss(self, params, carry, key, batch):
        row_B = batch.get("row_B", jnp.arange(len(batch["token_BT"])))
        key_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(row_B) if self.model.config.dropout else None
        nats_BT = self._nats(params, batch, key_B)
        weight_BT = jnp.broadcast_to(batch.get("weight_B", jnp.ones(len(nats_BT)))[:, None], nats_BT.shape)
        weight = weight_BT.sum()
        return (nats_BT * weight_BT).sum() / jnp.maximum(weight, 1), (carry, {"weight": weight})

    def export(self, params, carry):
        return params

    def nats(self, params, batch) -> jax.Array:
        """Cross-entropy of every target, nats_BT, without dropout."""
        return self._nats(params, batch, None)

    def _nats(self, params, batch, key_B):
        model = gated.Gated(self.model.config, jnp.dtype(self.dtype))
        x_BTD = model.apply(params, batch["token_BT"], key_B=key_B, method=gated.Gated.hidden)
        kernel_VD, bias_V = (params["params"]["out"][name] for name in ("kernel", "bias"))
        # The bias as one more column of the table, so that the entropy can go over pieces of it: 0.100 s an update in place of 0.121.
        one_BT1 = jnp.ones((*x_BTD.shape[:2], 1), x_BTD.dtype)
        table_VD = jnp.concatenate([kernel_VD, bias_V[:, None]], axis=1)
        return entropy.nats(jnp.concatenate([x_BTD, one_BT1], axis=2), table_VD, batch["target_BT"], 1)
