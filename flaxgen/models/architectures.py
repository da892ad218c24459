"""The architectures by the name that config.json gives them: their sizes, readable without jax, and their modules, imported when wanted."""

import importlib
from typing import Any

CONFIGS = {
    "transformer": "flaxgen.models.config:Config",
    "t5": "flaxgen.models.t5_config:Config",
    "gated": "flaxgen.models.gated_config:Config",
    "energy": "flaxgen.models.energy_config:Config",
    "flow": "flaxgen.models.flow_config:Config",
    "field": "flaxgen.models.field_config:Config",
    "classifier": "flaxgen.models.classifier_config:Config",
}
MODULES = {
    "transformer": "flaxgen.models.transformer:Transformer",
    "t5": "flaxgen.models.t5:T5",
    "gated": "flaxgen.models.gated:Gated",
    "energy": "flaxgen.models.energy:Energy",
    "flow": "flaxgen.models.flow:Flow",
    "field": "flaxgen.models.field:Field",
    "classifier": "flaxgen.models.classifier:Classifier",
}


def config(name: Any, fields: Any) -> Any:
    """The sizes of an architecture; ValueError for an unknown one, or where a field is wrong."""
    if name not in CONFIGS:
        raise ValueError(f'"architecture" is {name!r}, wanted one of {", ".join(CONFIGS)}; a newer flaxgen may read it')
    if not isinstance(fields, dict):
        raise ValueError(f'"config" is {fields!r}, wanted the sizes by name')
    try:
        return _find(CONFIGS[name])(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f'"config": {error}; restore the file as it was written') from None


def module(config: Any, dtype: Any) -> Any:
    """The Linen module of these sizes, with activations in `dtype`."""
    return _find(MODULES[config.architecture])(config, dtype)


def _find(place: str) -> Any:
    home, name = place.split(":")
    return getattr(importlib.import_module(home), name)
