"""A Transformer whose layers are called from the host, one after the other."""

from functools import partial

import jax

from flaxgen.models import block, transformer
from flaxgen.models.config import block_name
from flaxgen.nn import attention
from flaxgen.protocols import Array, Params

# One compilation serves every layer: they differ in parameters only.
_enter = partial(jax.jit, static_argnums=0)(lambda model, params, *given: model.apply(params, *given, method="enter"))
_leave = partial(jax.jit, static_argnums=0)(lambda model, params, x_BTD: model.apply(params, x_BTD, method="leave"))


@partial(jax.jit, static_argnums=0, donate_argnums=4)
def _block(model, tree, x_BTD, fixed, last, sight):
    return block.Block(model.config).apply({"params": tree}, x_BTD, (*fixed, last), sight)


def apply(
    model: transformer.Transformer,
    params: Params,
    token_BT: Array,
    *,
    valid_BT: Array | None = None,
    segment_BT: Array | None = None,
    caches: tuple[attention.Cache, ...],
) -> tuple[Array, tuple[attention.Cache, ...]]:
    """What `model.apply(..., head="hidden")` gives, by one compiled layer called once a layer from the host: quick to compile at any depth.

    The buffers of the last cache are donated.
    """
    tree = params["params"]
    ends = {"params": {name: part for name, part in tree.items() if not name.startswith("block_")}}
    x_BTD, sight, last = _enter(model, ends, token_BT, valid_BT, None, None, caches, None, segment_BT)
    grown = []
    for layer in range(model.config.layers):
        *fixed, own = transformer.buffers(caches, layer)
        x_BTD, buffer = _block(model, tree[block_name(layer % model.config.stored_layers)], x_BTD, tuple(fixed), own, sight)
        grown.append(buffer)
    return _leave(model, ends, x_BTD), transformer.regrow(caches, last, grown)
