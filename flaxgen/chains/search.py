"""What searches share: reading the prompts once, whatever grows from them, and refusing what has a meaning in sampling alone."""

from typing import Literal

import jax.numpy as jnp
import numpy as np

from flaxgen import controls
from flaxgen.chains import autoregressive
from flaxgen.models import dispatched, transformer
from flaxgen.nn.attention import Cache
from flaxgen.protocols import Array, Params

Layers = Literal["unrolled", "dispatched"]
NEUTRAL = {"temperature": 1, "top_k": 0, "top_p": 1, "top_p_below": 1, "min_p": 0, "typical_p": 1}


def forward(
    model: transformer.Transformer, layers: Layers, params: Params, token_BT: Array, valid_BT: Array, caches: tuple[Cache, ...]
) -> tuple[Array, tuple[Cache, ...]]:
    """What the output head reads after every token, and the caches with the last one grown."""
    if layers == "dispatched":
        return dispatched.apply(model, params, token_BT, valid_BT=valid_BT, caches=caches)
    return model.apply(params, token_BT, valid_BT=valid_BT, caches=caches, head="hidden")


def read(model: transformer.Transformer, layers: Layers, params: Params, given: autoregressive.Prompt) -> tuple[Array, tuple[Cache, ...]]:
    """hidden_BTD after every token of the prompts, and the caches that hold them, of one row a prompt."""
    valid_BT = jnp.arange(given.token_BT.shape[1])[None] < given.length_B[:, None]
    before = () if given.context is None else (given.context,)
    return forward(model, layers, params, given.token_BT, valid_BT, (*before, model.cache(*given.token_BT.shape)))


def last(hidden_BTD: Array, length_B: Array) -> Array:
    """hidden_BTD at each row's last token, one step wide."""
    return jnp.take_along_axis(hidden_BTD, length_B[:, None, None] - 1, axis=1)


def count(name: str, value, low: int = 1) -> None:
    """ValueError unless the value is a whole number of at least `low`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < low:
        raise ValueError(f"Search({name}={value!r}): wanted a whole number of at least {low}")


def number(name: str, value, low: float, high: float) -> None:
    """ValueError unless the value is a number from `low` to `high`."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"Search({name}={value!r}): wanted a number from {low} to {high}")


def refuse_draws(wishes: controls.Controls, allowed: tuple[str, ...] = ()) -> None:
    """ValueError where a row's rule changes how tokens are drawn: a search draws none."""
    for name, neutral in NEUTRAL.items():
        held = wishes if hasattr(wishes, f"{name}_B") else wishes.full
        if held is None or name in allowed:
            continue
        if (column_B := np.asarray(getattr(held, f"{name}_B"))[np.asarray(getattr(held, f"{name}_B")) != neutral]).size:
            raise ValueError(f"Rule({name}={column_B[0]:g}) changes how a token is drawn, and a search draws none; leave it at {neutral}")


def refuse_samples(key_B: Array, given: autoregressive.Prompt, instead: str) -> None:
    """ValueError where several samples of a prompt are asked for."""
    if len(key_B) != len(given.token_BT):
        raise ValueError(f"{len(key_B)} rows for {len(given.token_BT)} prompts: a search finds the same answer every time; {instead}")
