"""BERT and its kin as transformers saves them: kernels (out, in), the body's names under a prefix that the bare encoders lack."""

import dataclasses
from typing import Any

import numpy as np

from convert.formats import encoder_json
from convert.formats.bert_tf import CHOICES
from convert.formats.table import TRANSFORMERS, Card, Drop, Format, Parts, Row, block_rows, rows_of
from flaxgen.models.config import Config

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
FARTHEST = 64
BODY = ((), ("pool",))
TABLES = {"word_embeddings": "token", "position_embeddings": "position", "token_type_embeddings": "segment"}
OLD_NORMS = ((".gamma", ".weight"), (".beta", ".bias"))


_dense, _norm = TRANSFORMERS.dense, TRANSFORMERS.norm
LAYER = {
    **_dense("attention.self.query", "attend/q"), **_dense("attention.self.key", "attend/k"), **_dense("attention.self.value", "attend/v"),
    **_dense("attention.output.dense", "attend/o"), **_norm("attention.output.LayerNorm", "norm_0"),
    **_dense("intermediate.dense", "mlp/up"), **_dense("output.dense", "mlp/down"), **_norm("output.LayerNorm", "norm_1"),
}  # fmt: skip
SHARED = {
    **_dense("attention.query", "attend/q"), **_dense("attention.key", "attend/k"), **_dense("attention.value", "attend/v"),
    **_dense("attention.dense", "attend/o"), **_norm("attention.LayerNorm", "norm_0"), **_dense("ffn", "mlp/up"),
    **_dense("ffn_output", "mlp/down"), **_norm("full_layer_layer_norm", "norm_1"),
}  # fmt: skip
MLM = {**_dense("cls.predictions.transform.dense", "mlm/dense"), **_norm("cls.predictions.transform.LayerNorm", "mlm/norm"),
       "cls.predictions.bias": ("mlm/bias", "same")}  # fmt: skip
NSP = _dense("cls.seq_relationship", "nsp/dense")
COPIES = {"cls.predictions.decoder.weight": "embed/token/embedding", "cls.predictions.decoder.bias": "mlm/bias"}


def _embeddings(name: str, mapped: str, tables: tuple[str, ...] = tuple(TABLES)) -> tuple[Row, ...]:
    parts: Parts = {f"{name}.embeddings.{table}.weight": (f"embed/{TABLES[table]}/embedding", "same") for table in tables}
    return rows_of(
        parts | _norm(f"{name}.embeddings.LayerNorm", "embed/norm") | (_dense(f"{name}.{mapped}", "embed/map") if mapped else {})
    )


