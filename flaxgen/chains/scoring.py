"""How likely a model finds tokens that are there already: one reading, no cache to keep."""

from functools import partial

import jax
import numpy as np

from flaxgen import sampling
from flaxgen.models import dispatched, transformer
from flaxgen.protocols import Params


def score(model: transformer.Transformer, params: Params, token_BT: np.ndarray, length_B: np.ndarray, *, layers="unrolled") -> np.ndarray:
    """log_prob_BT of float32, T - 1 wide: entry t is the log-probability of token t + 1 after all before it; padding means nothing."""
    valid_BT = np.arange(token_BT.shape[1]) < length_B[:, None]
    if layers == "dispatched":
        caches = (model.cache(*token_BT.shape),)
        hidden_BTD, _ = dispatched.apply(model, params, token_BT, valid_BT=valid_BT, caches=caches)
    else:
        hidden_BTD = _read_through(model, params, token_BT, valid_BT)
    log_prob_BT = np.asarray(_log_probabilities(model, params, hidden_BTD, token_BT))
    if not np.isfinite(log_prob_BT[valid_BT[:, 1:]]).all():
        raise FloatingPointError("the model's logits are not finite; its weights are damaged or overflow")
    return log_prob_BT


@partial(jax.jit, static_argnums=0)
def _read_through(model, params, token_BT, valid_BT):
    return model.apply(params, token_BT, valid_BT=valid_BT, head="hidden")[0]


@partial(jax.jit, static_argnums=0)
def _log_probabilities(model, params, hidden_BTD, token_BT):
    """Row by row, so that one row's logits are in memory at a time."""

    def row(pair):
        hidden_TD, token_T = pair
        logit_TV = model.apply(params, hidden_TD[None, :-1], method=transformer.Transformer.unembed)[0]
        return sampling.log_probability(logit_TV, token_T[1:])

    return jax.lax.map(row, (hidden_BTD, token_BT))
