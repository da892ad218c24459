"""More positions than a model was trained with, made from the ones it has."""

import dataclasses
import numbers

import jax.numpy as jnp

from flaxgen.models import transformer
from flaxgen.protocols import Array, Params

ALPHA = 0.4


def hierarchical(
    model: transformer.Transformer, params: Params, positions: int, *, alpha: float = ALPHA
) -> tuple[transformer.Transformer, Params]:
    """The same model with `positions` of them, by hierarchical decomposition (Su 2020, kexue.fm/archives/7947).

    From the n rows p of the table: u_i = (p_i - alpha p_0) / (1 - alpha), and row i n + j is alpha u_i + (1 - alpha) u_j, for at most n * n
    positions. The first n rows stay as they are to the last bit, so texts that fitted before read as before. One column 1 2 4 becomes
    1 2 4, 5/3 8/3 14/3, 3 4 6. alpha lies between 0 and 1; at 0.5 the rows i n + j and j n + i would be equal.
    """
    table = params["params"]["embed"]["position"]
    trained = model.config.positions
    if not isinstance(positions, numbers.Integral) or not trained <= positions <= trained**2:
        raise ValueError(
            f"positions={positions!r}: wanted a whole number from {trained}, which the model has, to {trained}² = {trained**2}"
        )
    if not isinstance(alpha, numbers.Real) or not 0 < alpha < 1 or alpha == 0.5:
        raise ValueError(f"alpha={alpha!r}: wanted a number between 0 and 1 other than 0.5; {ALPHA} is the published one")
    embedding = table["embedding"]
    if embedding.shape[0] != trained or not jnp.issubdtype(embedding.dtype, jnp.floating):
        raise ValueError(
            f"the table of positions is {embedding.shape[0]} rows of {embedding.dtype}; wanted {trained} rows of floating-point numbers. "
            "Give the model as it was loaded"
        )
    longer = {**table, "embedding": decompose(embedding, int(positions), alpha)}
    embed = {**params["params"]["embed"], "position": longer}
    config = dataclasses.replace(model.config, positions=int(positions))
    return model.clone(config=config), {**params, "params": {**params["params"], "embed": embed}}


def decompose(old_SD: Array, positions: int, alpha: float) -> Array:
    """Rows 0 to positions - 1 of the decomposition, in float32 until the last cast."""
    old_SD = jnp.asarray(old_SD)
    trained = len(old_SD)
    wide_SD = old_SD.astype(jnp.float32)
    basis_SD = (wide_SD - alpha * wide_SD[:1]) / (1 - alpha)
    place_S = jnp.arange(trained, positions)
    new_SD = alpha * basis_SD[place_S // trained] + (1 - alpha) * basis_SD[place_S % trained]
    return jnp.concatenate([old_SD, new_SD.astype(old_SD.dtype)])
