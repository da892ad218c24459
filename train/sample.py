"""What the model writes, on the way and for its scores."""

import jax
import numpy as np

from flaxgen import loop, rules
from flaxgen.chains import autoregressive

RULE = {"temperature": 0.8, "top_p": 0.9}


def continuations(model, params, text, prompts: list[str], *, end: int, seed: int = 0) -> list[str]:
    """The continuation of each prompt up to the end token or the last position; rows of one call are drawn together."""
    ids = [text.encode(prompt) for prompt in prompts]
    positions = model.config.positions
    width = min(-(-max(map(len, ids)) // 16) * 16, positions - 1)  # few widths, few compilations
    token_BT = np.zeros((len(ids), width), np.int32)
    for row, prompt in enumerate(ids):
        token_BT[row, : len(prompt)] = prompt
    steps = positions - width
    control = [i for i in text.control.values() if i != end]
    length_B = np.asarray([len(prompt) for prompt in ids], np.int32)
    given = autoregressive.prompt(token_BT, length_B, rule=rules.Rule(**RULE), end=[end], ban=control)
    chain = autoregressive.Autoregressive(model, room=steps)
    drawn = loop.generate(chain, params, jax.random.key(seed), given, steps=steps)
    return [text.decode(row) for row in drawn.rows()]
