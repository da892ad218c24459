"""What the JSON beside BERT and its kin says, with Google's keys, bert4keras's and transformers': one vocabulary of fields, read whole."""

import dataclasses
from typing import Any

from convert.formats import table
from convert.formats.table import Card, field
from flaxgen.models.config import Config

ACTIVATIONS = {"gelu": "gelu", "gelu_erf": "gelu", "gelu_new": "gelu_tanh", "gelu_tanh": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
               "relu": "relu"}  # fmt: skip
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "max_position",
         "max_position_embeddings", "segment_vocab_size", "type_vocab_size", "embedding_size", "dropout_rate", "hidden_dropout_prob",
         "attention_dropout_rate", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps", "attention_head_size",
         "attention_key_size")  # fmt: skip
# Fields that change the mathematics, and the values of each that flaxgen computes.
WANTED = {"hierarchical_position": (None, False), "shared_segment_embeddings": (None, False), "residual_attention_scores": (None, False),
          "use_relative_position": (False,), "position_embedding_type": ("absolute",), "rotary_value": (False,), "num_hidden_groups": (1,),
          "inner_group_num": (1,), "net_structure_type": (0,), "num_memory_blocks": (0,), "gap_size": (0,), "ln_type": ("postln",),
          "add_cross_attention": (False,), "is_encoder_decoder": (False,), "pruned_heads": (None, {}),
          "max_relative_position": (64,)}  # fmt: skip
# Fields of other layers, of a class's bookkeeping or of training: nothing that the encoder computes follows from them.
IDLE = (
    "model_type", "architectures", "transformers_version", "_name_or_path", "name_or_path", "dtype", "torch_dtype", "use_cache",
    "is_decoder", "is_encoder", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id",
    "output_attentions", "output_past", "output_hidden_states", "return_dict", "chunk_size_feed_forward", "id2label", "label2id",
    "num_labels", "problem_type", "finetuning_task", "classifier_dropout", "classifier_dropout_prob", "torchscript", "use_bfloat16",
    "gradient_checkpointing", "tokenizer_class", "directionality", "pooler_fc_size", "pooler_num_attention_heads",
    "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "summary_activation", "summary_last_dropout", "summary_type",
    "summary_use_proj", "down_scale_factor", "_num_labels", "do_sample", "attn_implementation", "_attn_implementation_autoset",
    "cross_attention_hidden_size", "decoder_start_token_id", "use_stable_embedding",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Reader:
    """JSON -> Card of one family.

    choices: fields of Config that the family fixes. wanted: what its fields must say beside WANTED. says_epsilon: whether the originals'
    code reads layer_norm_eps, and is_decoder. activation: what an absent hidden_act means.
    """

    choices: dict[str, Any]
    wanted: dict[str, tuple]
    says_epsilon: bool
    activation: str = "gelu"

    def __call__(self, json: dict[str, Any]) -> Card:
        table.refuse_others(json, WANTED | self.wanted)
        width, heads, epsilon = field(json, "hidden_size"), field(json, "num_attention_heads"), field(json, "layer_norm_eps", 1e-12)
        if not self.says_epsilon and epsilon != 1e-12:
            raise ValueError(f"field 'layer_norm_eps' is {epsilon!r}; these checkpoints have 1e-12 built in")
        dropout = field(json, "dropout_rate", field(json, "hidden_dropout_prob", 0.1))
        choices = {"application": "lm"} if self.says_epsilon and json.get("is_decoder") is True else {}
        config = Config(
            vocab=field(json, "vocab_size"), positions=field(json, "max_position", field(json, "max_position_embeddings", 512)),
            width=width, layers=field(json, "num_hidden_layers"), heads=heads, hidden=field(json, "intermediate_size"), wiring="post",
            activation=table.choice(json, "hidden_act", ACTIVATIONS, self.activation), epsilon=epsilon, dropout=dropout,
            init_range=field(json, "initializer_range", 0.02), embedding=json.get("embedding_size"),
            segments=field(json, "segment_vocab_size", field(json, "type_vocab_size", 2)), outputs=(), **self.choices | choices,
        )  # fmt: skip
        other = [name for name in ("attention_head_size", "attention_key_size") if json.get(name) not in (None, config.head_width)]
        if other:
            raise ValueError("; ".join(f"field {name!r} is {json[name]!r}; flaxgen has width / heads only" for name in other))
        return Card(config, None, self._notes(json, dropout), _unsaid(json))

    def _notes(self, json: dict[str, Any], dropout: Any) -> tuple[str, ...]:
        inside = json.get("attention_dropout_rate", json.get("attention_probs_dropout_prob"))
        notes = table.unknown(json, (*SIZES, *WANTED, *self.wanted, *IDLE))
        if inside is not None and inside != dropout:
            notes += (f"dropout of attention is {inside!r} in the JSON; flaxgen has one for all, {dropout!r}",)
        if json.get("hidden_act") is None:
            notes += (f"the JSON has no hidden_act: {self.activation} is taken, what the originals have by default",)
        return notes


def _unsaid(json: dict[str, Any]) -> tuple[str, ...]:
    """Sizes of tables of which the JSON says nothing: then the tensors do."""
    pairs = (("positions", ("max_position", "max_position_embeddings")), ("segments", ("segment_vocab_size", "type_vocab_size")))
    return tuple(name for name, keys in pairs if all(json.get(key) is None for key in keys))


def said(config: Config, activations: dict[str, str], *, embedding: bool) -> dict[str, Any]:
    """The sizes with the keys that all sources share; `embedding` says embedding_size too."""
    fields = {
        "vocab_size": config.vocab, "hidden_size": config.width, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "intermediate_size": config.hidden, "hidden_act": activations[config.activation],
        "max_position_embeddings": config.positions, "type_vocab_size": config.segments, "initializer_range": config.init_range,
        "attention_probs_dropout_prob": config.dropout, "hidden_dropout_prob": config.dropout,
    }  # fmt: skip
    return fields | ({"embedding_size": config.embedding} if embedding or config.embedding != config.width else {})
