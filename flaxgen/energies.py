"""Energies of points, one model's or several added up: hashable callables (params, x_BYXC, label_B, key_B) -> energy_B."""

import dataclasses
from typing import Any, Literal

import numpy as np

from flaxgen.protocols import Array, Params


@dataclasses.dataclass(frozen=True)
class Single:
    """The energy of one model; dropout="drawn" draws it with the rows' keys, as in training."""

    model: Any
    dropout: Literal["none", "drawn"] = "none"

    def __call__(self, params: Params, x_BYXC: Array, label_B: Array | None, key_B: Array) -> Array:
        return self.model.apply(params, x_BYXC, label_B, key_B=key_B if self.dropout == "drawn" else None)

    def check(self, label_B: Any, rows: int) -> None:
        """ValueError where the model does not know these labels."""
        _check(self.model, label_B, rows)


@dataclasses.dataclass(frozen=True)
class Sum:
    """The weighted sum of several models' energies: its density is the product of their densities, each to the power of its weight.

    params: a tuple of trees, one for each model. label_B: of all models alike, or a tuple with one for each.
    """

    models: tuple[Any, ...]
    weights: tuple[float, ...]

    def __post_init__(self):
        if not self.models or len(self.models) != len(self.weights):
            raise ValueError(
                f"{len(self.models)} models with {len(self.weights)} weights; wanted a weight for each, and at least one model"
            )

    def __call__(self, params: tuple[Params, ...], x_BYXC: Array, label_B: Any, key_B: Array) -> Array:
        if len(params) != len(self.models):
            raise ValueError(f"{len(params)} trees of parameters for {len(self.models)} models; give a tuple with one for each")
        parts = zip(self.models, self.weights, params, self._labels(label_B), strict=True)
        return sum(weight * model.apply(tree, x_BYXC, label) for model, weight, tree, label in parts)

    def check(self, label_B: Any, rows: int) -> None:
        """ValueError where a model does not know its labels."""
        for model, label in zip(self.models, self._labels(label_B), strict=True):
            _check(model, label, rows)

    def _labels(self, label_B: Any) -> tuple[Any, ...]:
        labels = label_B if isinstance(label_B, tuple) else (label_B,) * len(self.models)
        if len(labels) != len(self.models):
            raise ValueError(f"labels for {len(labels)} models of {len(self.models)}; give the same for all, or a tuple with one for each")
        return labels


def total(*models: Any) -> Sum:
    """The composition of models: all their conditions at once."""
    return Sum(models, (1.0,) * len(models))


def mean(*models: Any) -> Sum:
    """The ensemble of models of one density, which sampling smooths."""
    return Sum(models, tuple(1 / len(models) for _ in models))


def _check(model: Any, label_B: Any, rows: int) -> None:
    """Labels are whole numbers below the model's classes, one a row: of others JAX would read the nearest class."""
    if label_B is None:
        return
    label_B, classes = np.asarray(label_B), getattr(getattr(model, "config", None), "classes", np.inf)
    if label_B.shape != (rows,) or label_B.dtype.kind not in "iu" or not ((label_B >= 0) & (label_B < classes)).all():
        what = f"label_B is {label_B.dtype} {label_B!r:.80}"
        raise ValueError(f"{what}; wanted {rows} whole numbers from 0 to {classes - 1}, one for each row")
