"""GPT-2 as transformers saves it: Conv1D kernels (in, out), query, key and value in one, config.json."""

from typing import Any

from convert.formats.table import PLAIN, Card, Drop, Format, Row, block_rows, choice, end_tokens, field, refuse_others
from flaxgen.models.config import Config

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
# Fields that change the mathematics, and the values of each that flaxgen computes.
WANTED = {"model_type": ("gpt2",), "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
          "tie_word_embeddings": (True,), "add_cross_attention": (False,)}  # fmt: skip


def read(json: dict[str, Any]) -> Card:
    """transformers' GPT2Config; absent fields have its defaults."""
    refuse_others(json, WANTED)
    width = field(json, "n_embd", 768)
    config = Config(
        vocab=field(json, "vocab_size", 50257), positions=field(json, "n_positions", 1024), width=width,
        layers=field(json, "n_layer", 12), heads=field(json, "n_head", 12),
        hidden=field(json, "n_inner", 4 * width if type(width) is int else width), wiring="pre",
        activation=choice(json, "activation_function", ACTIVATIONS, "gelu_new"), epsilon=field(json, "layer_norm_epsilon", 1e-5),
        dropout=field(json, "resid_pdrop", 0.1), init_range=field(json, "initializer_range", 0.02),
    )  # fmt: skip
    return Card(config, end_tokens(json, "eos_token_id"))


def write(card: Card) -> dict[str, Any]:
    config = card.config
    ends = list(card.end or ())
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": config.vocab, "n_positions": config.positions,
        "n_embd": config.width, "n_layer": config.layers, "n_head": config.heads, "n_inner": config.hidden,
        "activation_function": "gelu_new" if config.activation == "gelu_tanh" else "gelu", "layer_norm_epsilon": config.epsilon,
        "resid_pdrop": config.dropout, "embd_pdrop": config.dropout, "attn_pdrop": config.dropout, "initializer_range": config.init_range,
        "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True,
        "bos_token_id": ends[0] if ends else None, "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
    }  # fmt: skip


FORMAT = Format(
    name="gpt2-hf",
    title="GPT-2 (transformers)",
    container="safetensors",
    json_name="config.json",
    holds=PLAIN | {"wiring": ("pre",), "activation": ("gelu_tanh", "gelu")},
    default="gelu_tanh",
    read=read,
    write=write,
    prefix="transformer.",
    copies={"lm_head.weight": "embed/token/embedding"},
    rows=(
        Row("transformer.wte.weight", ("embed/token/embedding",)),
        Row("transformer.wpe.weight", ("embed/position/embedding",)),
        *block_rows("transformer.h.{layer}.{part}", {
            "ln_1.weight": ("norm_0/scale", "same"), "ln_1.bias": ("norm_0/bias", "same"),
            "attn.c_attn.weight": ("attend/q/kernel attend/k/kernel attend/v/kernel", "turned"),
            "attn.c_attn.bias": ("attend/q/bias attend/k/bias attend/v/bias", "same"),
            "attn.c_proj.weight": ("attend/o/kernel", "turned"), "attn.c_proj.bias": ("attend/o/bias", "same"),
            "ln_2.weight": ("norm_1/scale", "same"), "ln_2.bias": ("norm_1/bias", "same"),
            "mlp.c_fc.weight": ("mlp/up/kernel", "turned"), "mlp.c_fc.bias": ("mlp/up/bias", "same"),
            "mlp.c_proj.weight": ("mlp/down/kernel", "turned"), "mlp.c_proj.bias": ("mlp/down/bias", "same"),
        }),
        Row("transformer.ln_f.weight", ("norm/scale",)),
        Row("transformer.ln_f.bias", ("norm/bias",)),
    ),
    drops=(
        Drop("transformer.h.{layer}.attn.bias", "the causal mask as a constant"),
        Drop("transformer.h.{layer}.attn.masked_bias", "the masked score as a constant"),
    ),
)  # fmt: skip
