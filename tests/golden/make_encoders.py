"""How golden/transformers/{albert,electra_discriminator,electra_generator,roformer,bert_pretraining} were made: by transformers 5.23
and torch 2.13.

    python tests/golden/make_encoders.py

Random models of odd sizes, every tensor (biases and norms too) away from its initial value, run on the CPU in float32. Rows are padded on
the right; a row's length is in `lengths`.
"""

import pathlib

import numpy as np
import torch
import transformers

SIZES = {"vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
         "max_position_embeddings": 19, "type_vocab_size": 2}  # fmt: skip
NARROW = SIZES | {"embedding_size": 10}
MODELS = {
    "albert": (transformers.AlbertForPreTraining, transformers.AlbertConfig(**NARROW), ("prediction_logits", "sop_logits")),
    "electra_discriminator": (transformers.ElectraForPreTraining, transformers.ElectraConfig(**NARROW), ("logits",)),
    "electra_generator": (transformers.ElectraForMaskedLM, transformers.ElectraConfig(**NARROW), ("logits",)),
    "roformer": (transformers.RoFormerForMaskedLM, transformers.RoFormerConfig(**NARROW), ("logits",)),
    "bert_pretraining": (
        transformers.BertForPreTraining,
        transformers.BertConfig(**SIZES | {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
        ("prediction_logits", "seq_relationship_logits"),
    ),
}


def main() -> None:
    home, rows, steps = pathlib.Path(__file__).parent / "transformers", 3, 11
    for seed, (name, (of, config, outputs)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = of(config).eval()
        with torch.no_grad():
            for path, each in model.named_parameters():
                if "embed_positions" not in path:
                    each.add_(torch.randn_like(each) * (0.3 if each.ndim == 1 else 0.15))
        random = np.random.default_rng(seed)
        lengths = np.array([steps, steps - 4, steps - 1])
        mask = (np.arange(steps) < lengths[:, None]).astype(np.int64)
        token, segment = random.integers(1, 37, (rows, steps)) * mask, random.integers(0, 2, (rows, steps)) * mask
        with torch.no_grad():
            given = model(*map(torch.tensor, (token, mask, segment)), output_hidden_states=True)
        model.save_pretrained(home / name)
        hidden = {"hidden": given.hidden_states[-1].numpy()}
        found = {output: getattr(given, output).numpy() for output in outputs}
        np.savez_compressed(home / name / "expected.npz", input_ids=token, token_type_ids=segment, lengths=lengths, **found, **hidden)


if __name__ == "__main__":
    main()
