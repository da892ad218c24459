"""How well a score tells two groups apart."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """The share of pairs in which the inside one has the higher score, equal scores counted half: the area under the ROC curve.

    For an energy model the score is -E. Infinite scores count as they stand; NaN is a ValueError.
    """
    inside_N, outside_N = (_scores(name, values) for name, values in (("inside", inside), ("outside", outside)))
    ranks_N = stats.rankdata(np.concatenate([inside_N, outside_N]))[: len(inside_N)]
    count = len(inside_N)
    return float((ranks_N.sum() - count * (count + 1) / 2) / (count * len(outside_N)))


def _scores(name: str, values: ArrayLike) -> np.ndarray:
    score_N = np.asarray(values, np.float64)
    if score_N.ndim != 1 or not score_N.size:
        raise ValueError(f"{name} has shape {score_N.shape}; wanted one score for each of at least one picture")
    if np.isnan(score_N).any():
        raise ValueError(f"{name} holds {np.isnan(score_N).sum()} NaN among {score_N.size} scores; wanted numbers that can be compared")
    return score_N
