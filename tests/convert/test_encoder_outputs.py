"""What converted encoders compute, against the originals; and their files back, bit by bit."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
import tiny

import flaxgen
from convert import source
from flaxgen import weights

LOG_PROBABILITIES, LOGITS, HIDDEN = 2e-4, 2e-4, 2e-5
# Folder below golden/ -> format, application, head.
ORIGINALS = {
    "bert4keras/bert_mlm": ("bert", "encoder", "mlm"), "bert4keras/bert_lm": ("bert", "lm", "mlm"),
    "bert4keras/bert_unilm": ("bert", "unilm", "mlm"), "bert4keras/bert_nsp_pool": ("bert", "encoder", "nsp"),
    "bert4keras/albert_mlm": ("albert", "encoder", "mlm"), "bert4keras/nezha_unilm": ("nezha", "unilm", "mlm"),
    "bert4keras/roformer_mlm": ("roformer", "encoder", "mlm"), "bert4keras/electra": ("electra", "encoder", "hidden"),
    "bert4keras/gpt": ("gpt", "lm", "logits"), "transformers/bert_mlm": ("bert-hf", "encoder", "mlm"),
}  # fmt: skip


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(model, params, token_BT, heads, **named):
    return [model.apply(params, token_BT, head=head, **named)[0] for head in heads]


def outputs(folder, expected, application, heads):
    """What the converted model gives for the reference's inputs, padding masked."""
    model, params, _ = flaxgen.load(folder, application=application)
    token_BT = expected["input_ids"]
    valid_BT = np.arange(token_BT.shape[1]) < expected["lengths"][:, None]
    segment_BT = expected["segment_ids" if "segment_ids" in expected else "token_type_ids"]
    return [np.asarray(each) for each in apply(model, params, token_BT, heads, valid_BT=valid_BT, segment_BT=segment_BT)], valid_BT


def gap(wanted, given):
    """The largest difference of log-probabilities where the original's is not next to nothing."""
    mask = wanted > 1e-6
    return np.abs(np.asarray(jax.nn.log_softmax(given))[mask] - np.log(wanted[mask])).max()


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_converted_encoder_computes_what_the_original_does(name, golden, tmp_path):
    format, application, head = ORIGINALS[name]
    assert tiny.run(golden / name, tmp_path / "ours", "--model", format) == 0
    expected = np.load(golden / name / "expected.npz")
    (given,), valid_BT = outputs(tmp_path / "ours", expected, application, (head,))
    if name.startswith("transformers"):
        assert np.abs(given - expected["logits"])[valid_BT].max() <= LOGITS
    elif head == "hidden":
        assert np.abs(given - expected["output_0"])[valid_BT].max() <= HIDDEN
    elif head == "nsp":
        assert gap(expected["output_0"], given) <= LOG_PROBABILITIES
    else:
        assert gap(expected["output_0"][valid_BT], given[valid_BT]) <= LOG_PROBABILITIES


def swapped(flat, first, second):
    return {name.replace(first, "-").replace(second, first).replace("-", second): leaf for name, leaf in flat.items()}


