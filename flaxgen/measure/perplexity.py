"""Perplexity from the log-probabilities of tokens."""

import numpy as np


def perplexity(log_prob: np.ndarray, weight: np.ndarray | None = None) -> float:
    """exp of the mean of -log_prob (natural logarithm), weighted; of any shape."""
    log_prob = np.asarray(log_prob, np.float64)
    weight = np.ones_like(log_prob) if weight is None else np.asarray(weight, np.float64)
    if log_prob.shape != weight.shape or weight.sum() <= 0:
        raise ValueError(f"log_prob is {log_prob.shape}, weight {weight.shape} with sum {weight.sum()}; wanted equal shapes, a sum above 0")
    used = weight > 0
    return float(np.exp(-(log_prob[used] * weight[used]).sum() / weight.sum()))
