"""What converted encoders compute, against the originals; and their files back, bit by bit."""

import jax
import numpy as np
import pytest
import tiny

import flaxgen
from convert import source

LOG_PROBABILITIES, LOGITS, HIDDEN = 2e-4, 2e-4, 2e-5
# Folder below golden/ -> format, application, head.
ORIGINALS = {
    "bert4keras/bert_mlm": ("bert", "encoder", "mlm"), "bert4keras/bert_lm": ("bert", "lm", "mlm"),
    "bert4keras/bert_unilm": ("bert", "unilm", "mlm"), "bert4keras/bert_nsp_pool": ("bert", "encoder", "nsp"),
    "bert4keras/albert_mlm": ("albert", "encoder", "mlm"), "bert4keras/nezha_unilm": ("nezha", "unilm", "mlm"),
    "bert4keras/roformer_mlm": ("roformer", "encoder", "mlm"), "bert4keras/electra": ("electra", "encoder", "hidden"),
    "bert4keras/gpt": ("gpt", "lm", "logits"), "transformers/bert_mlm": ("bert-hf", "encoder", "mlm"),
}  # fmt: skip
apply = jax.jit(lambda model, params, token_BT, head, **named: model.apply(params, token_BT, head=head, **named)[0], static_argnums=(0, 3))


def outputs(folder, expected, application, head):
    """What the converted model gives for the reference's inputs, padding masked."""
    model, params, _ = flaxgen.load(folder, application=application)
    token_BT = expected["input_ids"]
    valid_BT = np.arange(token_BT.shape[1]) < expected["lengths"][:, None]
    segment_BT = expected["segment_ids" if "segment_ids" in expected else "token_type_ids"]
    return np.asarray(apply(model, params, token_BT, head, valid_BT=valid_BT, segment_BT=segment_BT)), valid_BT


def gap(wanted, given):
    """The largest difference of log-probabilities where the original's is not next to nothing."""
    mask = wanted > 1e-6
    return np.abs(np.asarray(jax.nn.log_softmax(given))[mask] - np.log(wanted[mask])).max()


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_converted_encoder_computes_what_the_original_does(name, golden, tmp_path):
    format, application, head = ORIGINALS[name]
    assert tiny.run(golden / name, tmp_path / "ours", "--model", format) == 0
    expected = np.load(golden / name / "expected.npz")
    given, valid_BT = outputs(tmp_path / "ours", expected, application, head)
    if name.startswith("transformers"):
        assert np.abs(given - expected["logits"])[valid_BT].max() <= LOGITS
    elif head == "hidden":
        assert np.abs(given - expected["output_0"])[valid_BT].max() <= HIDDEN
    elif head == "nsp":
        assert gap(expected["output_0"], given) <= LOG_PROBABILITIES
    else:
        assert gap(expected["output_0"][valid_BT], given[valid_BT]) <= LOG_PROBABILITIES


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
