"""GPT-2 as OpenAI released it (openai/gpt-2): query, key and value in one convolution, hparams.json."""

from typing import Any

from convert.formats.table import PLAIN, Card, Format, Row, block_rows, field
from flaxgen.models.config import Config


def read(json: dict[str, Any]) -> Card:
    width = field(json, "n_embd")
    hidden = 4 * width if type(width) is int else width
    return Card(Config(
        vocab=field(json, "n_vocab"), positions=field(json, "n_ctx"), width=width, layers=field(json, "n_layer"),
        heads=field(json, "n_head"), hidden=hidden, wiring="pre", activation="gelu_tanh",
    ))  # fmt: skip


def write(card: Card) -> dict[str, Any]:
    config = card.config
    if config.hidden != 4 * config.width or config.epsilon != 1e-5:
        raise ValueError(f"hidden {config.hidden} and epsilon {config.epsilon}; OpenAI's code has 4 × {config.width} and 1e-05 built in")
    return {"n_vocab": config.vocab, "n_ctx": config.positions, "n_embd": config.width, "n_head": config.heads, "n_layer": config.layers}


FORMAT = Format(
    name="gpt2-tf",
    title="GPT-2 (OpenAI's TensorFlow checkpoints)",
    container="bundle",
    json_name="hparams.json",
    holds=PLAIN | {"wiring": ("pre",), "activation": ("gelu_tanh",)},
    default="gelu_tanh",
    read=read,
    write=write,
    vocabulary={"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"},
    rows=(
        Row("model/wte", ("embed/token/embedding",)),
        Row("model/wpe", ("embed/position/embedding",)),
        *block_rows("model/h{layer}/{part}", {
            "ln_1/g": ("norm_0/scale", "same"), "ln_1/b": ("norm_0/bias", "same"),
            "attn/c_attn/w": ("attend/q/kernel attend/k/kernel attend/v/kernel", "turned_1"),
            "attn/c_attn/b": ("attend/q/bias attend/k/bias attend/v/bias", "same"),
            "attn/c_proj/w": ("attend/o/kernel", "turned_1"), "attn/c_proj/b": ("attend/o/bias", "same"),
            "ln_2/g": ("norm_1/scale", "same"), "ln_2/b": ("norm_1/bias", "same"),
            "mlp/c_fc/w": ("mlp/up/kernel", "turned_1"), "mlp/c_fc/b": ("mlp/up/bias", "same"),
            "mlp/c_proj/w": ("mlp/down/kernel", "turned_1"), "mlp/c_proj/b": ("mlp/down/bias", "same"),
        }),
        Row("model/ln_f/g", ("norm/scale",)),
        Row("model/ln_f/b", ("norm/bias",)),
    ),
)  # fmt: skip
