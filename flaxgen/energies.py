"""Energies of points, one model's or several added up: hashable callables (params, x_BYXC, label_B, key_B) -> energy_B."""

import dataclasses
from typing import Any, Literal

from flaxgen.protocols import Array, Params


@dataclasses.dataclass(frozen=True)
class Single:
    """The energy of one model; dropout="drawn" draws it with the rows' keys, as in training."""

    model: Any
    dropout: Literal["none", "drawn"] = "none"

    def __call__(self, params: Params, x_BYXC: Array, label_B: Array | None, key_B: Array) -> Array:
        return self.model.apply(params, x_BYXC, label_B, key_B=key_B if self.dropout == "drawn" else None)


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
        labels = label_B if isinstance(label_B, tuple) else (label_B,) * len(self.models)
        parts = zip(self.models, self.weights, params, labels, strict=True)
        return sum(weight * model.apply(tree, x_BYXC, label) for model, weight, tree, label in parts)


def total(*models: Any) -> Sum:
    """The composition of models: all their conditions at once."""
    return Sum(models, (1.0,) * len(models))


def mean(*models: Any) -> Sum:
    """The ensemble of models of one density, which sampling smooths."""
    return Sum(models, tuple(1 / len(models) for _ in models))
