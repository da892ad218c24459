"""Int8 folders as the target and as the source of a conversion."""

import json

import ml_dtypes
import numpy as np
import pytest
import tiny

import flaxgen
from convert import layouts, widened
from flaxgen import tensors, weights
from flaxgen.models import int8

MISMATCH = 6


@pytest.mark.parametrize("to", tiny.CONFIGS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_what_is_written_in_int8_is_what_the_loaded_model_becomes(to, dtype, tmp_path):
    foreign = tiny.foreign(tmp_path / "foreign", to, dtype)
    assert tiny.run(foreign, tmp_path / "small", "--dtype", "int8", "--verify") == 0
    assert tiny.run(foreign, tmp_path / "wide") == 0
    _, wanted, _ = flaxgen.load(tmp_path / "wide", dtype="int8")
    model, given, _ = flaxgen.load(tmp_path / "small")
    assert weights.describe(tmp_path / "small")["weights"] == "int8" and model.config == tiny.CONFIGS[to]
    given, wanted = weights.flatten(given), weights.flatten(wanted)
    assert given.keys() == wanted.keys() == int8.shapes(tiny.CONFIGS[to]).keys()
    for name, leaf in given.items():
        np.testing.assert_array_equal(leaf, wanted[name])


@pytest.mark.parametrize("to", tiny.CONFIGS)
def test_an_int8_folder_goes_to_other_formats_as_what_its_numbers_stand_for(to, tmp_path, capsys):
    ours = tiny.folder(tmp_path / "ours", tiny.CONFIGS[to], end=[3])
    assert tiny.run(ours, tmp_path / "small", "--dtype", "int8") == 0
    assert tiny.run(tmp_path / "small", tmp_path / "foreign", "--to", to, "--verify") == 0
    assert "int8 tensors of SOURCE are read as float32" in capsys.readouterr().out
    assert tiny.run(tmp_path / "foreign", tmp_path / "back") == 0
    for name, array in tiny.arrays(tiny.CONFIGS[to]).items():
        wanted = int8.decode(*int8.code(array)) if int8.coded(name) else array
        np.testing.assert_array_equal(tensors.read(tensors.index(tmp_path / "back")[name]), wanted)


def test_int8_to_int8_keeps_every_number_and_large_tensors_are_cut_in_strips(tmp_path, monkeypatch):
    for module in (layouts, widened):
        monkeypatch.setattr(module, "STRIP", 100)
    ours = tiny.folder(tmp_path / "ours", tiny.BETWEEN)
    assert tiny.run(ours, tmp_path / "one", "--dtype", "int8") == 0
    assert tiny.run(tmp_path / "one", tmp_path / "two", "--dtype", "int8") == 0
    assert tiny.run(tmp_path / "one", tmp_path / "wide") == 0
    one, two, wide = (
        {name: tensors.read(entry) for name, entry in tensors.index(tmp_path / name).items()} for name in ("one", "two", "wide")
    )
    for name, array in tiny.arrays(tiny.BETWEEN).items():
        np.testing.assert_array_equal(one[name], two[name])
        if int8.coded(name):
            number_FD, scale_F = int8.code(array)
            np.testing.assert_array_equal(one[name], number_FD)
            np.testing.assert_array_equal(one[f"{name}_scale"], scale_F)
            np.testing.assert_array_equal(wide[name], int8.decode(number_FD, scale_F))
    assert "weights" not in json.loads((tmp_path / "wide" / "config.json").read_text())


def refused(capsys, *arguments) -> str:
    assert tiny.run(*arguments) == MISMATCH
    return capsys.readouterr().err


def test_other_formats_numbers_that_are_not_finite_and_lost_scales_are_refused(tmp_path, capsys):
    ours = tiny.folder(tmp_path / "ours", tiny.PRE_TANH)
    said = refused(capsys, ours, tmp_path / "hf", "--to", "gpt2-hf", "--dtype", "int8")
    assert "--dtype int8 is for flaxgen folders; gpt2-hf holds floating-point numbers" in said
    assert tiny.run(ours, tmp_path / "small", "--dtype", "int8") == 0
    tiny.rewrite(tmp_path / "small", lambda found: found.pop("block_01/mlp/up/kernel_scale"))
    assert "'block_01/mlp/up/kernel_scale' is missing" in refused(capsys, tmp_path / "small", tmp_path / "back")
    tiny.rewrite(ours, lambda found: found["block_01/mlp/up/kernel"].__setitem__((3, 2), np.inf))
    said = refused(capsys, ours, tmp_path / "again", "--dtype", "int8")
    assert "'block_01/mlp/up/kernel': 1 rows hold numbers that are not finite" in said and not (tmp_path / "again").exists()
