"""A model folder: what is written is what is read, and whatever is damaged is refused by name."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from flaxgen import disk, folders, rules, tensors, weights
from flaxgen.errors import CheckpointError, Incomplete
from flaxgen.models import config as sizes
from flaxgen.text import wordpiece

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"天地玄黄宇宙洪荒日月盈")


@pytest.fixture(scope="module")
def model():
    return flaxgen.Transformer(sizes.Config(len(WORDS), 23, 12, 2, 3, 20, "between", "gelu"))


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2), int))


@pytest.fixture
def folder(model, params, tmp_path):
    flaxgen.save(tmp_path / "model", model, params, wordpiece.WordPiece(WORDS), end=[3], source={"seed": 0})
    return tmp_path / "model"


def test_a_saved_model_comes_back_bit_for_bit(folder, model, params):
    again, loaded, text = flaxgen.load(folder)
    assert again == model and text.tokens == WORDS
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, params))
    assert weights.describe(folder)["end"] == [3] and text.end == (3,)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors", "vocab.txt"]


def test_a_run_of_the_trainer_is_named_as_one(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(Incomplete, match="python -m train export"):
        flaxgen.load(tmp_path)


def test_the_longest_name_a_file_may_have_is_replaced_too(tmp_path):
    path = tmp_path / ("字" * 85)
    for raw in (b"one", b"two"):
        disk.replace(path, raw)
        assert [path.read_bytes()] == [found.read_bytes() for found in tmp_path.iterdir()] == [raw]


def test_what_ends_a_text_survives_loading_and_saving(folder, tmp_path):
    flaxgen.save(tmp_path / "again", *flaxgen.load(folder))
    assert flaxgen.Writer.load(tmp_path / "again").text.end == (3,)


def test_what_a_model_draws_by_survives_saving_and_is_checked_before(model, params, tmp_path):
    rule = {"top_p": 0.9, "logit_bias": {8: -np.inf, "天": 2.0}, "ban": [[6, 7], "地"], "stop": ["日月"]}
    flaxgen.save(tmp_path / "model", model, params, wordpiece.WordPiece(WORDS), rule=rule)
    (found,) = rules.spread(weights.describe(tmp_path / "model")["rule"], 1)
    assert [found] == rules.spread(rules.Rule(**rule), 1)
    assert len(flaxgen.Writer.load(tmp_path / "model").write(["天"], tokens=2)[0][0].tokens) == 2
    for wrong, words in (({"top_q": 1}, "top_q.*top_k, top_p"), ({"top_p": 7}, "top_p=7"), (rules.Rule(), "wanted a dict of fields")):
        with pytest.raises(ValueError, match=words):
            flaxgen.save(tmp_path / "wrong", model, params, rule=wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("dtype", ["int16", "float64", "bf16", 3, np.float64, ["int8"]], ids=str)
def test_an_unknown_type_is_refused_before_anything_is_read_or_written(dtype, model, params, tmp_path):
    with pytest.raises(ValueError, match=r"dtype=.*wanted one of 'float32', 'bfloat16', 'int8'"):
        flaxgen.load(tmp_path / "nowhere", dtype=dtype)
    with pytest.raises(ValueError, match="dtype="):
        flaxgen.save(tmp_path / "model", model, params, dtype=dtype)


def test_a_folder_that_appears_while_another_is_written_stays(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(FileExistsError), folders.staged(target) as work:
        (work / "ours").touch()
        target.mkdir()
        (target / "theirs").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "theirs"]


def test_bfloat16_halves_the_file_and_loads_as_float32_on_a_cpu(model, params, tmp_path):
    flaxgen.save(tmp_path / "half", model, params, dtype="bfloat16")
    again, loaded, text = flaxgen.load(tmp_path / "half")
    assert text is None and again.dtype == np.float32
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, rounded))
    assert {entry.dtype.name for entry in tensors.index(tmp_path / "half").values()} == {"bfloat16"}
    half, loaded, _ = flaxgen.load(tmp_path / "half", dtype="bfloat16")
    assert half.dtype == jnp.bfloat16 == jax.tree.leaves(loaded)[0].dtype


def test_an_existing_folder_is_left_alone_without_force(folder, model, params):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match="exists already"):
        flaxgen.save(folder, model, params)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    flaxgen.save(folder, model, params, force=True)
    assert not (folder / "vocab.txt").exists()


def test_a_save_that_fails_leaves_nothing(model, params, tmp_path):
    broken = weights.nest({name: leaf for name, leaf in weights.flatten(params).items() if "mlp" not in name})
    with pytest.raises(CheckpointError, match=r"missing: block_00/mlp/up/kernel \(20, 12\)"):
        flaxgen.save(tmp_path / "model", model, broken)
    with pytest.raises(TypeError):
        flaxgen.save(tmp_path / "model", model, params, source={"path": object()})
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_byte_of_the_weights_is_refused(folder):
    path = folder / "model.safetensors"
    good = path.read_bytes()
    places = np.random.default_rng(0).choice(len(good), 60, replace=False)
    for place in [*range(12), *places]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            flaxgen.load(folder)


def rewrite(folder, change):
    """The same file with its tensors changed, checksums and all."""
    flat = {name: tensors.read(entry) for name, entry in tensors.index(folder).items()}
    change(flat)
    wanted = [(name, leaf.dtype, leaf.shape) for name, leaf in flat.items()]
    (folder / "model.safetensors").unlink()
    tensors.write(folder / "model.safetensors", wanted, list(flat.values()), {"format": "flaxgen-1"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda flat: flat.pop("embed/norm/bias"), "missing: embed/norm/bias"),
        (lambda flat: flat.update(extra=np.zeros(3, np.float32)), r"unknown: extra \(3,\)"),
        (lambda flat: flat.update({"block_01/mlp/up/kernel": flat["block_01/mlp/up/kernel"].T}), r"block_01/mlp/up/kernel: got \(12, 20\)"),
        (lambda flat: flat.update({"block_01/mlp/up/bias": np.zeros(20, np.int32)}), "block_01/mlp/up/bias.*int32"),
    ],
)
def test_a_missing_an_extra_and_a_transposed_tensor_are_named(folder, change, words):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=words):
        flaxgen.load(folder)


def test_a_truncated_file_is_refused(folder):
    path = folder / "model.safetensors"
    good = path.read_bytes()
    for length in (0, 7, 300, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError):
            flaxgen.load(folder)


def test_a_pipe_in_the_place_of_a_vocabulary_does_not_block(folder):
    (folder / "vocab.txt").unlink()
    os.mkfifo(folder / "vocab.txt")
    with pytest.raises(CheckpointError, match="not a plain file"):
        flaxgen.load(folder)


def test_another_vocabulary_is_refused(folder):
    (folder / "vocab.txt").write_text("\n".join(reversed(WORDS)) + "\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not the vocabulary"):
        flaxgen.load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card.update(format="other"), "\"format\" is 'other'"),
        (lambda card: card.update(architecture="rnn"), '"architecture"'),
        (lambda card: card["config"].update(layers=3), "missing: block_02"),
        (lambda card: card["config"].update(heads=0), "heads"),
        (lambda card: card["config"].update(depth=3), "depth"),
        (lambda card: card["config"].pop("wiring"), "wiring"),
        (lambda card: card.update(config=[]), '"config"'),
        (lambda card: card.update(end=[99]), '"end" is'),
        (lambda card: card.update(rule={"top_p": 7}), "top_p=7"),
        (lambda card: card.update(rule={"mood": 7}), "mood"),
        (lambda card: card.update(rule=[1]), '"rule": got .1., wanted an object'),
        (lambda card: card.update(rule={"logit_bias": [5]}), '"rule"'),
        (lambda card: card.update(rule={"logit_bias": [[True, 1.0]]}), "logit_bias"),
        (lambda card: card["text"].update(reserved=1), "the model 16 rows"),
        (lambda card: card["text"].update(reserved="x"), "'x' reserved rows"),
        (lambda card: card["config"].update(layers=10**6), "1000000 layers"),
        (lambda card: card["text"].update(kind="runes"), "runes"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, change, words):
    card = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(card)
    (folder / "config.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        flaxgen.load(folder)


def test_a_folder_that_is_none_says_what_to_do(tmp_path, folder):
    with pytest.raises(CheckpointError, match=r"is not a folder.*python -m convert"):
        flaxgen.load(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        flaxgen.load(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        flaxgen.load(folder)


def test_int8_is_written_and_read_bit_for_bit_and_is_a_quarter(model, params, tmp_path):
    small = weights.quantize(params)
    for name, how in (
        ("one", {"params": params, "dtype": "int8"}),
        ("two", {"params": small}),
        ("three", {"params": small, "dtype": "int8"}),
    ):
        flaxgen.save(tmp_path / name, model, **how)
        again, loaded, _ = flaxgen.load(tmp_path / name)
        assert again == model and jax.tree.all(jax.tree.map(np.array_equal, loaded, small))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(loaded)} == {"int8", "float32"}
        assert weights.describe(tmp_path / name)["weights"] == "int8"
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")]
    assert files[0] == files[1] == files[2]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(small))


def test_int8_is_made_on_reading_and_widened_on_reading_or_writing(folder, model, params, tmp_path):
    small = weights.quantize(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, flaxgen.load(folder, dtype="int8")[1], small))
    flaxgen.save(tmp_path / "small", model, small)
    flaxgen.save(tmp_path / "wide", model, small, dtype="float32")
    wide = weights.dequantize(small)
    for name in ("small", "wide"):
        assert jax.tree.all(jax.tree.map(np.array_equal, flaxgen.load(tmp_path / name, dtype="float32")[1], wide))
    assert weights.describe(tmp_path / "wide")["weights"] == "float"
    half, loaded, _ = flaxgen.load(tmp_path / "small", dtype="bfloat16")
    assert half.dtype == jnp.bfloat16 and {leaf.dtype.name for leaf in jax.tree.leaves(loaded)} == {"bfloat16"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda flat: flat.pop("block_01/mlp/up/kernel_scale"), "missing: block_01/mlp/up/kernel_scale"),
        (lambda flat: flat.update({"embed/norm/bias": np.zeros(12, np.int8)}), "embed/norm/bias: int8"),
        (lambda flat: flat["block_01/mlp/up/kernel_scale"].fill(np.nan), "model: block_01/mlp/up/kernel_scale holds nan, wanted finite"),
        (lambda flat: np.copyto(flat["embed/token/embedding_scale"][3:4], -1), "embed/token/embedding_scale holds -1.0"),
        (lambda flat: flat.update({"embed/token/embedding_scale": np.zeros(16, np.int8)}), "embed/token/embedding_scale: int8"),
        (lambda flat: flat.update({"block_01/mlp/up/kernel": np.zeros((20, 12), np.float32)}), "block_01/mlp/up/kernel: float32"),
        (lambda flat: flat.update({"block_01/mlp/up/kernel": np.zeros((20, 12), np.uint8)}), "block_01/mlp/up/kernel: uint8"),
    ],
)
def test_an_int8_folder_whose_tensors_are_of_other_types_is_refused(model, params, tmp_path, change, words):
    flaxgen.save(tmp_path / "model", model, params, dtype="int8")
    rewrite(tmp_path / "model", change)
    with pytest.raises(CheckpointError, match=words):
        flaxgen.load(tmp_path / "model")


def test_int8_tensors_want_a_config_that_says_so_and_scales(folder, model, params, tmp_path):
    path = folder / "config.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(card | {"weights": "int8"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="missing: embed/token/embedding_scale"):
        flaxgen.load(folder)
    path.write_text(json.dumps(card | {"weights": "int4"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="\"weights\" is 'int4'"):
        flaxgen.load(folder)
    bare = weights.nest(
        {name: leaf for name, leaf in weights.flatten(weights.quantize(params)).items() if not name.endswith("kernel_scale")}
    )
    with pytest.raises(CheckpointError, match="missing: block_00/attend/q/kernel_scale"):
        flaxgen.save(tmp_path / "bare", model, bare)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    with pytest.raises(ValueError, match="not finite"):
        flaxgen.save(tmp_path / "broken", model, broken, dtype="int8")
    assert not (tmp_path / "broken").exists()
