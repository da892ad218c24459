"""Fréchet distance between two sets of pictures, each taken as a Gaussian of its features (Heusel et al. 2017)."""

import dataclasses
import os
from collections.abc import Iterable

import numpy as np
from scipy import linalg


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of features, in float64."""

    mean_D: np.ndarray
    covariance_DD: np.ndarray

    def __post_init__(self):
        shape = np.shape(self.mean_D)
        if len(shape) != 1 or np.shape(self.covariance_DD) != shape * 2:
            raise ValueError(f"mean of shape {shape}, covariance of shape {np.shape(self.covariance_DD)}; wanted (D,) and (D, D)")
        if not (np.isfinite(self.mean_D).all() and np.isfinite(self.covariance_DD).all()):
            raise ValueError("mean or covariance is not finite; the pictures or the feature network are damaged")

    @classmethod
    def of(cls, parts: Iterable[np.ndarray]) -> "Gaussian":
        """Of features that come in parts, feature_ND each, N - 1 under the covariance; no more than a part is held at a time."""
        count, mean_D, scatter_DD = 0, 0.0, 0.0
        for part in parts:
            part_ND = np.asarray(part, np.float64)
            if part_ND.ndim != 2:
                raise ValueError(f"features of shape {part_ND.shape}; wanted (pictures, features)")
            if not len(part_ND):
                continue
            away_D = part_ND.mean(axis=0) - mean_D
            own_ND = part_ND - part_ND.mean(axis=0)
            total = count + len(part_ND)
            # Chan, Golub and LeVeque 1983: what two groups scatter about the mean of both.
            scatter_DD = scatter_DD + own_ND.T @ own_ND + np.outer(away_D, away_D) * (count * len(part_ND) / total)
            mean_D, count = mean_D + away_D * (len(part_ND) / total), total
        if count < 2:
            raise ValueError(f"{count} pictures; a covariance wants at least 2, and a meaningful one more than there are features")
        return cls(mean_D, scatter_DD / (count - 1))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Gaussian":
        """From a .npz file of arrays mu and sigma, as pytorch-fid and others publish of data sets."""
        with open(path, "rb") as source:
            try:
                file = np.load(source, allow_pickle=False)
                found = {name: file[name] for name in file} if isinstance(file, np.lib.npyio.NpzFile) else {}
            except Exception as error:  # of a damaged archive NumPy raises zlib.error, BadZipFile and others
                raise ValueError(f"{path}: {error}; wanted a whole .npz file without pickles") from None
        if not {"mu", "sigma"} <= set(found):
            raise ValueError(f"{path} holds {', '.join(found) or 'no archive of arrays'}; wanted the arrays mu and sigma")
        return cls(found["mu"].astype(np.float64), found["sigma"].astype(np.float64))

    def save(self, path: str | os.PathLike) -> None:
        np.savez(path, mu=self.mean_D, sigma=self.covariance_DD)


def distance(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½), the square of the Fréchet distance, which is what is called FID.

    With S = L L^T the trace of the root is the sum of the singular values of L1^T L2, so covariances of fewer pictures than features need
    no offset, and no imaginary part comes up.
    """
    if one.mean_D.shape != other.mean_D.shape:
        raise ValueError(f"{one.mean_D.size} features against {other.mean_D.size}; wanted both from one feature network")
    cross = linalg.svdvals(_root(one.covariance_DD).T @ _root(other.covariance_DD)).sum()
    away_D = one.mean_D - other.mean_D
    return float(max(away_D @ away_D + np.trace(one.covariance_DD) + np.trace(other.covariance_DD) - 2 * cross, 0.0))


def _root(covariance_DD: np.ndarray) -> np.ndarray:
    """L with L L^T = the covariance."""
    value_D, vector_DD = linalg.eigh((covariance_DD + covariance_DD.T) / 2)
    return vector_DD * np.sqrt(np.maximum(value_D, 0))
