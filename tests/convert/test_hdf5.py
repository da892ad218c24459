"""Keras's HDF5 files of bert4keras's models: the same tensors as the TensorFlow checkpoint, and what else HDF5 can hold is refused."""

import random
import shutil

import numpy as np
import pytest
import tiny

from convert import hdf5
from convert.bundle import read as bundle
from flaxgen import errors

h5py = pytest.importorskip("h5py")
SELF = "bert/encoder/layer_{layer}/"


def dense(*parts):
    return [SELF + f"{part}/{kind}" for part in parts for kind in ("kernel", "bias")]


# Keras layer -> the names of its weights in a checkpoint, in Keras's order.
LAYERS = {
    "Embedding-Token": ["bert/embeddings/word_embeddings"], "Embedding-Segment": ["bert/embeddings/token_type_embeddings"],
    "Embedding-Position": ["bert/embeddings/position_embeddings"],
    "Embedding-Norm": ["bert/embeddings/LayerNorm/beta", "bert/embeddings/LayerNorm/gamma"],
    "Transformer-{layer}-MultiHeadSelfAttention": dense(*(f"attention/{part}" for part in ("self/query", "self/key", "self/value",
                                                                                           "output/dense"))),
    "Transformer-{layer}-MultiHeadSelfAttention-Norm": [SELF + f"attention/output/LayerNorm/{kind}" for kind in ("beta", "gamma")],
    "Transformer-{layer}-FeedForward": dense("intermediate/dense", "output/dense"),
    "Transformer-{layer}-FeedForward-Norm": [SELF + f"output/LayerNorm/{kind}" for kind in ("beta", "gamma")],
    "Pooler-Dense": ["bert/pooler/dense/kernel", "bert/pooler/dense/bias"],
    "NSP-Proba": ["cls/seq_relationship/output_weights", "cls/seq_relationship/output_bias"],
    "MLM-Dense": ["cls/predictions/transform/dense/kernel", "cls/predictions/transform/dense/bias"],
    "MLM-Norm": ["cls/predictions/transform/LayerNorm/beta", "cls/predictions/transform/LayerNorm/gamma"],
    "MLM-Bias": ["cls/predictions/output_bias"],
}  # fmt: skip


def keras(path, layers, under=None, cut=False):
    """A weight file as Keras lays it out: layers maps a layer's name to its arrays."""
    with h5py.File(path, "w") as file:
        held = file if under is None else file.create_group(under)
        names = [name.encode() for name in layers]
        for part, some in ({"layer_names0": names[:3], "layer_names1": names[3:]} if cut else {"layer_names": names}).items():
            held.attrs[part] = some
        for layer, arrays in layers.items():
            group = held.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/dense_{number}/kernel:0".encode() for number in range(len(arrays))]
            for number, array in enumerate(arrays):
                group.create_dataset(f"{layer}/dense_{number}/kernel:0", data=array)
    return path


def of_bundle(folder, mapping=LAYERS):
    """The layers of a model whose checkpoint is there."""
    found = {name: bundle.read(each) for name, each in bundle.index(folder / "model.ckpt").items()}
    layers = {"Input-Token": []}
    for layer, names in mapping.items():
        for number in range(3 if "{layer}" in layer else 1):
            held = [name.format(layer=number) for name in names]
            if held[0] in found:
                layers[layer.format(layer=number)] = [found[name].T if name.endswith("output_weights") else found[name] for name in held]
    return layers


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "keras").mkdir()
    return tmp_path / "keras"


def refused(capsys, *arguments):
    code = tiny.run(*arguments)
    return code, capsys.readouterr().err


@pytest.mark.parametrize("name", ["bert_mlm", "bert_nsp_pool"])
@pytest.mark.parametrize("under", [None, "model_weights"])
def test_a_weight_file_gives_the_tensors_of_the_checkpoint(name, under, golden, folder, tmp_path):
    keras(folder / "best.h5", of_bundle(golden / "bert4keras" / name), under, cut=True)
    shutil.copyfile(golden / "bert4keras" / name / "config.json", folder / "bert_config.json")
    assert tiny.run(folder, tmp_path / "one", "--verify") == 0
    assert tiny.run(golden / "bert4keras" / name, tmp_path / "two") == 0
    assert tiny.held(tmp_path / "one") == tiny.held(tmp_path / "two")


def test_nezha_shows_itself_by_its_sines_and_roformer_must_be_named(golden, folder, tmp_path, capsys):
    layers = of_bundle(golden / "bert4keras/nezha_unilm")
    shutil.copyfile(golden / "bert4keras/nezha_unilm/config.json", folder / "config.json")
    keras(folder / "best.h5", layers)
    assert "nezha-h5, roformer-h5" in refused(capsys, folder, tmp_path / "one")[1]
    keras(folder / "best.h5", layers | {"Embedding-Relative-Position": [np.zeros((129, 12), np.float32)]})
    assert tiny.run(folder / "best.h5", tmp_path / "one") == 0
    assert "sines as a constant" in capsys.readouterr().out
    assert tiny.run(golden / "bert4keras/nezha_unilm", tmp_path / "two", "--model", "nezha") == 0
    assert tiny.held(tmp_path / "one") == tiny.held(tmp_path / "two")


