"""T5 as transformers saves it: T5ForConditionalGeneration and MT5ForConditionalGeneration, config.json."""

from typing import Any

from convert.formats import t5
from convert.formats.table import Card, Drop, Format, Row, block_rows, choice, end_tokens, field, refuse_others, unknown
from flaxgen.models.t5_config import Config

HEAD, TABLE = "head/kernel", "embed/token/embedding"
ACTIVATIONS = {"relu": "relu", "gated-gelu": "gated_gelu"}
# Fields that change the mathematics, and the values of each that flaxgen computes.
WANTED = {"model_type": ("t5", "mt5"), "is_encoder_decoder": (True,), "is_decoder": (False,)}
KNOWN = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance", "dropout_rate", "layer_norm_epsilon", "feed_forward_proj", "tie_word_embeddings",
    "scale_decoder_outputs", "decoder_start_token_id", "pad_token_id", "eos_token_id", "architectures", "dense_act_fn", "is_gated_act",
    "initializer_factor", "use_cache", "classifier_dropout", "transformers_version", "torch_dtype", "dtype", "_name_or_path",
    "n_positions", "output_past", "task_specific_params", "tokenizer_class", *WANTED,
)  # fmt: skip


def reader(activation: str):
    """Reads transformers' T5Config and MT5Config, of a model whose tensors show this activation."""

    def read(json: dict[str, Any]) -> Card:
        refuse_others(json, WANTED)
        # transformers scales where it ties: by the older field where there is no newer one. mT5 never does.
        ties = json.get("tie_word_embeddings", True) is not False
        scale = json.get("scale_decoder_outputs")
        scales = (ties if scale is None else scale is not False) and json.get("model_type") != "mt5"
        if scales and not ties:
            raise ValueError("fields 'scale_decoder_outputs' true and 'tie_word_embeddings' false: flaxgen scales before a tied head only")
        layers = field(json, "num_layers", 6)
        start = json.get("decoder_start_token_id")
        config = Config(
            vocab=field(json, "vocab_size", 32128), width=field(json, "d_model", 512), heads=field(json, "num_heads", 8),
            head_width=field(json, "d_kv", 64), hidden=field(json, "d_ff", 2048), layers=layers, head="tied" if scales else "own",
            decoder_layers=field(json, "num_decoder_layers", layers),
            activation=choice(json, "feed_forward_proj", ACTIVATIONS, "gated-gelu" if json.get("model_type") == "mt5" else "relu"),
            buckets=field(json, "relative_attention_num_buckets", 32), distance=field(json, "relative_attention_max_distance", 128),
            epsilon=field(json, "layer_norm_epsilon", 1e-6), dropout=field(json, "dropout_rate", 0.1),
            start=field(json, "pad_token_id", 0) if start is None else start,
        )  # fmt: skip
        if config.activation != activation:
            raise ValueError(f"field 'feed_forward_proj' says {config.activation}; the tensors are those of {activation}")
        return Card(config, end_tokens(json, "eos_token_id", 1), unknown(json, KNOWN), tied=ties)

    return read


def write(card: Card) -> dict[str, Any]:
    config, ends = card.config, list(card.end or ())
    tied, gated = config.head == "tied", config.activation == "gated_gelu"
    return {
        "architectures": ["T5ForConditionalGeneration"], "d_ff": config.hidden, "d_kv": config.head_width, "d_model": config.width,
        "decoder_start_token_id": config.start, "dense_act_fn": "gelu_new" if gated else "relu", "dropout_rate": config.dropout,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None, "feed_forward_proj": "gated-gelu" if gated else "relu",
        "initializer_factor": 1.0, "is_encoder_decoder": True, "is_gated_act": gated, "layer_norm_epsilon": config.epsilon,
        "model_type": "t5", "num_decoder_layers": config.decoder_layers, "num_heads": config.heads, "num_layers": config.layers,
        "pad_token_id": 0, "relative_attention_max_distance": config.distance, "relative_attention_num_buckets": config.buckets,
        "scale_decoder_outputs": tied, "tie_word_embeddings": tied, "use_cache": True, "vocab_size": config.vocab,
    }  # fmt: skip


def _rows(kernels: dict[str, str]) -> tuple[Row, ...]:
    """kernels: those of the MLP."""
    rows = [Row("shared.weight", (TABLE,))]
    for side, attentions in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        foreign, under = f"{side}.block.{{layer}}.layer.{{part}}.weight", f"{side}/block_{{layer:02d}}/"
        rows.append(Row(f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (f"{side}/relative/embedding",)))
        for number, attention in enumerate(attentions):
            ours = {"SelfAttention": "attend", "EncDecAttention": "cross"}[attention]
            rows += block_rows(foreign, {
                f"{number}.layer_norm": (f"norm_{number}/scale", "same"),
                **{f"{number}.{attention}.{part}": (f"{ours}/{part}/kernel", "same") for part in "qkvo"},
            }, under)  # fmt: skip
        last = len(attentions)
        rows += block_rows(foreign, {
            f"{last}.layer_norm": (f"norm_{last}/scale", "same"),
            **{f"{last}.DenseReluDense.{name}": (f"mlp/{path}/kernel", "same") for name, path in kernels.items()},
        }, under)  # fmt: skip
        rows.append(Row(f"{side}.final_layer_norm.weight", (f"{side}/norm/scale",)))
    return tuple(rows)


def _format(name: str, title: str, activation: str) -> Format:
    """The head is what the JSON says; a lm_head.weight that is there beside a tied one is checked as a copy."""
    kernels = {"wi": "up", "wo": "down"} if activation == "relu" else {"wi_0": "gate", "wi_1": "up", "wo": "down"}
    return Format(
        name=name,
        title=title,
        container="safetensors",
        json_name="config.json",
        architecture="t5",
        read=reader(activation),
        write=write,
        holds={"activation": (activation,)},
        measures=t5.MEASURES,
        depths=t5.DEPTHS,
        rows=(*_rows(kernels), Row("lm_head.weight", (HEAD,))),
        ties={HEAD: TABLE},
        copies=dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), TABLE),
        drops=(Drop("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", "a table of distances that nothing reads"),),
    )


V1_0 = _format("t5-hf", "T5 1.0 (transformers)", "relu")
V1_1 = _format("t5.1.1-hf", "T5 1.1 and mT5 (transformers)", "gated_gelu")
