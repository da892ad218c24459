"""The published sizes by name."""

from flaxgen.models import t5_config
from flaxgen.models.config import Config


def _gpt2(width: int, layers: int, heads: int) -> Config:
    return Config(50257, 1024, width, layers, heads, 4 * width, wiring="pre", activation="gelu_tanh")


def _gpt2_ml(vocab: int, width: int, layers: int, heads: int, init_range: float = 0.02) -> Config:
    return Config(vocab, 1024, width, layers, heads, 4 * width, wiring="between", activation="gelu", init_range=init_range)


def _encoder(
    vocab: int, width: int, layers: int, heads: int, *, positions: int = 512, outputs: tuple = ("mlm", "pool", "nsp"), **more
) -> Config:
    """BERT's choices with `more` in their place."""
    choices = {"hidden": 4 * width, "wiring": "post", "activation": "gelu", "epsilon": 1e-12, "segments": 2, "application": "encoder"}
    return Config(vocab, positions, width, layers, heads, outputs=outputs, **choices | more)


def _albert(width: int, layers: int, heads: int) -> Config:
    return _encoder(21128, width, layers, heads, embedding=128, sharing="all", dropout=0.0)


def _roformer(width: int, layers: int, heads: int) -> Config:
    return _encoder(12000, width, layers, heads, outputs=("tied",), position="rotary", norm="bare")


def _electra(vocab: int, width: int, heads: int, embedding: int, layers: int = 12) -> Config:
    return _encoder(vocab, width, layers, heads, embedding=embedding, outputs=("discriminator",))


def _t5(width: int, layers: int, heads: int, hidden: int, head_width: int = 64) -> t5_config.Config:
    return t5_config.Config(32128, width, layers, heads, head_width, hidden, "relu", "tied")


def _t5_gated(vocab: int) -> dict[str, t5_config.Config]:
    sizes = {"small": (512, 8, 6, 1024), "base": (768, 12, 12, 2048), "large": (1024, 24, 16, 2816), "xl": (2048, 24, 32, 5120),
             "xxl": (4096, 24, 64, 10240)}  # fmt: skip
    return {
        name: t5_config.Config(vocab, width, layers, heads, 64, hidden, "gated_gelu", "own")
        for name, (width, layers, heads, hidden) in sizes.items()
    }


PRESETS = {
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "gpt2-ml-base": _gpt2_ml(50270, 768, 12, 12),
    "gpt2-ml-large": _gpt2_ml(8021, 1024, 24, 16),
    "gpt2-ml-mega": _gpt2_ml(8021, 1536, 48, 24, init_range=0.014142135623731),
    "gpt2-ml-mega-21130": _gpt2_ml(21130, 1536, 48, 24, init_range=0.014142135623731),
    "bert-base-chinese": _encoder(21128, 768, 12, 12),
    "bert-base-uncased": _encoder(30522, 768, 12, 12),
    "bert-large-uncased": _encoder(30522, 1024, 24, 16),
    "roberta-wwm-ext-large": _encoder(21128, 1024, 24, 16),
    "albert-base": _albert(768, 12, 12),
    "albert-large": _albert(1024, 24, 16),
    "albert-xlarge": _albert(2048, 24, 16),
    "albert-xxlarge": _albert(4096, 12, 64),
    "nezha-base": _encoder(21128, 768, 12, 12, position="relative"),
    "nezha-large": _encoder(21128, 1024, 24, 16, position="relative"),
    "roformer-base": _encoder(50000, 768, 12, 12, positions=1536, outputs=("mlm",), position="rotary"),
    "roformer-v2-small": _roformer(384, 6, 6),
    "roformer-v2-base": _roformer(768, 12, 12),
    "roformer-v2-large": _roformer(1024, 24, 16),
    "electra-small": _electra(21128, 256, 4, 128),
    "electra-base": _electra(21128, 768, 12, 768),
    "electra-large": _electra(21128, 1024, 16, 1024, layers=24),
    "t5-small": _t5(512, 6, 8, 2048),
    "t5-base": _t5(768, 12, 12, 3072),
    "t5-large": _t5(1024, 24, 16, 4096),
    "t5-3b": _t5(1024, 24, 32, 16384, head_width=128),
    "t5-11b": _t5(1024, 24, 128, 65536, head_width=128),
    **{f"t5.1.1-{name}": config for name, config in _t5_gated(32128).items()},
    **{f"mt5-{name}": config for name, config in _t5_gated(250112).items()},
}