ML = "newslm/layer{layer:02d}/"
PARTS = ("query_layer", "key_layer", "value_layer", "context_projection_layer")
GPT2_ML = {
    "Embedding-Token": ["newslm/embeddings/word_embed"], "Embedding-Position": ["newslm/embeddings/pos_embed"],
    "Embedding-Norm": [f"newslm/embeddings/LayerNorm_embed_norm/{kind}" for kind in ("beta", "gamma")],
    "Transformer-{layer}-MultiHeadSelfAttention": [ML + f"{part}/{kind}" for part in PARTS for kind in ("kernel", "bias")],
    "Transformer-{layer}-FeedForward-Norm-0": [ML + f"LayerNorm_mlp_ln0/{kind}" for kind in ("beta", "gamma")],
    "Transformer-{layer}-FeedForward": [ML + f"{part}/{kind}" for part in ("intermediate", "output") for kind in ("kernel", "bias")],
    "Transformer-{layer}-FeedForward-Norm-1": [ML + f"LayerNorm_mlp_ln1/{kind}" for kind in ("beta", "gamma")],
}  # fmt: skip


def test_a_gpt2_ml_that_was_tuned_with_bert4keras_reads_under_any_name(golden, folder, tmp_path):
    keras(folder / "best_model.weights", of_bundle(golden / "bert4keras/gpt2_ml", GPT2_ML))
    shutil.copyfile(golden / "bert4keras/gpt2_ml/config.json", folder / "config.json")
    assert tiny.run(folder / "best_model.weights", tmp_path / "one") == 0
    assert tiny.run(golden / "bert4keras/gpt2_ml", tmp_path / "two") == 0
    assert tiny.held(tmp_path / "one") == tiny.held(tmp_path / "two")


def test_every_layer_that_is_missing_is_named(golden, folder, tmp_path, capsys):
    layers = of_bundle(golden / "bert4keras/bert_mlm")
    del layers["Transformer-1-FeedForward"]
    keras(folder / "best.h5", layers)
    shutil.copyfile(golden / "bert4keras/bert_mlm/config.json", folder / "config.json")
    code, said = refused(capsys, folder, tmp_path / "one")
    assert code == errors.Mismatch.exit_code and "'Transformer-1-FeedForward/0' is missing" in said


def test_what_else_hdf5_can_hold_is_refused(folder, tmp_path, capsys):
    arrays = {"Embedding-Token": [np.ones((5, 4), np.float32)]}

    def changed(change):
        path = keras(folder / "m.h5", arrays)
        with h5py.File(path, "r+") as file:
            change(file["Embedding-Token/Embedding-Token/dense_0"])
        return refused(capsys, path, tmp_path / "one")

    def instead(**how):
        def change(group):
            del group["kernel:0"]
            group.create_dataset("kernel:0", **how)

        return change

    def link(made):
        def change(group):
            del group["kernel:0"]
            group["kernel:0"] = made

        return change

    mismatch, unsafe = errors.Mismatch.exit_code, errors.Unsafe.exit_code
    for how in ({"data": np.ones((5, 4), np.float32), "compression": "gzip"}, {"data": np.ones((5, 4), np.float32), "chunks": (1, 4)},
                {"data": np.ones(3, ">f4")}, {"data": ["text"]}, {"data": np.ones(3, np.complex64)},
                {"shape": (4,), "dtype": "f4", "external": [("/etc/hostname", 0, 16)]}):  # fmt: skip
        assert changed(instead(**how))[0] == mismatch, how
    for made in (h5py.SoftLink("/elsewhere"), h5py.ExternalLink("other.h5", "/a")):
        assert changed(link(made))[0] == unsafe
    with h5py.File(folder / "m.h5", "w") as file:
        file.create_dataset("a", data=np.ones(3))
    code, said = refused(capsys, folder, tmp_path / "one")
    assert code == mismatch and "no attribute 'layer_names'" in said
    (folder / "m.h5").write_bytes(hdf5.MAGIC + bytes(90))
    assert refused(capsys, folder, tmp_path / "one")[0] == errors.Corrupt.exit_code


def test_two_weight_files_have_to_be_chosen_from(folder, tmp_path, capsys):
    for name in ("a.h5", "b.h5"):
        keras(folder / name, {"Embedding-Token": [np.ones((5, 4), np.float32)]})
    assert "a.h5, b.h5" in refused(capsys, folder, tmp_path / "one")[1]


@pytest.mark.parametrize("count", [60, pytest.param(20_000, marks=pytest.mark.nightly)])
def test_files_cut_off_anywhere_give_named_errors_only(count, folder):
    """Cut, not scrambled: HDF5's own library reads the rest, and is not made for hostile bytes."""
    choose = random.Random(5)
    raw = keras(folder / "m.h5", {"Embedding-Token": [np.ones((5, 4), np.float32)], "MLM-Bias": [np.ones(5, np.float32)]}).read_bytes()
    for _ in range(count):
        (folder / "m.h5").write_bytes(raw[: choose.randrange(len(raw))])
        with pytest.raises(errors.CheckpointError):
            hdf5.index(folder / "m.h5")
