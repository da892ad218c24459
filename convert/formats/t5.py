"""T5 as Google released it (text-to-text-transfer-transformer, multilingual-t5): mesh-tensorflow's names, operative_config.gin."""

from typing import Any

from convert import gin
from convert.formats.table import Card, Drop, Format, Row, block_rows
from flaxgen.models.t5_config import Config

# gin's name -> ours; the later of two that are there holds.
NAMES = (("d_model", "width"), ("d_kv", "head_width"), ("d_ff", "hidden"), ("num_heads", "heads"), ("num_layers", "layers"),
         ("num_layers", "decoder_layers"), ("encoder/num_layers", "layers"), ("decoder/num_layers", "decoder_layers"),
         ("dropout_rate", "dropout"))  # fmt: skip
SHOWN = ("vocab", "width", "heads", "buckets", "hidden", "layers", "decoder_layers")  # by the tensors
END = (1,)  # in every vocabulary of T5
MEASURES = {"embed/token/embedding": ("vocab", "width"), "encoder/relative/embedding": ("buckets", "heads"),
            "encoder/block_00/attend/q/kernel": ("inner",), "encoder/block_00/mlp/up/kernel": ("hidden",)}  # fmt: skip
DEPTHS = {"encoder/block_": "layers", "decoder/block_": "decoder_layers"}
DROPS = (
    Drop("{of}_slot_vr", "AdaFactor's row moments"),
    Drop("{of}_slot_vc", "AdaFactor's column moments"),
    Drop("{of}_slot_v", "AdaFactor's moments"),
    Drop("global_step", "the step of its training"),
)


def reader(activation: str, head: str):
    """Reads the sizes that the tensors show, and those of gin where it lies beside them; names of tensors tell the versions apart."""

    def read(json: dict[str, Any]) -> Card:
        sizes = {name: json[name] for name in SHOWN if name in json}
        if json.get("heads") and "inner" in json:
            sizes["head_width"] = json["inner"] // json["heads"]
        sizes |= {ours: json[theirs] for theirs, ours in NAMES if theirs in json}
        missing = [name for name in (*SHOWN, "head_width") if name not in sizes]
        if missing:
            raise ValueError(f"{', '.join(missing)} cannot be read off the tensors, some of which are missing")
        return Card(Config(activation=activation, head=head, **sizes), END)

    return read


def write(card: Card) -> dict[str, Any]:
    config = card.config
    if config.epsilon != 1e-6 or config.distance != 128 or config.start != 0:
        raise ValueError(
            f"epsilon {config.epsilon}, distance {config.distance} and start {config.start}; the format has 1e-06, 128 and 0 built in"
        )
    sizes = {"d_model": config.width, "d_kv": config.head_width, "d_ff": config.hidden, "num_layers": config.layers}
    if config.decoder_layers != config.layers:
        sizes |= {"encoder/make_layer_stack.num_layers": config.layers, "decoder/make_layer_stack.num_layers": config.decoder_layers}
    return sizes | {"num_heads": config.heads} | ({} if config.dropout == 0.1 else {"dropout_rate": config.dropout})


def _rows(kernels: dict[str, str], norm: str, final_norm: str) -> tuple[Row, ...]:
    """kernels: those of the MLP; norm, final_norm: their names, which changed once."""
    rows = [Row("shared/embedding", ("embed/token/embedding",))]
    for side, attentions in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        foreign, under = f"{side}/block_{{layer:03d}}/{{part}}", f"{side}/block_{{layer:02d}}/"
        first = f"{side}/block_000/layer_000/SelfAttention/relative_attention_bias"
        rows.append(Row(first, (f"{side}/relative/embedding",), "turned"))
        for number, attention in enumerate(attentions):
            ours = {"SelfAttention": "attend", "EncDecAttention": "cross"}[attention]
            rows += block_rows(foreign, {
                f"layer_{number:03d}/{norm}/scale": (f"norm_{number}/scale", "same"),
                **{f"layer_{number:03d}/{attention}/{part}": (f"{ours}/{part}/kernel", "turned") for part in "qkvo"},
            }, under)  # fmt: skip
        last = len(attentions)
        rows += block_rows(foreign, {
            f"layer_{last:03d}/{norm}/scale": (f"norm_{last}/scale", "same"),
            **{f"layer_{last:03d}/DenseReluDense/{name}/kernel": (f"mlp/{path}/kernel", "turned") for name, path in kernels.items()},
        }, under)  # fmt: skip
        rows.append(Row(f"{side}/{final_norm}/scale", (f"{side}/norm/scale",)))
    return tuple(rows)


def _format(name: str, title: str, activation: str, head: str, norm: str, final_norm: str) -> Format:
    kernels = {"wi": "up", "wo": "down"} if activation == "relu" else {"wi_0": "gate", "wi_1": "up", "wo": "down"}
    own = (Row("decoder/logits/kernel", ("head/kernel",), "turned"),) if head == "own" else ()
    return Format(
        name=name,
        title=title,
        container="bundle",
        json_name="operative_config.gin",
        architecture="t5",
        parse=gin.parser(tuple(dict.fromkeys(theirs.rpartition("/")[2] for theirs, _ in NAMES))),
        render=gin.render,
        read=reader(activation, head),
        write=write,
        holds={"activation": (activation,), "head": (head,)},
        measures=MEASURES,
        depths=DEPTHS,
        measured=True,
        rows=_rows(kernels, norm, final_norm) + own,
        drops=DROPS,
    )


V1_0 = _format("t5", "T5 1.0 (Google's TensorFlow checkpoints)", "relu", "tied", "layer_norm", "final_layer_norm")
V1_1 = _format("t5.1.1", "T5 1.1 (Google's TensorFlow checkpoints)", "gated_gelu", "own", "layer_norm", "final_layer_norm")
MULTILINGUAL = _format("mt5", "mT5 (Google's TensorFlow checkpoints)", "gated_gelu", "own", "rms_norm", "rms_norm")
