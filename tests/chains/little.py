"""A tiny model with many parameters sets, prompts of unequal lengths, and its log-probabilities by recomputing every prefix."""

import jax
import numpy as np

from flaxgen import weights
from flaxgen.chains import autoregressive
from flaxgen.models import config as sizes
from flaxgen.models import transformer

KEY = jax.random.key(11)
MODEL = transformer.Transformer(sizes.Config(37, 41, 12, 2, 3, 20, "pre", "gelu", init_range=0.4))
PROMPTS = [[5, 9, 2], [7, 7, 1, 30, 4, 4, 8], [36], [2, 11]]
WIDTH = 7


def params(seed: int):
    noise = np.random.default_rng(seed)
    shapes = sizes.shapes(MODEL.config).items()
    return weights.nest({name: noise.normal(name.endswith("scale"), 0.4, shape).astype(np.float32) for name, shape in shapes})


def given(prompts, **wishes):
    length_B = np.array([len(prompt) for prompt in prompts])
    token_BT = np.zeros((len(prompts), WIDTH), int)
    for row, prompt in enumerate(prompts):
        token_BT[row, : len(prompt)] = prompt
    return autoregressive.prompt(token_BT, length_B, **wishes)


@jax.jit
def _hidden(tree, token_BT):
    hidden_BTD = MODEL.apply(tree, token_BT, head="hidden")[0]
    return hidden_BTD, MODEL.apply(tree, hidden_BTD, method=transformer.Transformer.unembed)


def recompute(tree, rows):
    """(hidden_BTD, logit_BTV) of eight rows of up to 40 tokens, without a cache."""
    token_BT = np.zeros((8, 40), int)
    for row, ids in enumerate(rows):
        token_BT[row, : len(ids)] = ids
    return map(np.asarray, _hidden(tree, token_BT))


def predictor(tree, prompt, change=lambda row_V, ids, drawn: row_V):
    """predict(rows of drawn tokens) -> float64 log-probabilities after prompt and drawn tokens, as `change` would have them."""

    def predict(rows):
        ids = [[*prompt, *drawn] for drawn in rows]
        _, logit_BTV = recompute(tree, ids)
        logit_BV = np.stack([logit_BTV[row, len(each) - 1] for row, each in enumerate(ids)]).astype(np.float64)
        logit_BV -= logit_BV.max(axis=1, keepdims=True)
        log_prob_BV = logit_BV - np.log(np.exp(logit_BV).sum(axis=1, keepdims=True))
        return np.stack([change(row_V, each, drawn) for row_V, each, drawn in zip(log_prob_BV, ids, rows, strict=True)])

    return predict
