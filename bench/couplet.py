"""The couplet writer and its baseline of equal size side by side: an update, and answers, on lines of several lengths.

    python -m bench couplet [--vocab 8001] [--lengths 5 7 11 16] [--batch 64] [--rounds 9]

Both take turns round by round. An update is that of `python -m train couplet`: dropout, softmax over the whole vocabulary, Adam. Answers
are the logits of as many lines, without dropout. Losses of the two recipes are drawn by `python -m train plot RUN RUN`.
"""

import argparse
import functools
import math
import statistics
import time

import jax
import numpy as np
import optax
import report
import rounds

from flaxgen.models import gated, gated_config
from flaxgen.tasks import tagging

KINDS = ("gated", "bilstm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=8001)
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 7, 11, 16])
    parser.add_argument("--batch", type=int, default=64, help="lines at once")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    sides = {kind: Side(kind, options.vocab) for kind in KINDS}
    rows = []
    for length in options.lengths:
        token_BT = np.random.default_rng(0).integers(0, options.vocab, (options.batch, length), np.int32)
        figures = {}
        for what in ("update", "answer"):
            turns = {kind: functools.partial(getattr(side, what), token_BT) for kind, side in sides.items()}
            figures[what] = rounds.interleaved(turns, options.rounds)
        for kind, side in sides.items():
            row = {"kind": kind, "parameters": side.parameters, "length": length}
            for what, found in figures.items():
                row[f"ms {what}"] = 1000 * statistics.median(found[kind])
                row[f"{what}, bilstm / this"] = rounds.ratio(found, "bilstm", kind)["ratio"]
            rows.append(row)
    report.finish("couplet", rows, ["jax", "jaxlib"], **{name: getattr(options, name) for name in ("vocab", "batch", "rounds")})


class Side:
    """A model in training, and its seconds for one call on given lines."""

    def __init__(self, kind: gated_config.Kind, vocab: int):
        sizes = gated_config.Config(vocab, kind)
        task, adam = tagging.Tagging(gated.Gated(sizes)), optax.adam(1e-3)

        def update(params, moments, batch):
            key = jax.random.key(0)
            grads, _ = jax.grad(task.loss, has_aux=True)(params, (), key, batch)
            moves, moments = adam.update(grads, moments, params)
            return optax.apply_updates(params, moves), moments

        self.parameters = sum(map(math.prod, sizes.shapes().values()))
        self.params = task.init(jax.random.key(0))
        self.moments = adam.init(self.params)
        self._update = jax.jit(update, donate_argnums=(0, 1))
        self._answer = jax.jit(task.model.apply)

    def update(self, token_BT: np.ndarray) -> float:
        began = time.perf_counter()
        made = self._update(self.params, self.moments, {"token_BT": token_BT, "target_BT": token_BT})
        self.params, self.moments = jax.block_until_ready(made)
        return time.perf_counter() - began

    def answer(self, token_BT: np.ndarray) -> float:
        began = time.perf_counter()
        jax.block_until_ready(self._answer(self.params, token_BT))
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
