"""GPT-2 as bert4keras saves it, with the names of the CPM checkpoints: separate query, key and value, the erf form of gelu."""

import dataclasses

from convert.formats import gpt2_ml
from convert.formats.table import PLAIN, Card, Format, Row, block_rows


def read(json: dict) -> Card:
    """The keys are those of GPT2_ML; only the wiring differs."""
    return Card(dataclasses.replace(gpt2_ml.read(json).config, wiring="pre", embedding_norm=None))


FORMAT = Format(
    name="gpt2-bert4keras",
    title="GPT-2 (bert4keras, CPM)",
    container="bundle",
    json_name="config.json",
    holds=PLAIN | {"wiring": ("pre",), "activation": ("gelu",)},
    default="gelu",
    read=read,
    write=gpt2_ml.write,
    rows=(
        Row("gpt/embeddings/word_embeddings", ("embed/token/embedding",)),
        Row("gpt/embeddings/position_embeddings", ("embed/position/embedding",)),
        *block_rows("gpt/transformer/layer_{layer}/{part}", {
            "attention/input/LayerNorm/gamma": ("norm_0/scale", "same"), "attention/input/LayerNorm/beta": ("norm_0/bias", "same"),
            "attention/self/query/kernel": ("attend/q/kernel", "turned"), "attention/self/query/bias": ("attend/q/bias", "same"),
            "attention/self/key/kernel": ("attend/k/kernel", "turned"), "attention/self/key/bias": ("attend/k/bias", "same"),
            "attention/self/value/kernel": ("attend/v/kernel", "turned"), "attention/self/value/bias": ("attend/v/bias", "same"),
            "attention/output/dense/kernel": ("attend/o/kernel", "turned"), "attention/output/dense/bias": ("attend/o/bias", "same"),
            "input/LayerNorm/gamma": ("norm_1/scale", "same"), "input/LayerNorm/beta": ("norm_1/bias", "same"),
            "intermediate/dense/kernel": ("mlp/up/kernel", "turned"), "intermediate/dense/bias": ("mlp/up/bias", "same"),
            "output/dense/kernel": ("mlp/down/kernel", "turned"), "output/dense/bias": ("mlp/down/bias", "same"),
        }),
        Row("gpt/output/LayerNorm/gamma", ("norm/scale",)),
        Row("gpt/output/LayerNorm/beta", ("norm/bias",)),
    ),
)  # fmt: skip
