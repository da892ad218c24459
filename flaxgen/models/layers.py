"""A Transformer in training: its first parameters, and its layers one after the other or as one scanned layer, kept or computed again."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flaxgen.models import block, transformer
from flaxgen.models.config import block_name
from flaxgen.nn import blocks
from flaxgen.protocols import Array, Params

Loop = Literal["unroll", "scan"]
Remat = Literal["none", "full", "dots"]
POLICIES = {"full": None, "dots": jax.checkpoint_policies.save_only_these_names(blocks.DENSE)}


def init(model: transformer.Transformer, key: Array, loop: Loop) -> Params:
    """Float32 parameters, stacked for "scan": one draw for both loops and every mesh (to rounding); compiles in the same time at any depth.

    Layer i is drawn by fold_in(key of the layers, i), all of them together, so the numbers are not those of `model.init`.
    """
    end_key, layer_key = jax.random.split(key)
    token_BT = jnp.zeros((1, 1), jnp.int32)
    ends = model.init(end_key, token_BT, method=lambda self, token_BT: self.read_off(self.leave(self.embed(*[token_BT] * 3))))
    _, sight, _ = model.apply(ends, token_BT, rank_BT=token_BT + 1, method=transformer.Transformer.enter)
    x_BTD = jnp.zeros((1, 1, model.config.width), model.dtype)
    one = block.Block(model.config)

    def draw(layer):
        return one.init(jax.random.fold_in(layer_key, layer), x_BTD, (), sight)["params"]

    params = {"params": ends["params"] | {"block": jax.vmap(draw)(jnp.arange(model.config.stored_layers))}}
    return transformer.unstack(params) if loop == "unroll" else params


def hidden(
    model: transformer.Transformer,
    params: Params,
    token_BT: Array,
    *,
    valid_BT: Array | None = None,
    segment_BT: Array | None = None,
    floor_BT: Array | None = None,
    key_B: Array | None = None,
    remat: Remat = "none",
    spread: tuple[str, ...] = (),
) -> Array:
    """hidden_BTD, what the heads read: by one scanned layer where the parameters are stacked, else layer by layer.

    valid_BT, segment_BT, floor_BT and key_B as in Transformer.__call__.
    remat: what a layer leaves for the backward pass, which computes the rest again. "none": everything. "full": its input alone.
        "dots": also what its kernels give (q, k, v, o, up: 8 widths a token with an MLP of 4), so attention, gelu and norms are done again.
    spread: the axes of the mesh (jax.set_mesh) over which the rows lie, held to before and after each layer; () leaves it to the compiler.
    """

    def hold(x_BTD):
        return jax.lax.with_sharding_constraint(x_BTD, PartitionSpec(spread)) if spread else x_BTD

    tree = params["params"]
    given = {"floor_BT": floor_BT, "segment_BT": segment_BT}
    x_BTD, sight, _ = model.apply(params, token_BT, valid_BT, **given, method=transformer.Transformer.enter)
    one = block.Block(model.config)

    def layer(x_BTD, own, index):
        return hold(one.apply({"params": own}, x_BTD, (), sight, transformer.layer_keys(key_B, index))[0])

    scanned = "block" in tree
    if remat != "none":
        # Within a scan nothing could merge the two computations. Unrolled, a compiler would but for a barrier; XLA's CPU drops the barrier
        # before it orders the work and saves no memory, so on a CPU rematerialise with "scan".
        layer = jax.checkpoint(layer, policy=POLICIES[remat], prevent_cse=not scanned)
    x_BTD = hold(x_BTD)
    number_L = jnp.arange(model.config.layers)
    if scanned and model.config.sharing == "all":
        own = jax.tree.map(lambda leaf: leaf[0], tree["block"])
        x_BTD, _ = jax.lax.scan(lambda x_BTD, index: (layer(x_BTD, own, index), None), x_BTD, number_L)
    elif scanned:
        x_BTD, _ = jax.lax.scan(lambda x_BTD, xs: (layer(x_BTD, *xs), None), x_BTD, (tree["block"], number_L))
    else:
        for index in range(model.config.layers):
            x_BTD = layer(x_BTD, tree[block_name(index % model.config.stored_layers)], index)
    return model.apply(params, x_BTD, method=transformer.Transformer.leave)