FAULTS = {
    "a missed transpose": ("bert_mlm", {}, lambda flat: {name: leaf.T if name.endswith("attend/q/kernel") else leaf
                                                         for name, leaf in flat.items()}),
    "the norms in the other order": ("bert_mlm", {}, lambda flat: swapped(flat, "norm_0", "norm_1")),
    "the other gelu": ("bert_mlm", {"activation": "gelu_tanh"}, None),
    "the epsilon of GPT-2": ("bert_mlm", {"epsilon": 1e-5}, None),
    "no mask": ("bert_lm", {"application": "encoder"}, None),
    "segments that are not looked at": ("bert_unilm", {"application": "lm"}, None),
    "RoFormer for NEZHA": ("nezha_unilm", {"position": "rotary"}, None),
    "NEZHA for RoFormer": ("roformer_mlm", {"position": "relative"}, None),
    "one layer for all": ("albert_mlm", {"layers": 2}, None),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_shows(fault, golden, tmp_path):
    name, fields, change = FAULTS[fault]
    format, application, head = ORIGINALS[f"bert4keras/{name}"]
    assert tiny.run(golden / "bert4keras" / name, tmp_path / "ours", "--model", format) == 0
    expected = np.load(golden / "bert4keras" / name / "expected.npz")
    model, params, _ = flaxgen.load(tmp_path / "ours", application=application)
    model = model.clone(config=dataclasses.replace(model.config, **fields))
    params = weights.nest(change(weights.flatten(params))) if change else params
    valid_BT = np.arange(expected["input_ids"].shape[1]) < expected["lengths"][:, None]
    (given,) = apply(model, params, expected["input_ids"], (head,), valid_BT=valid_BT, segment_BT=expected["segment_ids"])
    assert gap(expected["output_0"][valid_BT], np.asarray(given)[valid_BT]) > LOG_PROBABILITIES


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_files_of_the_originals_come_back_bitwise(name, golden, tmp_path):
    format = ORIGINALS[name][0]
    assert tiny.run(golden / name, tmp_path / "ours", "--model", format, "--verify") == 0
    assert tiny.run(tmp_path / "ours", tmp_path / "back", "--to", format, "--verify") == 0
    before, after = source.open_source(golden / name), source.open_source(tmp_path / "back")
    assert before.variables.keys() == after.variables.keys()
    for key, variable in before.variables.items():
        other = after.variables[key]
        assert (other.dtype, tuple(other.shape)) == (variable.dtype, tuple(variable.shape)), key
        assert all(one.tobytes() == two.tobytes() for one, two in zip(before.chunks(key), after.chunks(key), strict=True)), key
    papers = [next(found for name in ("bert_config.json", "albert_config.json", "config.json") if (found := each.json(name)))
              for each in (before, after)]  # fmt: skip
    assert all(papers[1][key] == value for key, value in papers[0].items() if key in papers[1])
    assert papers[0].keys() - papers[1].keys() <= {"add_cross_attention", "bos_token_id", "classifier_dropout", "dtype", "eos_token_id",
                                                   "transformers_version", "use_cache"}  # fmt: skip


# Folder below golden/transformers/ -> format, and array of the reference -> head (see golden/make_encoders.py).
MADE = {
    "albert": ("albert-hf", {"prediction_logits": "mlm", "sop_logits": "nsp", "hidden": "hidden"}),
    "electra_discriminator": ("electra-hf", {"logits": "discriminator", "hidden": "hidden"}),
    "electra_generator": ("electra-hf", {"logits": "mlm", "hidden": "hidden"}),
    "roformer": ("roformer-hf", {"logits": "mlm", "hidden": "hidden"}),
    "bert_pretraining": ("bert-hf", {"prediction_logits": "mlm", "seq_relationship_logits": "nsp", "hidden": "hidden"}),
}


@pytest.mark.parametrize("name", MADE)
def test_every_head_of_transformers_models_gives_what_theirs_does(name, golden, tmp_path):
    format, heads = MADE[name]
    where = golden / "transformers" / name
    assert tiny.run(where, tmp_path / "ours") == 0
    expected = np.load(where / "expected.npz")
    found, valid_BT = outputs(tmp_path / "ours", expected, "encoder", tuple(heads.values()))
    for (array, head), given in zip(heads.items(), found, strict=True):
        gap = np.abs(given - expected[array])
        assert (gap if head == "nsp" else gap[valid_BT]).max() <= (HIDDEN if head == "hidden" else LOGITS), head
    assert tiny.run(tmp_path / "ours", tmp_path / "back", "--to", format) == 0
    before, after = tiny.held(where), tiny.held(tmp_path / "back")
    assert {key: value for key, value in before.items() if "embed_positions" not in key} == after


@pytest.mark.parametrize("name,to", [("electra_discriminator", "electra"), ("roformer", "roformer"), ("bert_pretraining", "bert")])
def test_a_model_of_transformers_goes_through_tensorflow_unchanged(name, to, golden, tmp_path):
    assert tiny.run(golden / "transformers" / name, tmp_path / "ours") == 0
    if name == "bert_pretraining":  # Google's code has 1e-12 built in
        config = tmp_path / "ours/config.json"
        config.write_text(config.read_text().replace('"epsilon": 1e-05', '"epsilon": 1e-12'))
    assert tiny.run(tmp_path / "ours", tmp_path / "tf", "--to", to) == 0
    assert tiny.run(tmp_path / "tf", tmp_path / "back", "--model", to) == 0
    assert tiny.held(tmp_path / "back") == tiny.held(tmp_path / "ours")


def bare(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)


def turned(x_THK):
    """Pairs (2i, 2i + 1) turned by place / 10000^(2i / K) (Su et al. 2021)."""
    steps, _, width = x_THK.shape
    angle_TK = np.repeat(np.arange(steps)[:, None] / 10000 ** (np.arange(0, width, 2) / width), 2, axis=1)[:, None]
    crossed_THK = np.stack([-x_THK[..., 1::2], x_THK[..., ::2]], -1).reshape(x_THK.shape)
    return x_THK * np.cos(angle_TK) + crossed_THK * np.sin(angle_TK)


def roformer_v2(flat, heads, token_T, segment_T):
    """RoFormer v2 by its description, in float64: no biases, x / rms(x) after every residual, rotary, tied logits."""
    x_TD = bare(flat["embed/token/embedding"][token_T] + flat["embed/segment/embedding"][segment_T])
    for layer in range(2):
        kernel = {name: flat[f"block_{layer:02d}/{name}/kernel"].T for name in ("attend/q", "attend/k", "attend/v", "attend/o",
                                                                              "mlp/up", "mlp/down")}  # fmt: skip
        q_THK, k_THK, v_THK = ((x_TD @ kernel[f"attend/{part}"]).reshape(len(x_TD), heads, -1) for part in "qkv")
        score_HTS = np.einsum("thk,shk->hts", turned(q_THK), turned(k_THK)) / np.sqrt(q_THK.shape[-1])
        weight_HTS = np.exp(score_HTS - score_HTS.max(-1, keepdims=True))
        weight_HTS /= weight_HTS.sum(-1, keepdims=True)
        x_TD = bare(x_TD + np.einsum("hts,shk->thk", weight_HTS, v_THK).reshape(x_TD.shape) @ kernel["attend/o"])
        up_TF = x_TD @ kernel["mlp/up"]
        x_TD = bare(x_TD + up_TF * 0.5 * (1 + np.vectorize(math.erf)(up_TF / math.sqrt(2))) @ kernel["mlp/down"])
    return x_TD @ flat["embed/token/embedding"].T


def test_roformer_v2_computes_what_its_description_says(tmp_path):
    config = tiny.ENCODERS["roformer-v2"]
    assert tiny.run(tiny.foreign(tmp_path / "tf", "roformer-v2"), tmp_path / "ours") == 0
    model, params, _ = flaxgen.load(tmp_path / "ours")
    token_BT, segment_BT = np.array([[3, 1, 12, 5, 7], [0, 2, 4, 4, 9]]), np.array([[0, 0, 1, 1, 1], [0, 1, 0, 1, 0]])
    given = np.asarray(apply(model, params, token_BT, ("logits",), segment_BT=segment_BT)[0])
    flat = {path: np.float64(array) for path, array in tiny.arrays(config).items()}
    wanted = np.stack([roformer_v2(flat, config.heads, *row) for row in zip(token_BT, segment_BT, strict=True)])
    assert np.abs(given - wanted).max() <= LOGITS
