"""BERT and its kin as Google's code and bert4keras save them in TensorFlow's checkpoints.

bert (RoBERTa in Chinese is the same), albert, nezha, roformer, roformer-v2, electra, gpt. NEZHA and RoFormer have the same names and
shapes.
"""

import dataclasses
from typing import Any

from convert.formats import encoder_json
from convert.formats.table import TENSORFLOW, Card, Drop, Format, Parts, Row, block_rows, rows_of

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "relu": "relu"}
NAMES = ("bert_config.json", "config.json")
CHOICES = {"position": "learned", "norm": "layer", "sharing": "none", "embedding_norm": "layer", "application": "encoder"}
DROPS = (
    Drop("{of}/adam_m", "Adam's mean of gradients"),
    Drop("{of}/adam_v", "Adam's mean of squares"),
    Drop("global_step", "the step of its training"),
    Drop("beta1_power", "Adam's count of steps"),
    Drop("beta2_power", "Adam's count of steps"),
)


_dense, _norm = TENSORFLOW.dense, TENSORFLOW.norm
LAYER = {
    **_dense("attention/self/query", "attend/q"), **_dense("attention/self/key", "attend/k"), **_dense("attention/self/value", "attend/v"),
    **_dense("attention/output/dense", "attend/o"), **_norm("attention/output/LayerNorm", "norm_0"),
    **_dense("intermediate/dense", "mlp/up"), **_dense("output/dense", "mlp/down"), **_norm("output/LayerNorm", "norm_1"),
}  # fmt: skip
SHARED = {
    **_dense("attention_1/self/query", "attend/q"), **_dense("attention_1/self/key", "attend/k"),
    **_dense("attention_1/self/value", "attend/v"), **_dense("attention_1/output/dense", "attend/o"), **_norm("LayerNorm", "norm_0"),
    **_dense("ffn_1/intermediate/dense", "mlp/up"), **_dense("ffn_1/intermediate/output/dense", "mlp/down"),
    **_norm("LayerNorm_1", "norm_1"),
}  # fmt: skip
HEADS = rows_of({
    **_dense("bert/pooler/dense", "pool/dense"), "cls/seq_relationship/output_weights": ("nsp/dense/kernel", "same"),
    "cls/seq_relationship/output_bias": ("nsp/dense/bias", "same"), **_dense("cls/predictions/transform/dense", "mlm/dense"),
    **_norm("cls/predictions/transform/LayerNorm", "mlm/norm"), "cls/predictions/output_bias": ("mlm/bias", "same"),
})  # fmt: skip


def _embeddings(name: str, mapped: str, position: str) -> tuple[Row, ...]:
    parts: Parts = {f"{name}/embeddings/word_embeddings": ("embed/token/embedding", "same")}
    if position == "learned":
        parts[f"{name}/embeddings/position_embeddings"] = ("embed/position/embedding", "same")
    parts[f"{name}/embeddings/token_type_embeddings"] = ("embed/segment/embedding", "same")
    return rows_of(parts | _norm(f"{name}/embeddings/LayerNorm", "embed/norm") | _dense(mapped, "embed/map"))


def write(card: Card, *, embedding: bool = False) -> dict[str, Any]:
    config = card.config
    if config.epsilon != 1e-12:
        raise ValueError(f"epsilon {config.epsilon}; the format has 1e-12 built in")
    return encoder_json.said(config, ACTIVATIONS, embedding=embedding)


def write_with_embedding(card: Card) -> dict[str, Any]:
    return write(card, embedding=True)


def _format(name: str, title: str, rows: tuple[Row, ...], choices: dict[str, Any], **more) -> Format:
    choices = CHOICES | choices
    held = {field: (value,) for field, value in choices.items() if field != "application"} | more.pop("holds", {})
    read = encoder_json.Reader(choices, more.pop("wanted", {}), says_epsilon=False)
    common = {"json_name": NAMES[0], "other_names": NAMES[1:], "write": write, "outputs": ("mlm", "pool", "nsp"), "drops": DROPS}
    return Format(name=name, title=f"{title} (TensorFlow checkpoints of Google's code and bert4keras)", container="bundle", default="gelu",
                  rows=rows, read=read, holds={"wiring": ("post",), **held}, **common | more)  # fmt: skip


MAPPED = "bert/encoder/embedding_hidden_mapping_in"
LAYERS = block_rows("bert/encoder/layer_{layer}/{part}", LAYER)
BERT = _format("bert", "BERT, RoBERTa", (*_embeddings("bert", MAPPED, "learned"), *LAYERS, *HEADS), {})
_relative = (*_embeddings("bert", MAPPED, "relative"), *LAYERS, *HEADS)
NEZHA = _format("nezha", "NEZHA", _relative, {"position": "relative"}, wanted={"use_relative_position": (True,)})
ROFORMER = _format("roformer", "RoFormer", _relative, {"position": "rotary"}, write=write_with_embedding)
ROFORMER_V2 = _format(
    "roformer-v2", "RoFormer v2", tuple(row for row in (*_embeddings("bert", MAPPED, "rotary"), *LAYERS)
                                        if not row.foreign.endswith(("/bias", "/gamma", "/beta"))),
    {"position": "rotary", "norm": "bare"}, outputs=("tied",), write=write_with_embedding,
)  # fmt: skip
ALBERT = _format(
    "albert", "ALBERT",
    (*_embeddings("bert", MAPPED, "learned"), *block_rows("bert/encoder/transformer/group_0/inner_group_0/{part}", SHARED), *HEADS),
    {"sharing": "all"}, write=write_with_embedding, json_name="albert_config.json", other_names=NAMES,
    holds={"sharing": ("all", "none")},  # layers of their own are compared when they are written
)  # fmt: skip
ALBERT_UNSHARED = dataclasses.replace(
    ALBERT, name="albert-unshared", title="ALBERT with layers of their own, as bert4keras's albert_unshared reads it", container=None,
    asked=True, read=BERT.read,
)  # fmt: skip
ELECTRA = _format(
    "electra", "ELECTRA's discriminator",
    (*_embeddings("electra", "electra/embeddings_project", "learned"), *block_rows("electra/encoder/layer_{layer}/{part}", LAYER),
     *rows_of(_dense("discriminator_predictions/dense", "discriminator/dense")),
     *rows_of(_dense("discriminator_predictions/dense_1", "discriminator/out"))),
    {}, outputs=("discriminator",), write=write_with_embedding, other_names=("electra_config.json", *NAMES[1:]),
    drops=(*DROPS, Drop("generator/{rest}", "ELECTRA's generator"), Drop("generator_predictions/{rest}", "ELECTRA's generator")),
)  # fmt: skip
GPT = _format(
    "gpt", "GPT",
    tuple(row for row in (*_embeddings("gpt", "gpt/transformer/embedding_hidden_mapping_in", "learned"),
                          *block_rows("gpt/transformer/layer_{layer}/{part}", LAYER)) if not row.paths[0].startswith("embed/norm")),
    {"embedding_norm": "none", "application": "lm"}, outputs=("tied",),
)  # fmt: skip
FORMATS = (BERT, ALBERT, ALBERT_UNSHARED, NEZHA, ROFORMER, ROFORMER_V2, ELECTRA, GPT)
