"""BERT and its kin as transformers saves them: kernels (out, in), the body's names under a prefix that the bare encoders lack."""

import dataclasses
from typing import Any

from convert.formats import encoder_json
from convert.formats.bert_tf import CHOICES
from convert.formats.table import Card, Drop, Format, Layout, Row, block_rows

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
BODY = ((), ("pool",))
TABLES = {"word_embeddings": "token", "position_embeddings": "position", "token_type_embeddings": "segment"}
OLD_NORMS = ((".gamma", ".weight"), (".beta", ".bias"))
Parts = dict[str, tuple[str, Layout]]


def _dense(foreign: str, path: str) -> Parts:
    return {f"{foreign}.weight": (f"{path}/kernel", "same"), f"{foreign}.bias": (f"{path}/bias", "same")}


def _norm(foreign: str, path: str) -> Parts:
    return {f"{foreign}.weight": (f"{path}/scale", "same"), f"{foreign}.bias": (f"{path}/bias", "same")}


def _rows(parts: Parts) -> tuple[Row, ...]:
    return tuple(Row(foreign, (path,), layout) for foreign, (path, layout) in parts.items())


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
    return _rows(parts | _norm(f"{name}.embeddings.LayerNorm", "embed/norm") | (_dense(f"{name}.{mapped}", "embed/map") if mapped else {}))


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
    held |= {"activation": wanted["hidden_act"]} if "hidden_act" in wanted else {}
    common = {"outputs": ("mlm", "pool", "nsp"), "bare": BODY, "copies": COPIES}
    return Format(name=name, title=f"{title} (transformers)", container="safetensors", json_name="config.json", default="gelu", rows=rows,
                  read=encoder_json.Reader(choices, wanted, says_epsilon=True), write=writer, holds={"wiring": ("post",), **held},
                  prefix=prefix, spellings=OLD_NORMS, drops=(*drops, *more.pop("drops", ())), **common | more)  # fmt: skip


def _heads(stem: str) -> tuple[tuple[str, str], ...]:
    return (("mlm pool nsp", f"{stem}ForPreTraining"), ("mlm", f"{stem}ForMaskedLM"), ("nsp", f"{stem}ForNextSentencePrediction"))


def _layers(name: str) -> tuple[Row, ...]:
    return block_rows(f"{name}.encoder.layer.{{layer}}.{{part}}", LAYER)


BERT = _format(
    "bert-hf", "BERT", (*_embeddings("bert", ""), *_layers("bert"), *_rows(_dense("bert.pooler.dense", "pool/dense") | NSP | MLM)),
    Writer("bert", _heads("Bert"), "BertModel"), {},
)  # fmt: skip
NEZHA = _format(
    "nezha-hf", "NEZHA", (*_embeddings("nezha", "", ("word_embeddings", "token_type_embeddings")), *_layers("nezha"),
                          *_rows(_dense("nezha.pooler.dense", "pool/dense") | NSP | MLM)),
    Writer("nezha", _heads("Nezha"), "NezhaModel", more=(("max_relative_position", 64), ("use_relative_position", True))),
    {"position": "relative"}, wanted={"use_relative_position": (True,)},
    drops=(Drop("nezha.encoder.layer.{layer}.attention.self.relative_positions_encoding.positions_encoding", "sines as a constant"),),
)  # fmt: skip
ROFORMER = _format(
    "roformer-hf", "RoFormer", (*_embeddings("roformer", "embeddings_project", ("word_embeddings", "token_type_embeddings")),
                                *_layers("roformer"), *_rows(MLM)),
    Writer("roformer", (("mlm", "RoFormerForMaskedLM"),), "RoFormerModel", embedding=True, more=(("rotary_value", False),)),
    {"position": "rotary"}, outputs=("mlm",), drops=(Drop("roformer.encoder.embed_positions.weight", "sines as a constant"),),
)  # fmt: skip
ELECTRA = _format(
    "electra-hf", "ELECTRA, generator or discriminator",
    (*_embeddings("electra", "embeddings_project"), *_layers("electra"), *_rows({
        **_dense("generator_predictions.dense", "mlm/dense"), **_norm("generator_predictions.LayerNorm", "mlm/norm"),
        "generator_lm_head.bias": ("mlm/bias", "same"), **_dense("discriminator_predictions.dense", "discriminator/dense"),
        **_dense("discriminator_predictions.dense_prediction", "discriminator/out"),
    })),
    Writer("electra", (("discriminator", "ElectraForPreTraining"), ("mlm", "ElectraForMaskedLM")), "ElectraModel", embedding=True),
    {}, outputs=("mlm", "discriminator"), wanted={"hidden_act": ("gelu",)}, bare=((),),
    copies={"generator_lm_head.weight": "embed/token/embedding"},
)  # fmt: skip
ALBERT = _format(
    "albert-hf", "ALBERT",
    (*_embeddings("albert", "encoder.embedding_hidden_mapping_in"),
     *block_rows("albert.encoder.albert_layer_groups.0.albert_layers.0.{part}", SHARED), *_rows({
         **_dense("albert.pooler", "pool/dense"), **_dense("sop_classifier.classifier", "nsp/dense"),
         **_dense("predictions.dense", "mlm/dense"), **_norm("predictions.LayerNorm", "mlm/norm"), "predictions.bias": ("mlm/bias", "same"),
     })),
    Writer("albert", (("mlm pool nsp", "AlbertForPreTraining"), ("mlm", "AlbertForMaskedLM")), "AlbertModel", embedding=True,
           more=(("num_hidden_groups", 1), ("inner_group_num", 1))),
    {"sharing": "all"}, holds={"sharing": ("all", "none")},
    copies={"predictions.decoder.weight": "embed/token/embedding", "predictions.decoder.bias": "mlm/bias"},
)  # fmt: skip
FORMATS = (BERT, ALBERT, NEZHA, ROFORMER, ELECTRA)
