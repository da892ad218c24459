"""GPT2_ML as released (imcaspar/gpt2-ml), and as bert4keras saves it: the same names."""

from typing import Any

from convert.formats.table import PLAIN, TENSORFLOW, Card, Drop, Format, Row, block_rows, choice, field
from flaxgen.models.config import Config

# The JSON's hidden_act "gelu" is the erf form in both sources.
ACTIVATIONS = {"gelu": "gelu"}


def read(json: dict[str, Any]) -> Card:
    """The keys of imcaspar's configs/*.json; attention's dropout is commented out there, so the hidden one is meant."""
    return Card(Config(
        vocab=field(json, "vocab_size"), positions=field(json, "max_position_embeddings"), width=field(json, "hidden_size"),
        layers=field(json, "num_hidden_layers"), heads=field(json, "num_attention_heads"), hidden=field(json, "intermediate_size"),
        wiring="between", activation=choice(json, "hidden_act", ACTIVATIONS, "gelu"), dropout=field(json, "hidden_dropout_prob", 0.1),
        init_range=field(json, "initializer_range", 0.02),
    ))  # fmt: skip


def write(card: Card) -> dict[str, Any]:
    config = card.config
    if config.epsilon != 1e-5:
        raise ValueError(f"epsilon {config.epsilon}; the format has 1e-05 built in")
    return {
        "vocab_size": config.vocab, "hidden_size": config.width, "attention_probs_dropout_prob": config.dropout,
        "hidden_dropout_prob": config.dropout, "hidden_act": "gelu", "initializer_range": config.init_range,
        "intermediate_size": config.hidden, "max_position_embeddings": config.positions, "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
    }  # fmt: skip


_dense, _norm = TENSORFLOW.dense, TENSORFLOW.norm

FORMAT = Format(
    name="gpt2-ml",
    title="GPT2_ML (imcaspar's TensorFlow checkpoints, bert4keras's gpt2_ml)",
    container="bundle",
    json_name="config.json",
    holds=PLAIN | {"wiring": ("between",), "activation": ("gelu",)},
    default="gelu",
    read=read,
    write=write,
    rows=(
        Row("newslm/embeddings/word_embed", ("embed/token/embedding",)),
        Row("newslm/embeddings/pos_embed", ("embed/position/embedding",)),
        Row("newslm/embeddings/LayerNorm_embed_norm/gamma", ("embed/norm/scale",)),
        Row("newslm/embeddings/LayerNorm_embed_norm/beta", ("embed/norm/bias",)),
        *block_rows("newslm/layer{layer:02d}/{part}", {
            **_dense("query_layer", "attend/q"), **_dense("key_layer", "attend/k"), **_dense("value_layer", "attend/v"),
            **_dense("context_projection_layer", "attend/o"), **_norm("LayerNorm_mlp_ln0", "norm_0"),
            **_dense("intermediate", "mlp/up"), **_dense("output", "mlp/down"), **_norm("LayerNorm_mlp_ln1", "norm_1"),
        }),
    ),
    drops=(
        Drop("{of}/adafactor_vr", "AdaFactor's row moments"),
        Drop("{of}/adafactor_vc", "AdaFactor's column moments"),
        Drop("{of}/adafactor_v", "AdaFactor's moments"),
        Drop("global_step", "the step of its training"),
    ),
)  # fmt: skip
