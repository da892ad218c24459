import dataclasses
import json
import pathlib
import random

import ml_dtypes
import numpy as np
import pytest
import tiny

from convert import formats, matching, source
from convert.bundle import messages, sorted_table
from flaxgen import tensors

ORACLES = {"gpt2_ml": "gpt2-ml", "openai_gpt2": "gpt2-tf", "bert4keras/gpt2": "gpt2-bert4keras", "bert4keras/gpt2_ml": "gpt2-ml",
           "transformers/gpt2": "gpt2-hf"}  # fmt: skip
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("to", tiny.CONFIGS)
def test_there_and_back_is_bitwise_equal(to, dtype, tmp_path):
    ours = tiny.folder(tmp_path / "ours", tiny.CONFIGS[to], DTYPES[dtype], end=[3])
    assert tiny.run(ours, tmp_path / "foreign", "--to", to, "--verify") == 0
    assert tiny.run(tmp_path / "foreign", tmp_path / "back", "--verify") == 0
    assert tiny.held(tmp_path / "back") == tiny.held(ours)
    before, after = (json.loads((folder / "config.json").read_text())["config"] for folder in (ours, tmp_path / "back"))
    assert after == before


@pytest.mark.parametrize("name", ORACLES)
def test_the_originals_files_come_back_bitwise(name, golden, tmp_path):
    assert tiny.run(golden / name, tmp_path / "ours", "--verify") == 0
    assert tiny.run(tmp_path / "ours", tmp_path / "back", "--to", ORACLES[name], "--verify") == 0
    before = source.open_source(golden / name)
    after = source.open_source(tmp_path / "back")
    assert before.variables.keys() - after.variables.keys() <= {"global_step"}
    for key, variable in before.variables.items():
        if key == "global_step":
            continue
        other = after.variables[key]
        assert (other.dtype, tuple(other.shape)) == (variable.dtype, tuple(variable.shape)), key
        pairs = zip(before.chunks(key), after.chunks(key), strict=True)
        assert all(one.tobytes() == two.tobytes() for one, two in pairs), key


def test_one_foreign_format_goes_straight_to_another(golden, tmp_path):
    assert tiny.run(golden / "transformers/gpt2", tmp_path / "tf", "--to", "gpt2-tf") == 0
    assert tiny.run(tmp_path / "tf", tmp_path / "one") == 0
    assert tiny.run(golden / "transformers/gpt2", tmp_path / "two") == 0
    assert tiny.held(tmp_path / "one") == tiny.held(tmp_path / "two")


def test_a_kernel_is_turned_and_a_fused_one_split(golden, tmp_path):
    assert tiny.run(golden / "openai_gpt2", tmp_path / "ours") == 0
    before, after = source.open_source(golden / "openai_gpt2"), tensors.index(tmp_path / "ours")
    fused = next(before.chunks("model/h1/attn/c_attn/w")).copy().reshape(48, 144)
    for number, part in enumerate("qkv"):
        kernel = tensors.read(after[f"block_01/attend/{part}/kernel"])
        np.testing.assert_array_equal(kernel, fused[:, 48 * number : 48 * (number + 1)].T)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_rounding_is_to_the_nearest_even(name, tmp_path):
    ours = tiny.folder(tmp_path / "ours", tiny.PRE_TANH)
    assert tiny.run(ours, tmp_path / "less", "--dtype", name, "--verify") == 0
    for path, array in tiny.arrays(tiny.PRE_TANH).items():
        less = tensors.read(tensors.index(tmp_path / "less")[path])
        assert less.dtype == DTYPES[name]
        if name == "bfloat16":  # by the definition: add half, and the bit that the last kept one is
            bits = array.view(np.uint32)
            wanted = (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)
            np.testing.assert_array_equal(less.view(np.uint16), wanted)
        else:
            np.testing.assert_array_equal(less, array.astype(np.float16))


def test_less_precision_widens_without_loss(tmp_path):
    ours = tiny.folder(tmp_path / "ours", tiny.BETWEEN, ml_dtypes.bfloat16)
    assert tiny.run(ours, tmp_path / "wide", "--dtype", "float32") == 0
    assert tiny.run(tmp_path / "wide", tmp_path / "back", "--dtype", "bfloat16") == 0
    assert tiny.held(tmp_path / "back") == tiny.held(ours)


@pytest.mark.parametrize("step", ["100000", "220000"])
def test_all_772_tensors_of_the_released_model_are_mapped_and_nothing_is_unexplained(step, golden):
    variables = _real(golden / "gpt2_ml_real_index" / f"model.ckpt-{step}.index")
    found = matching.match(source.Source("TensorFlow bundle", pathlib.Path("model.ckpt"), golden / "nowhere", variables), None)
    assert found.format.name == "gpt2-ml" and found.card.config.heads == 24
    assert len({origin.name for origin in found.origins.values()}) == 772
    assert len(variables) == 1835 and len(found.dropped) == 1063
    assert sum(name.rsplit("/", 1)[-1].startswith("adafactor_v") for name in found.dropped) == 1062
    assert found.card.config.vocab == {"100000": 21130, "220000": 8021}[step]


