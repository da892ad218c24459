"""What does not fit is refused with every reason, on standard error, with the class's exit code, and nothing is written."""

import json
import shutil

import numpy as np
import pytest
import tiny

from convert.bundle import write as bundle
from flaxgen import errors

CORRUPT, INCOMPLETE, MISMATCH, UNSAFE = (each.exit_code for each in (errors.Corrupt, errors.Incomplete, errors.Mismatch, errors.Unsafe))


@pytest.fixture
def hf(golden, tmp_path):
    return shutil.copytree(golden / "transformers/gpt2", tmp_path / "hf", copy_function=shutil.copyfile)


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a conversion that must fail: its exit code and its reason, after a look that nothing came of it."""

    def refused(source, *arguments):
        before = sorted(tmp_path.rglob("*"))
        code = tiny.run(source, tmp_path / "target", *arguments)
        assert code != 0 and sorted(tmp_path.rglob("*")) == before
        return code, capsys.readouterr().err

    return refused


def test_every_mismatch_is_listed_at_once(hf, refused):
    def change(found):
        del found["transformer.h.1.ln_1.bias"]
        found["transformer.h.0.extra"] = np.zeros(3, np.float32)
        found["transformer.h.2.mlp.c_fc.weight"] = found["transformer.h.2.mlp.c_fc.weight"].T
        found["wpe.weight"] = found["transformer.wpe.weight"]
        found["transformer.h.0.ln_2.bias"] = found["transformer.h.0.ln_2.bias"].astype(np.int32)

    tiny.rewrite(hf, change)
    code, said = refused(hf)
    assert code == MISMATCH and "5 problems" in said
    assert "'transformer.h.0.extra' float32 [3]: no row of gpt2-hf takes it" in said
    assert "block_01/norm_0/bias [48] is never set: 'transformer.h.1.ln_1.bias' is missing" in said
    assert "'transformer.h.2.mlp.c_fc.weight' has shape [192, 48] (transposed), wanted [48, 192]" in said
    assert "embed/position/embedding is set twice" in said and "'wpe.weight'" in said
    assert "'transformer.h.0.ln_2.bias' is int32; wanted float32" in said


def test_a_long_list_is_cut_after_twenty_with_its_count(hf, refused):
    tiny.rewrite(hf, lambda found: found.update({f"other.{number}": np.zeros(1, np.float32) for number in range(50)}))
    said = refused(hf)[1]
    assert "50 problems" in said and "... and 30 more" in said and said.count("\n  - ") == 20


@pytest.mark.parametrize("field,value", [
    ("scale_attn_by_inverse_layer_idx", True), ("scale_attn_weights", False), ("tie_word_embeddings", False),
    ("add_cross_attention", True), ("model_type", "gpt_neo"), ("activation_function", "relu"), ("n_embd", "48"), ("n_head", 5),
    ("n_layer", 10**9), ("layer_norm_epsilon", "small"), ("eos_token_id", "end"), ("n_positions", 65), ("vocab_size", 130),
    ("n_inner", 100),
])  # fmt: skip
def test_a_config_that_asks_for_something_else_is_refused_by_the_fields_name(field, value, hf, refused):
    tiny.edit(hf / "config.json", **{field: value})
    code, said = refused(hf)
    ours = {"n_embd": "width", "n_head": "heads", "n_layer": "layers", "layer_norm_epsilon": "epsilon", "n_positions": "positions",
            "vocab_size": "vocab", "n_inner": "hidden"}  # fmt: skip
    assert code == MISMATCH and (field in said or ours[field] in said)


def test_a_head_that_is_not_the_embedding_is_refused(hf, refused):
    tiny.rewrite(hf, lambda found: found.update({"lm_head.weight": found["transformer.wte.weight"] + 1}))
    code, said = refused(hf)
    assert code == MISMATCH and "'lm_head.weight' differs from 'transformer.wte.weight'" in said


def test_without_json_the_number_of_heads_must_be_supplied(hf, refused):
    (hf / "config.json").unlink()
    code, said = refused(hf)
    assert code == MISMATCH and "config.json" in said and "number of attention heads" in said and "--model" in said


def test_a_preset_that_the_tensors_are_not_is_refused(hf, refused):
    code, said = refused(hf, "--model", "gpt2-medium")
    assert code == MISMATCH and "vocab is 50257 by --model gpt2-medium, 131 by the tensors" in said


def test_where_two_models_fit_the_candidates_are_named(hf, golden, refused):
    def change(found):
        found["newslm/embeddings/word_embed"] = found["transformer.wte.weight"]

    tiny.rewrite(hf, change)
    code, said = refused(hf)
    assert code == MISMATCH and "2 models fit its tensors: gpt2-ml, gpt2-hf" in said and "--model NAME" in said
    assert "'newslm/embeddings/word_embed' float32 [131, 48]: no row of gpt2-hf takes it" in refused(hf, "--model", "gpt2-hf")[1]


def test_an_unknown_model_name_is_refused(hf, refused):
    assert "gpt2-ml-mega-21130" in refused(hf, "--model", "gpt3")[1]


def test_a_model_that_is_not_read_is_refused_with_those_that_are(tmp_path, refused):
    (tmp_path / "xlnet").mkdir()
    array = np.zeros((3, 4), np.float32)
    bundle.write(tmp_path / "xlnet" / "m", [("model/transformer/word_embedding", array.dtype, array.shape)], [[array.reshape(-1)]])
    code, said = refused(tmp_path / "xlnet")
    assert code == MISMATCH and "model/transformer/word_embedding" in said and "GPT2_ML" in said and "NEZHA" in said


@pytest.mark.parametrize("to", ["gpt2-ml", "gpt2-bert4keras"])
def test_a_target_that_cannot_hold_the_model_is_refused(to, hf, refused):
    code, said = refused(hf, "--to", to)
    assert code == MISMATCH and f"--to {to} cannot hold this model" in said


def test_openais_format_has_its_hidden_width_built_in(tmp_path, refused):
    import dataclasses

    ours = tiny.folder(tmp_path / "ours", dataclasses.replace(tiny.PRE_TANH, hidden=10))
    assert "hidden 10" in refused(ours, "--to", "gpt2-tf")[1]


def test_double_precision_needs_a_type_to_be_said(tmp_path, refused, capsys):
    ours = tiny.folder(tmp_path / "ours", tiny.BETWEEN, np.float64)
    code, said = refused(ours)
    assert code == MISMATCH and "--dtype" in said and "float64" in said
    assert tiny.run(ours, tmp_path / "less", "--dtype", "float32") == 0


def test_numbers_too_large_for_float16_are_refused(hf, refused):
    tiny.rewrite(hf, lambda found: found["transformer.h.1.mlp.c_proj.weight"].__setitem__((3, 4), 70000.0))
    code, said = refused(hf, "--dtype", "float16")
    assert code == MISMATCH and "'transformer.h.1.mlp.c_proj.weight' holds numbers too large for float16" in said


def test_an_end_token_outside_the_vocabulary_is_left_out_and_said(hf, tmp_path, capsys):
    tiny.edit(hf / "config.json", eos_token_id=50256)
    assert tiny.run(hf, tmp_path / "target") == 0
    assert "end token [50256] is not in a vocabulary of 131" in capsys.readouterr().out
    assert json.loads((tmp_path / "target/config.json").read_text())["end"] is None


@pytest.mark.parametrize("name,start,kind", [("model.bin", b"\x80\x02}", UNSAFE), ("model.pt", b"PK\x03\x04", UNSAFE),
                                             ("model.h5", b"\x89HDF\r\n", MISMATCH)])  # fmt: skip
def test_other_kinds_of_file_are_refused_with_those_that_are_read(name, start, kind, tmp_path, refused):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_bytes(start + b"\0" * 100)
    for path in (tmp_path / "other", tmp_path / "other" / name):
        code, said = refused(path)
        assert code == kind and "safetensors" in said and "TensorFlow checkpoint" in said


def test_a_source_that_is_not_there_or_empty_is_refused(tmp_path, refused):
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty")[0] == INCOMPLETE
    assert refused(tmp_path / "nowhere")[0] == INCOMPLETE


def test_a_checkpoint_file_names_a_neighbour_only(golden, tmp_path, refused):
    folder = shutil.copytree(golden / "openai_gpt2", tmp_path / "tf", copy_function=shutil.copyfile)
    (folder / "checkpoint").write_text('model_checkpoint_path: "/somewhere/else/model.ckpt"\n')
    assert tiny.run(folder, tmp_path / "one") == 0 and tiny.run(folder / "checkpoint", tmp_path / "two") == 0
    (folder / "checkpoint").write_text('model_checkpoint_path: "../../etc/passwd"\n')
    code, said = refused(folder)
    assert code == INCOMPLETE and "'passwd'" in said and "model.ckpt" in said
    (folder / "checkpoint").write_text('model_checkpoint_path: ".."\n')
    assert refused(folder)[0] == UNSAFE


def test_two_checkpoints_in_a_folder_are_named(golden, tmp_path, refused):
    folder = shutil.copytree(golden / "openai_gpt2", tmp_path / "tf", copy_function=shutil.copyfile)
    (folder / "checkpoint").unlink()
    shutil.copyfile(folder / "model.ckpt.index", folder / "other.ckpt.index")
    code, said = refused(folder)
    assert code == MISMATCH and "model.ckpt, other.ckpt" in said
    assert tiny.run(folder / "model.ckpt.index", tmp_path / "one") == 0
    assert tiny.run(folder / "model.ckpt.data-00000-of-00001", tmp_path / "two") == 0
    assert tiny.held(tmp_path / "one") == tiny.held(tmp_path / "two")
