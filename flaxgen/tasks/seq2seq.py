"""An answer to a source, token by token."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.models import t5
from flaxgen.nn import entropy

Dtype = Literal["float32", "bfloat16"]


def batch(sources: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], start: int) -> dict[str, np.ndarray]:
    """What `Seq2Seq` learns from, of lists of token ids padded on the right to the longest; the answers end as they are to end.

    Sources [[5, 6], [7]] and answers [[8, 9, 1], [1]] with start 0:

        source_BT 5 6   valid_BT 1 1   token_BT 0 8 9   target_BT 8 9 1   weight_BT 1 1 1
                  7 0            1 0            0 0 0             1 0 0             1 0 0
    """
    if len(sources) != len(answers) or not sources or not all(sources) or not all(answers):
        raise ValueError(f"{len(sources)} sources and {len(answers)} answers; wanted as many, at least one, and none without a token")
    source_BT, target_BT = (np.zeros((len(rows), max(map(len, rows))), np.int32) for rows in (sources, answers))
    for table_BT, rows in ((source_BT, sources), (target_BT, answers)):
        for place, row in enumerate(rows):
            table_BT[place, : len(row)] = row
    valid_BT, weight_BT = (
        np.arange(table_BT.shape[1]) < np.array([len(row) for row in rows])[:, None]
        for table_BT, rows in ((source_BT, sources), (target_BT, answers))
    )
    token_BT = np.concatenate([np.full((len(answers), 1), start, np.int32), target_BT[:, :-1]], axis=1)
    return {"source_BT": source_BT, "valid_BT": valid_BT, "token_BT": token_BT, "target_BT": target_BT, "weight_BT": weight_BT.astype("f4")}


@dataclasses.dataclass(frozen=True)
class Seq2Seq:
    """Weighted cross-entropy of an encoder-decoder's next token.

    A batch is that of `batch`: source_BT and valid_BT, token_BT, which begins with the model's start token, target_BT (the token that
    follows) and weight_BT (0 where nothing is to be learnt); it may hold row_B (a row's number in the whole batch, by which its dropout is
    drawn; absent 0, 1, ...).
    dtype: of the activations. Parameters stay float32. chunks: pieces of the vocabulary in which the loss is computed
    (flaxgen.nn.entropy).
    """

    model: t5.T5
    dtype: Dtype = "float32"
    chunks: int = 1

    def __post_init__(self):
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype={self.dtype!r}: wanted one of {', '.join(get_args(Dtype))}")
        if not 1 <= self.chunks <= self.model.config.vocab:
            raise ValueError(f"chunks={self.chunks}: wanted 1 to {self.model.config.vocab}, the vocabulary cut into so many pieces")

    def init(self, key):
        token_BT = jnp.zeros((1, 1), jnp.int32)
        return self.model.init(key, token_BT, token_BT)

    def carry(self, key):
        return ()

    def loss(self, params, carry, key, batch):
        row_B = batch.get("row_B", jnp.arange(len(batch["token_BT"])))
        key_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(row_B) if self.model.config.dropout else None
        nats_BT = self._nats(params, batch, key_B)
        weight = jnp.sum(batch["weight_BT"])
        return jnp.sum(nats_BT * batch["weight_BT"]) / jnp.maximum(weight, 1), (carry, {"weight": weight})

    def export(self, params, carry):
        return params

    def nats(self, params, batch) -> jax.Array:
        """Cross-entropy of every target, nats_BT, without dropout."""
        return self._nats(params, batch, None)

    def _nats(self, params, batch, key_B):
        model = t5.T5(self.model.config, jnp.dtype(self.dtype))
        # An answer sees no padding behind itself, so none of it has to be hidden.
        sides = batch["source_BT"], batch["token_BT"]
        hidden_BTD, _ = model.apply(params, *sides, valid_BT=batch["valid_BT"], key_B=key_B, head="hidden")
        x_BTD = model.apply(params, hidden_BTD, method=t5.T5.before_product)
        tree = params["params"]
        table_VD = tree["head"]["kernel"] if model.config.head == "own" else tree["embed"]["token"]["embedding"]
        return entropy.nats(x_BTD, table_VD, batch["target_BT"], self.chunks)
