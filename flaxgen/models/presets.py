"""The published sizes by name."""

from flaxgen.models.config import Config


def _gpt2(width: int, layers: int, heads: int) -> Config:
    return Config(50257, 1024, width, layers, heads, 4 * width, wiring="pre", activation="gelu_tanh")


def _gpt2_ml(vocab: int, width: int, layers: int, heads: int, init_range: float = 0.02) -> Config:
    return Config(vocab, 1024, width, layers, heads, 4 * width, wiring="between", activation="gelu", init_range=init_range)


PRESETS = {
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "gpt2-ml-base": _gpt2_ml(50270, 768, 12, 12),
    "gpt2-ml-large": _gpt2_ml(8021, 1024, 24, 16),
    "gpt2-ml-mega": _gpt2_ml(8021, 1536, 48, 24, init_range=0.014142135623731),
    "gpt2-ml-mega-21130": _gpt2_ml(21130, 1536, 48, 24, init_range=0.014142135623731),
}
