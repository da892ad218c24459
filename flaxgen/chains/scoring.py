"""How likely a model finds tokens that are there already: one reading, no cache to keep."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen import sampling
from flaxgen.models import dispatched, transformer
from flaxgen.protocols import Params


@dataclasses.dataclass(frozen=True)
class Scores:
    """All T - 1 wide: place t tells of token t + 1 after all before it; padding means nothing."""

    log_prob_BT: np.ndarray  # float32, of the token that is there
    top_id_BTE: np.ndarray  # the likeliest tokens, the likeliest first
    top_log_prob_BTE: np.ndarray


def score(model: transformer.Transformer, params: Params, token_BT: np.ndarray, length_B: np.ndarray, *, layers="unrolled") -> np.ndarray:
    """log_prob_BT of `scores`."""
    return scores(model, params, token_BT, length_B, layers=layers).log_prob_BT


def scores(
    model: transformer.Transformer, params: Params, token_BT: np.ndarray, length_B: np.ndarray, *, layers="unrolled", alternatives: int = 0
) -> Scores:
    """The Scores of rows padded on the right, with so many alternatives a place."""
    valid_BT = np.arange(token_BT.shape[1]) < length_B[:, None]
    if layers == "dispatched":
        caches = (model.cache(*token_BT.shape),)
        hidden_BTD, _ = dispatched.apply(model, params, token_BT, valid_BT=valid_BT, caches=caches)
    else:
        hidden_BTD = _read_through(model, params, token_BT, valid_BT)
    found = Scores(*jax.device_get(_log_probabilities(model, params, hidden_BTD, token_BT, alternatives)))
    if not np.isfinite(found.log_prob_BT[valid_BT[:, 1:]]).all():
        raise FloatingPointError("the model's logits are not finite; its weights are damaged or overflow")
    return found


@partial(jax.jit, static_argnums=0)
def _read_through(model, params, token_BT, valid_BT):
    return model.apply(params, token_BT, valid_BT=valid_BT, head="hidden")[0]


@partial(jax.jit, static_argnums=(0, 4))
def _log_probabilities(model, params, hidden_BTD, token_BT, alternatives):
    """Row by row, so that one row's logits are in memory at a time."""

    def row(pair):
        hidden_TD, token_T = pair
        logit_TV = model.apply(params, hidden_TD[None, :-1], method=transformer.Transformer.unembed)[0]
        top_logit_TE, top_id_TE = jax.lax.top_k(logit_TV.astype(jnp.float32), alternatives)
        top_log_prob_TE = top_logit_TE - jax.nn.logsumexp(logit_TV.astype(jnp.float32), axis=-1, keepdims=True)
        return sampling.log_probability(logit_TV, token_T[1:]), top_id_TE, top_log_prob_TE

    return jax.lax.map(row, (hidden_BTD, token_BT))