def halves(shape: tuple[int, ...]) -> np.ndarray | None:
    """RoFormer's table: sines of position / 10000^(2 i / K), then their cosines."""
    if len(shape) != 2 or shape[1] % 2:
        return None
    angle_NK = np.arange(shape[0])[:, None] / 10000.0 ** (2 * np.arange(shape[1] // 2) / shape[1])
    return np.concatenate([np.sin(angle_NK), np.cos(angle_NK)], axis=1)


def distances(shape: tuple[int, ...]) -> np.ndarray | None:
    """NEZHA's table of each pair of positions: of their distance, at most FARTHEST, sines and cosines in turn."""
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] % 2:
        return None
    angle_NK = np.arange(2 * FARTHEST + 1)[:, None] / 10000.0 ** (2 * np.arange(shape[2] // 2) / shape[2])
    table_NK = np.stack([np.sin(angle_NK), np.cos(angle_NK)], axis=2).reshape(len(angle_NK), -1).astype(np.float32)
    place_T = np.arange(shape[0])
    return table_NK[np.clip(place_T[None] - place_T[:, None], -FARTHEST, FARTHEST) + FARTHEST]


@dataclasses.dataclass(frozen=True)
class Writer:
    """Card -> config.json of a model type. heads: the classes by the outputs that they have; embedding: it always says embedding_size."""

    model_type: str
    heads: tuple[tuple[str, str], ...]
    body: str
    embedding: bool = False
    more: tuple[tuple[str, Any], ...] = ()

    def __call__(self, card: Card) -> dict[str, Any]:
        config = card.config
        of = next((of for head, of in self.heads if set(head.split()) <= set(config.outputs)), self.body)
        fields = encoder_json.said(config, ACTIVATIONS, embedding=self.embedding)
        return {"architectures": [of], "model_type": self.model_type, **fields, "layer_norm_eps": config.epsilon, "pad_token_id": 0,
                "is_decoder": config.application == "lm", "tie_word_embeddings": True, **dict(self.more)}  # fmt: skip


def _format(name: str, title: str, rows: tuple[Row, ...], writer: Writer, choices: dict[str, Any], **more) -> Format:
    """choices: fields of Config beside those of BERT; more: fields of Format beside those of bert-hf."""
    choices = CHOICES | choices
    wanted = {"model_type": (writer.model_type,)} | more.pop("wanted", {})
    prefix = f"{writer.model_type}."
    drops = (
        Drop(f"{prefix}embeddings.position_ids", "positions as a constant"),
        Drop(f"{prefix}embeddings.token_type_ids", "zeros as a constant"),
    )
    held = {field: (value,) for field, value in choices.items() if field != "application"} | more.pop("holds", {})
    read = encoder_json.Reader(choices, wanted, says_epsilon=True, activation=more.pop("activation", "gelu"))
    common = {"outputs": ("mlm", "pool", "nsp"), "bare": BODY, "copies": COPIES}
    return Format(name=name, title=f"{title} (transformers)", container="safetensors", json_name="config.json", default="gelu", rows=rows,
                  read=read, write=writer, holds={"wiring": ("post",), **held},
                  prefix=prefix, spellings=OLD_NORMS, drops=(*drops, *more.pop("drops", ())), **common | more)  # fmt: skip


def _equal_widths(config: Config) -> str:
    if config.embedding != config.width:
        return ""
    return f"embedding and hidden size are both {config.width}: transformers has a map between them even then, flaxgen has none"


def _generates_with_another(config: Config) -> str:
    if "mlm" not in config.outputs or config.activation == "gelu":
        return ""
    return f"its activation is {config.activation!r} throughout; transformers' generator has 'gelu' in its head whatever hidden_act is"


def _heads(stem: str) -> tuple[tuple[str, str], ...]:
    return (("mlm pool nsp", f"{stem}ForPreTraining"), ("mlm", f"{stem}ForMaskedLM"), ("nsp", f"{stem}ForNextSentencePrediction"))


def _layers(name: str) -> tuple[Row, ...]:
    return block_rows(f"{name}.encoder.layer.{{layer}}.{{part}}", LAYER)


BERT = _format(
    "bert-hf", "BERT", (*_embeddings("bert", ""), *_layers("bert"), *rows_of(_dense("bert.pooler.dense", "pool/dense") | NSP | MLM)),
    Writer("bert", _heads("Bert"), "BertModel"), {},
)  # fmt: skip
NEZHA = _format(
    "nezha-hf", "NEZHA", (*_embeddings("nezha", "", ("word_embeddings", "token_type_embeddings")), *_layers("nezha"),
                          *rows_of(_dense("nezha.pooler.dense", "pool/dense") | NSP | MLM)),
    Writer("nezha", _heads("Nezha"), "NezhaModel", more=(("max_relative_position", 64), ("use_relative_position", True))),
    {"position": "relative"}, wanted={"use_relative_position": (True,)},
    drops=(Drop("nezha.encoder.layer.{layer}.attention.self.relative_positions_encoding.positions_encoding", "sines", distances),),
)  # fmt: skip
ROFORMER = _format(
    "roformer-hf", "RoFormer", (*_embeddings("roformer", "embeddings_project", ("word_embeddings", "token_type_embeddings")),
                                *_layers("roformer"), *rows_of(MLM)),
    Writer("roformer", (("mlm", "RoFormerForMaskedLM"),), "RoFormerModel", embedding=True, more=(("rotary_value", False),)),
    {"position": "rotary"}, outputs=("mlm",), drops=(Drop("roformer.encoder.embed_positions.weight", "sines", halves),),
)  # fmt: skip
ELECTRA = _format(
    "electra-hf", "ELECTRA, generator or discriminator",
    (*_embeddings("electra", "embeddings_project"), *_layers("electra"), *rows_of({
        **_dense("generator_predictions.dense", "mlm/dense"), **_norm("generator_predictions.LayerNorm", "mlm/norm"),
        "generator_lm_head.bias": ("mlm/bias", "same"), **_dense("discriminator_predictions.dense", "discriminator/dense"),
        **_dense("discriminator_predictions.dense_prediction", "discriminator/out"),
    })),
    Writer("electra", (("discriminator", "ElectraForPreTraining"), ("mlm", "ElectraForMaskedLM")), "ElectraModel", embedding=True),
    {}, outputs=("mlm", "discriminator"), clash=_generates_with_another, bare=((),),
    copies={"generator_lm_head.weight": "embed/token/embedding"},
)  # fmt: skip
ALBERT = _format(
    "albert-hf", "ALBERT",
    (*_embeddings("albert", "encoder.embedding_hidden_mapping_in"),
     *block_rows("albert.encoder.albert_layer_groups.0.albert_layers.0.{part}", SHARED), *rows_of({
         **_dense("albert.pooler", "pool/dense"), **_dense("sop_classifier.classifier", "nsp/dense"),
         **_dense("predictions.dense", "mlm/dense"), **_norm("predictions.LayerNorm", "mlm/norm"), "predictions.bias": ("mlm/bias", "same"),
     })),
    Writer("albert", (("mlm pool nsp", "AlbertForPreTraining"), ("mlm", "AlbertForMaskedLM")), "AlbertModel", embedding=True,
           more=(("num_hidden_groups", 1), ("inner_group_num", 1))),
    {"sharing": "all"}, activation="gelu_new", clash=_equal_widths, holds={"sharing": ("all", "none")},
    copies={"predictions.decoder.weight": "embed/token/embedding", "predictions.decoder.bias": "mlm/bias"},
)  # fmt: skip
FORMATS = (BERT, ALBERT, NEZHA, ROFORMER, ELECTRA)
