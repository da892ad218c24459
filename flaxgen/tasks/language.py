"""Next-token prediction."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from flaxgen.models import transformer


@dataclasses.dataclass(frozen=True)
class Language:
    """Weighted next-token cross-entropy of a decoder.

    A batch holds token_BT, target_BT (the token that follows) and weight_BT (0 where nothing is to be learnt, as in padding).
    loop: "unroll" runs the layers one by one on their own parameters; "scan" stacks them: compiles in constant time at any depth.
    remat: "full" recomputes a layer in the backward pass (only with "scan").
    """

    model: transformer.Transformer
    loop: Literal["unroll", "scan"] = "scan"
    remat: Literal["none", "full"] = "none"

    def init(self, key):
        params = self.model.init(key, jnp.zeros((1, 1), jnp.int32))
        return transformer.stack(params) if self.loop == "scan" else params

    def carry(self, key):
        return ()

    def loss(self, params, carry, key, batch):
        token_BT, target_BT, weight_BT = batch["token_BT"], batch["target_BT"], batch["weight_BT"]
        key_B = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(token_BT)))
        if self.loop == "scan":
            logit_BTV = transformer.apply_stacked(self.model, params, token_BT, key_B=key_B, remat=self.remat)
        else:
            logit_BTV, _ = self.model.apply(params, token_BT, key_B=key_B)
        nats_BT = optax.softmax_cross_entropy_with_integer_labels(logit_BTV.astype(jnp.float32), target_BT)
        weight = jnp.sum(weight_BT)
        loss = jnp.sum(nats_BT * weight_BT) / jnp.maximum(weight, 1)
        return loss, (carry, {"weight": weight})

    def export(self, params, carry):
        return transformer.unstack(params) if self.loop == "scan" else params

    def nats(self, params, batch) -> jax.Array:
        """Cross-entropy of every target, nats_BT, without dropout."""
        logit_BTV, _ = self.model.apply(self.export(params, ()), batch["token_BT"])
        return optax.softmax_cross_entropy_with_integer_labels(logit_BTV.astype(jnp.float32), batch["target_BT"])
