"""Next-token prediction."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flaxgen.models import layers, transformer
from flaxgen.nn import entropy

Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Language:
    """Weighted next-token cross-entropy of a decoder.

    A batch holds token_BT, target_BT (the token that follows) and weight_BT (0 where nothing is to be learnt, as in padding); it may hold
    segment_BT, valid_BT (False where a token is padding that others must not see), floor_BT (documents in one row that do not see each
    other: the rank of a document's first token) and row_B (a row's number in the whole batch, by which its dropout is drawn; absent
    0, 1, ...).

    loop: "unroll" runs the layers one by one on their own parameters; "scan" stacks them: compiles in constant time at any depth.
    remat, spread: see flaxgen.models.layers.
    dtype: of the activations. Parameters stay float32 and are rounded layer by layer, norms excepted; their gradients are float32.
    chunks: pieces of the vocabulary in which the loss is computed (see flaxgen.nn.entropy).
    targets: the most places of a row that have a weight, where these are few (a reader's answer): then the output head computes so many a
        row, those of most weight, and the others do not count: their nats are 0, and so is their weight in the loss. 0: all places.
    """

    model: transformer.Transformer
    loop: layers.Loop = "scan"
    remat: layers.Remat = "none"
    dtype: Dtype = "float32"
    chunks: int = 1
    spread: tuple[str, ...] = ()
    targets: int = 0

    def __post_init__(self):
        for name, choices in (("loop", get_args(layers.Loop)), ("remat", get_args(layers.Remat)), ("dtype", get_args(Dtype))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted one of {', '.join(choices)}")
        if not 1 <= self.chunks <= self.model.config.vocab:
            raise ValueError(f"chunks={self.chunks}: wanted 1 to {self.model.config.vocab}, the vocabulary cut into so many pieces")
        if type(self.targets) is not int or self.targets < 0:
            raise ValueError(f"targets={self.targets!r}: wanted a whole number of places a row, 0 for all")

    def init(self, key):
        return layers.init(self.model, key, self.loop)

    def carry(self, key):
        return ()

    def loss(self, params, carry, key, batch):
        row_B = batch.get("row_B", jnp.arange(len(batch["token_BT"])))
        nats_BT = self._nats(params, batch, jax.vmap(lambda row: jax.random.fold_in(key, row))(row_B))
        weight = jnp.sum(self._chosen(batch["weight_BT"])[0] if self.targets else batch["weight_BT"])
        loss = jnp.sum(nats_BT * batch["weight_BT"]) / jnp.maximum(weight, 1)
        return loss, (carry, {"weight": weight})

    def export(self, params, carry):
        return transformer.unstack(params) if self.loop == "scan" else params

    def nats(self, params, batch) -> jax.Array:
        """Cross-entropy of every target, nats_BT, without dropout."""
        return self._nats(params, batch, None)

    def _nats(self, params, batch, key_B):
        if self.spread:  # each device looks up and unembeds its rows in the whole table; in a part of it, it would exchange activations
            whole = jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec()), params["params"]["embed"])
            params = {"params": params["params"] | {"embed": whole}}
        model = transformer.Transformer(self.model.config, jnp.dtype(self.dtype))
        given = {name: batch.get(name) for name in ("valid_BT", "segment_BT", "floor_BT")}
        hidden_BTD = layers.hidden(model, params, batch["token_BT"], **given, key_B=key_B, remat=self.remat, spread=self.spread)
        bias_V = params["params"]["mlm"]["bias"] if "mlm" in model.config.outputs else None

        def head(hidden_BTD, target_BT):
            x_BTD = model.apply(params, hidden_BTD, method=transformer.Transformer.before_product)
            return entropy.nats(x_BTD, params["params"]["embed"]["token"]["embedding"], target_BT, self.chunks, bias_V)

        if not self.targets:
            return head(hidden_BTD, batch["target_BT"])
        _, place_BN = self._chosen(batch["weight_BT"])
        nats_BN = head(*(jax.vmap(lambda row, place: row[place])(leaf, place_BN) for leaf in (hidden_BTD, batch["target_BT"])))
        return jax.vmap(lambda place, nats: jnp.zeros_like(batch["weight_BT"][0]).at[place].set(nats))(place_BN, nats_BN)

    def _chosen(self, weight_BT):
        """weight_BN and place_BN of the targets."""
        return jax.lax.top_k(weight_BT, min(self.targets, weight_BT.shape[1]))
