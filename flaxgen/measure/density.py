"""Densities on a grid: energies made into probabilities by integration, and how far one is from another."""

import numpy as np
from scipy import special


def log_probs(energy: np.ndarray) -> np.ndarray:
    """log of exp(-E) / sum exp(-E) over all places of a grid of equal cells; an array of the same shape."""
    energy = np.asarray(energy, np.float64)
    if not energy.size or not np.isfinite(energy.min()):
        what = f"energies of shape {energy.shape} with {np.isnan(energy).sum()} NaN, the least {energy.min(initial=np.inf)}"
        raise ValueError(f"{what}; wanted a number for every place of the grid, inf where nothing is, but not everywhere")
    return -energy - special.logsumexp(-energy)


def kl(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """KL(p ‖ q) in nats of two densities on one grid, as log_probs gives them; cells that p leaves empty count 0."""
    if np.shape(log_p) != np.shape(log_q):
        raise ValueError(f"grids of shapes {np.shape(log_p)} and {np.shape(log_q)}; wanted one grid for both")
    prob = np.exp(log_p)
    return float((prob * np.subtract(log_p, log_q, where=prob > 0, out=np.zeros_like(prob))).sum())
