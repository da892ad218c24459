"""Generative models in pure-functional JAX/Flax.

    writer = flaxgen.Writer()                                   # the small model that comes with flaxgen
    texts = writer("床前明月光", samples=3, tokens=24, seed=0)
    model, params, text = flaxgen.load("weights/gpt2-ml")       # Linen module, what init returned, tokenizer

Names load on first use, so importing flaxgen does not import jax.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "CheckpointError": "flaxgen.errors",
    "Config": "flaxgen.models.config",
    "Context": "flaxgen.context",
    "Encoder": "flaxgen.encoder",
    "Couplets": "flaxgen.couplets",
    "Painter": "flaxgen.painter",
    "PRESETS": "flaxgen.models.presets",
    "Reader": "flaxgen.reader",
    "Rule": "flaxgen.rules",
    "Transformer": "flaxgen.models.transformer",
    "Writer": "flaxgen.pipelines",
    "generate": "flaxgen.loop",
    "load": "flaxgen.weights",
    "save": "flaxgen.weights",
    "stream": "flaxgen.loop",
}
_ROOMS = (
    "acyclic",
    "chains",
    "couplets",
    "energies",
    "errors",
    "features",
    "gallery",
    "measure",
    "models",
    "nn",
    "painter",
    "pipelines",
    "reader",
    "rules",
    "tasks",
    "text",
    "weights",
)
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"flaxgen.{name}")
    if name not in _HOME:
        raise AttributeError(f"flaxgen has no {name!r}; it has {', '.join(__all__)}, and the modules {', '.join(_ROOMS)}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS, "__version__"]