@pytest.mark.shared
def test_the_manifest_of_both_released_models_is_explained(shared, golden):
    manifest = json.loads((shared / "oracle/gpt2_ml_full_manifest.json").read_text())
    assert len(manifest) == 2
    for items in manifest.values():
        step = "100000" if any(item["shape"] == [21130, 1536] for item in items) else "220000"
        variables = _real(golden / "gpt2_ml_real_index" / f"model.ckpt-{step}.index")
        wanted = {item["name"]: (item["dtype"], tuple(item["shape"]), item["offset"], item["size"]) for item in items}
        assert {name: (str(each.dtype), each.shape, each.offset, each.size) for name, each in variables.items()} == wanted


def _real(index: pathlib.Path) -> dict[str, tensors.Entry]:
    """Entries of an index whose data is not here."""
    entries = {}
    for key, value in sorted_table.items(index.read_bytes()):
        if key:
            record = messages.record(value)
            entries[key.decode()] = tensors.Entry(key.decode(), messages.DTYPES[record.dtype], record.shape, index, record.offset, None)
    return entries


def test_a_published_size_needs_no_json(golden, tmp_path):
    """The released bundles come without JSON; so does this one, of a published shape but for its vocabulary."""
    variables = _real(golden / "gpt2_ml_real_index" / "model.ckpt-100000.index")
    found = matching.match(source.Source("TensorFlow bundle", pathlib.Path("m"), golden / "nowhere", variables), "gpt2-ml-mega-21130")
    assert found.card.config.heads == 24 and "--model" in found.said


def test_every_row_reads_both_ways():
    for each in formats.FORMATS.values():
        names = [row.name(layer) for row in each.rows for layer in (0, 3, 47)]
        for row in each.rows:
            assert all(row.match(row.name(layer)) == (layer if row.layered else 0) for layer in (0, 3, 47))
        paths = [path for row in each.rows for path in row.ours(7)]
        assert len(paths) == len(set(paths)), each.name
        assert all(sum(row.match(name) is not None for row in each.rows) == 1 for name in names), each.name


def test_a_prefix_before_every_name_and_buffers_are_known(golden, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((golden / "transformers/gpt2/config.json").read_bytes())
    (bare / "model.safetensors").write_bytes((golden / "transformers/gpt2/model.safetensors").read_bytes())

    def change(found):
        renamed = {name.removeprefix("transformer."): array for name, array in found.items()}
        renamed |= {f"h.{layer}.attn.bias": np.ones((1, 1, 64, 64), np.bool_) for layer in range(3)}
        renamed |= {f"h.{layer}.attn.masked_bias": np.array(-1e4, np.float32) for layer in range(3)}
        renamed["lm_head.weight"] = renamed["wte.weight"]
        found.clear()
        found |= renamed

    tiny.rewrite(bare, change)
    assert tiny.run(bare, tmp_path / "one") == 0
    assert tiny.run(golden / "transformers/gpt2", tmp_path / "two") == 0
    assert tiny.held(tmp_path / "one") == tiny.held(tmp_path / "two")
    assert json.loads((tmp_path / "one/config.json").read_text())["end"] == [35]


@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.nightly)])
def test_random_sizes_types_and_formats_come_back_bitwise(count, tmp_path, capsys):
    choose = random.Random(4)
    for number in range(count):
        to = choose.choice(list(tiny.CONFIGS))
        heads = choose.randint(1, 3)
        width = heads * choose.randint(1, 20)
        hidden = 4 * width if to == "gpt2-tf" else choose.randint(1, 70)
        vocab, positions, layers = choose.randint(1, 90), choose.randint(1, 40), choose.randint(1, 3)
        sizes = {"vocab": vocab, "positions": positions, "layers": layers, "width": width, "heads": heads, "hidden": hidden,
                 "embedding": None}  # fmt: skip
        config = dataclasses.replace(tiny.CONFIGS[to], **sizes)
        ours = tiny.folder(tmp_path / f"{number}-ours", config, DTYPES[choose.choice(list(DTYPES))], seed=number)
        assert tiny.run(ours, tmp_path / f"{number}-foreign", "--to", to) == 0
        assert tiny.run(tmp_path / f"{number}-foreign", tmp_path / f"{number}-back") == 0
        assert tiny.held(tmp_path / f"{number}-back") == tiny.held(ours), (to, config)


def test_shards_of_transformers_convert_as_one(golden, tmp_path):
    from safetensors import numpy as package

    found = package.load_file(str(golden / "transformers/gpt2/model.safetensors"))
    names, where = sorted(found), {}
    (tmp_path / "shards").mkdir()
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number + 1:05d}-of-00002.safetensors"
        package.save_file({name: found[name] for name in part}, str(tmp_path / "shards" / file))
        where |= dict.fromkeys(part, file)
    (tmp_path / "shards/model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (tmp_path / "shards/config.json").write_bytes((golden / "transformers/gpt2/config.json").read_bytes())
    assert tiny.run(tmp_path / "shards", tmp_path / "one") == 0
    assert tiny.run(golden / "transformers/gpt2", tmp_path / "two") == 0
    assert tiny.held(tmp_path / "one") == tiny.held(tmp_path / "two")
