"""Texts longer than a model was trained with: two ways by name to score them, and where each of them breaks."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from flaxgen.chains import scoring
from flaxgen.measure import by_position
from flaxgen.models import positions, transformer
from flaxgen.protocols import Params

# "hierarchical": one reading, with positions made from the trained ones (flaxgen.models.positions), at most their square.
# "sliding": the trained positions only; whenever they are full the last half is read again as the beginning of a new text.
Way = Literal["hierarchical", "sliding"]
TOGETHER = 8192  # tokens read at once, at least one row
BUCKET = 64  # widths are multiples of it, so that texts of other lengths need no other program


def log_probs(
    model: transformer.Transformer, params: Params, rows: Sequence[Sequence[int]], *, way: Way, layers: str = "unrolled"
) -> list[np.ndarray]:
    """The log-probability of every token of `rows` but each row's first, rows of any length that `way` can read.

    Sliding with 4 positions reads a b c d e f g as  a b c d (scores b c d),  c d e f (scores e f),  e f g (scores g): a token sees at least
    half the positions before it.
    """
    if way not in get_args(Way):
        raise ValueError(f"way={way!r}: wanted one of {', '.join(get_args(Way))}")
    if short := [number for number, row in enumerate(rows) if len(row) < 2]:
        raise ValueError(f"text {short[0]} has {len(rows[short[0]])} tokens, wanted at least 2; the first is not scored")
    for number, row in enumerate(rows):
        if min(row) < 0 or max(row) >= model.config.vocab:
            raise ValueError(f"text {number} has ids {min(row)} to {max(row)}; the model's vocabulary has 0 to {model.config.vocab - 1}")
    longest, trained = max(map(len, rows), default=0), model.config.positions
    if way == "hierarchical" and longest > trained:
        if longest > trained**2:
            raise ValueError(
                f"a text has {longest} tokens; {trained} positions are lengthened to {trained**2} at most. Cut it, or read it sliding"
            )
        model, params = positions.hierarchical(model, params, min(_bucket(longest), trained**2))
    if trained < 2:
        raise ValueError("a model of 1 position predicts from no more than 1 token, and nothing slides; wanted at least 2 positions")
    keep = trained // 2
    starts = [range(0, max(1, len(row) - keep), trained - keep) if way == "sliding" else range(1) for row in rows]
    windows = [row[start : start + model.config.positions] for row, begins in zip(rows, starts, strict=True) for start in begins]
    scored = iter(_scored(model, params, windows, layers))
    # A window after the first scores what it does not share with the one before.
    return [np.concatenate([next(scored)[keep - 1 if start else 0 :] for start in begins]) for begins in starts]


def _scored(model: transformer.Transformer, params: Params, windows: list[Sequence[int]], layers: str) -> list[np.ndarray]:
    """Log-probabilities of short rows, in blocks of one shape: memory and compiled programs do not grow with their number."""
    width = min(_bucket(max(map(len, windows), default=1)), model.config.positions)
    together = max(1, min(TOGETHER // width, len(windows)))
    found = []
    for begin in range(0, len(windows), together):
        block = windows[begin : begin + together]
        token_BT, length_B = np.zeros((together, width), np.int32), np.full(together, 2, np.int32)
        for place, row in enumerate(block):
            token_BT[place, : len(row)], length_B[place] = row, len(row)
        log_prob_BT = scoring.score(model, params, token_BT, length_B, layers=layers)
        found += [log_prob_T[: len(row) - 1] for log_prob_T, row in zip(log_prob_BT, block, strict=False)]
    return found


def _bucket(count: int) -> int:
    return -(-count // BUCKET) * BUCKET


def curves(
    model: transformer.Transformer,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    ways: Sequence[Way] = get_args(Way),
    width: int | None = None,
    layers: str = "unrolled",
) -> dict[Way, by_position.Curve]:
    """Nats by place in the text for each way, in pieces of `width` places, by default a quarter of the trained positions."""
    width = width or max(1, model.config.positions // 4)
    return {way: by_position.curve(log_probs(model, params, rows, way=way, layers=layers), width) for way in ways}
