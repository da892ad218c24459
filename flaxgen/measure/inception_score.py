"""How sure a classifier is of each picture, and how different they are (Salimans et al. 2016)."""

import dataclasses
import itertools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Score:
    """Mean and standard deviation over the splits, from 1 (all alike to the classifier) up to its number of classes."""

    mean: float
    deviation: float


def score(prob_NV: np.ndarray, splits: int = 10) -> Score:
    """exp(mean KL(p(y|x) ‖ p(y))) in each of `splits` runs of neighbouring pictures, p(y) the mean over the run.

    prob_NV: what a classifier gives of N pictures, rows that sum to 1, in an order that has nothing to do with their kind.
    """
    prob_NV = np.asarray(prob_NV, np.float64)
    if prob_NV.ndim != 2 or len(prob_NV) < splits or splits < 1:
        raise ValueError(f"probabilities of shape {prob_NV.shape} in {splits} splits; wanted (pictures, classes), a picture for each")
    if not (prob_NV >= 0).all() or np.abs(prob_NV.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("rows of probabilities are negative, NaN, or do not sum to 1; give softmax of the logits, not the logits")
    bounds = [len(prob_NV) * number // splits for number in range(splits + 1)]
    values = [_one(prob_NV[start:stop]) for start, stop in itertools.pairwise(bounds)]
    return Score(float(np.mean(values)), float(np.std(values)))


def _one(prob_NV: np.ndarray) -> float:
    ratio_NV = prob_NV / np.where(prob_NV.mean(axis=0) > 0, prob_NV.mean(axis=0), 1)
    return float(np.exp((prob_NV * np.log(np.where(prob_NV > 0, ratio_NV, 1))).sum(axis=1).mean()))
