"""T5 from Google's bundles and transformers' safetensors and back: tensors, sizes out of gin and JSON, copies, refusals."""

import dataclasses
import hashlib
import json
import random
import shutil

import ml_dtypes
import numpy as np
import pytest
import tiny

from convert import formats, gin, source
from convert.bundle import write as bundle
from convert.formats import t5_hf, table
from flaxgen import errors, tensors
from flaxgen.models import presets, t5_config

PLAIN = t5_config.Config(13, 6, 2, 3, 4, 10, "relu", "tied", decoder_layers=1, buckets=8)
GATED = dataclasses.replace(PLAIN, activation="gated_gelu", head="own", layers=1, decoder_layers=2)
CONFIGS = {"t5": PLAIN, "t5.1.1": GATED, "mt5": GATED, "t5-hf": PLAIN, "t5.1.1-hf": GATED}
REAL_GIN = b"""# -*-Python-*-
import mesh_tensorflow.transformer.transformer_layers
d_ff = 10 # a macro
t5.models.mesh_transformer.d_model = 6
d_kv = __import__("os").system("touch gin-was-run")
dropout_rate = 0.25
num_layers = 7
AdafactorOptimizer.epsilon1 = 1e-30
learning_rate_schedule_noam.offset = 0
adafactor_decay_rate_pow.offset = 5
encoder/make_layer_stack.layers = \\
    [@mesh_tensorflow.transformer.transformer_layers.SelfAttention,
     @mesh_tensorflow.transformer.transformer_layers.DenseReluDense]
encoder/make_layer_stack.num_layers = 2
decoder/make_layer_stack.num_layers = 1
decoder/SelfAttention.num_heads = %num_heads
run.sequence_length = {'inputs': 512, 'targets': 128}
"""


def arrays(config, dtype=np.float32):
    noise = np.random.default_rng(0)
    return {path: noise.standard_normal(shape).astype(dtype) for path, shape in config.shapes().items()}


def folder(path, config, dtype=np.float32):
    """A flaxgen folder without a vocabulary."""
    path.mkdir()
    held = arrays(config, dtype)
    tensors.write(path / "model.safetensors", [(name, each.dtype, each.shape) for name, each in held.items()], held.values(), {})
    card = {"format": "flaxgen-1", "architecture": "t5", "config": dataclasses.asdict(config), "text": None, "end": [1]}
    (path / "config.json").write_text(json.dumps(card))
    return path


def foreign(path, to):
    assert tiny.run(folder(path.with_name("ours"), CONFIGS[to]), path, "--to", to) == 0
    return path


def written(path, held):
    """A bundle of name -> (dtype, shape, bytes), without gin."""
    path.mkdir()
    named = sorted(held.items(), key=lambda item: item[0].encode())
    flat = ([np.frombuffer(raw, dtype)] for _, (dtype, _, raw) in named)
    bundle.write(path / "model.ckpt", [(key, dtype, shape) for key, (dtype, shape, _) in named], flat)


def config_of(path):
    return t5_config.Config(**json.loads((path / "config.json").read_text())["config"])


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("to", CONFIGS)
def test_there_and_back_is_bitwise_equal(to, dtype, tmp_path):
    ours = folder(tmp_path / "ours", CONFIGS[to], dtype)
    assert tiny.run(ours, tmp_path / "foreign", "--to", to, "--verify") == 0
    assert tiny.run(tmp_path / "foreign", tmp_path / "back", "--verify") == 0
    assert tiny.held(tmp_path / "back") == tiny.held(ours)
    before, after = (json.loads((path / "config.json").read_text()) for path in (ours, tmp_path / "back"))
    assert after["config"] == before["config"] and after["end"] == before["end"] and after["architecture"] == "t5"


@pytest.mark.parametrize("name", ["t5", "mt5_1_1"])
def test_google_s_files_come_back_bitwise_with_their_gin(name, golden, tmp_path):
    to = name.removesuffix("_1_1")
    original = golden / "google_t5" / name
    assert tiny.run(original, tmp_path / "ours", "--verify") == 0
    assert tiny.run(tmp_path / "ours", tmp_path / "back", "--to", to, "--verify") == 0
    before, after = tiny.held(original), tiny.held(tmp_path / "back")
    assert before.keys() - after.keys() == {"global_step"} and all(before[key] == value for key, value in after.items())
    assert (tmp_path / "back/operative_config.gin").read_text().split() == (original / "operative_config.gin").read_text().split()


@pytest.mark.parametrize(
    ("name", "to", "other"),
    [("t5", "t5-hf", "transformers/t5"), ("mt5_1_1", "t5.1.1-hf", "transformers/t5_1_1"), ("mt5_1_1", "t5.1.1", "google_t5/t5_1_1")],
)
def test_the_same_weights_elsewhere_are_the_same_bits(name, to, other, golden, tmp_path):
    """Those of transformers, and of the other Google spelling, by the digest of every tensor."""
    assert tiny.run(golden / "google_t5" / name, tmp_path / "there", "--to", to) == 0
    wanted = json.loads((golden / "google_t5/digests.json").read_text())[other]
    found = {key: [list(shape), hashlib.sha256(raw).hexdigest()[:16]] for key, (_, shape, raw) in tiny.held(tmp_path / "there").items()}
    assert found == wanted


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "to"),
    [("google_t5/t5", "t5"), ("google_t5/t5_1_1", "t5.1.1"), ("google_t5/mt5_1_1", "mt5"), ("transformers/t5", "t5-hf"),
     ("transformers/t5_1_1", "t5.1.1-hf")],
)  # fmt: skip
def test_every_reference_comes_back_bitwise(name, to, shared, tmp_path):
    assert tiny.run(shared / "oracle" / name, tmp_path / "ours") == 0
    assert tiny.run(tmp_path / "ours", tmp_path / "back", "--to", to) == 0
    before, after = tiny.held(shared / "oracle" / name), tiny.held(tmp_path / "back")
    assert before.keys() - after.keys() <= {"global_step"} and all(before[key] == value for key, value in after.items())


def test_without_gin_the_tensors_show_the_sizes(tmp_path, capsys):
    for to in ("t5", "mt5"):
        path = foreign(tmp_path / to, to)
        (path / "operative_config.gin").unlink()
        assert tiny.run(path, tmp_path / f"{to}-back") == 0
        assert config_of(tmp_path / f"{to}-back") == CONFIGS[to]
        assert "sizes from the tensors" in capsys.readouterr().out
        shutil.rmtree(tmp_path / "ours")


def test_the_gin_of_a_real_run_is_read_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = foreign(tmp_path / "t5", "t5")
    (path / "operative_config.gin").write_bytes(REAL_GIN)
    assert tiny.run(path, tmp_path / "back") == 0
    assert config_of(tmp_path / "back") == dataclasses.replace(PLAIN, dropout=0.25)
    assert not (tmp_path / "gin-was-run").exists()


@pytest.mark.parametrize(
    ("line", "why"),
    [("d_model = 7", "width is 7 by operative_config.gin, 6 by the tensors"), ("d_kv = 3", "wanted [6, 9]"),
     ("d_ff = -1", "'hidden' is -1"), ("d_ff = 10\nx.d_ff = 11", "d_ff is 10 in one line and 11 in another"),
     ("num_heads = 1e1", "'heads' is 10.0")],
)  # fmt: skip
def test_a_gin_that_does_not_fit_is_refused(line, why, tmp_path, capsys):
    path = foreign(tmp_path / "t5", "t5")
    (path / "operative_config.gin").write_text(line)
    assert tiny.run(path, tmp_path / "back") in (errors.Mismatch.exit_code, errors.Corrupt.exit_code)
    assert why in capsys.readouterr().err and not (tmp_path / "back").exists()


def test_a_lost_table_of_distances_is_named_where_no_gin_says_the_heads(tmp_path, capsys):
    path = foreign(tmp_path / "t5-hf", "t5-hf")
    tiny.rewrite(path, lambda held: held.pop("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))
    assert tiny.run(path, tmp_path / "back") == errors.Mismatch.exit_code
    assert "encoder/relative/embedding [8, 3] is never set" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "ours")
    path = foreign(tmp_path / "t5", "t5")
    (path / "operative_config.gin").unlink()
    written(tmp_path / "less", {key: value for key, value in tiny.held(path).items() if "relative" not in key})
    assert tiny.run(tmp_path / "less", tmp_path / "back") == errors.Mismatch.exit_code
    assert "heads, buckets, head_width cannot be read off the tensors" in capsys.readouterr().err


def test_adafactor_s_moments_and_the_step_are_left_behind(tmp_path, capsys):
    path = foreign(tmp_path / "mt5", "mt5")
    slots = {"shared/embedding_slot_vr": 13, "shared/embedding_slot_vc": 6, "encoder/rms_norm/scale_slot_v": 6, "global_step": 1}
    more = {key: (np.dtype("f4"), (size,), bytes(4 * size)) for key, size in slots.items()}
    written(tmp_path / "more", tiny.held(path) | more)
    assert tiny.run(tmp_path / "more", tmp_path / "back") == 0
    said = capsys.readouterr().out
    assert all(why in said for why in ("AdaFactor's row moments", "AdaFactor's moments", "the step of its training"))
    assert tiny.held(tmp_path / "back") == tiny.held(tmp_path / "ours")


REPEATS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


def test_repeats_of_a_tied_embedding_are_checked_and_left_behind(tmp_path, capsys):
    path = foreign(tmp_path / "t5-hf", "t5-hf")
    tiny.rewrite(path, lambda held: held.update(dict.fromkeys(REPEATS, held["shared.weight"])))
    assert tiny.run(path, tmp_path / "back") == 0 and config_of(tmp_path / "back") == PLAIN
    assert tiny.held(tmp_path / "back") == tiny.held(tmp_path / "ours")
    for name in REPEATS:
        tiny.rewrite(path, lambda held, name=name: held.update({name: held["shared.weight"] + 1}))
        assert tiny.run(path, tmp_path / "other") != 0
        assert name in capsys.readouterr().err
        tiny.rewrite(path, lambda held, name=name: held.update({name: held["shared.weight"]}))


def test_a_repeat_beside_a_published_size_needs_no_json(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "t5-small", PLAIN)
    path = foreign(tmp_path / "t5-hf", "t5-hf")
    tiny.rewrite(path, lambda held: held.update({"lm_head.weight": held["shared.weight"]}))
    (path / "config.json").unlink()
    assert tiny.run(path, tmp_path / "back", "--model", "t5-small") == 0
    assert tiny.held(tmp_path / "back") == tiny.held(tmp_path / "ours")


def test_an_embedding_that_only_its_repeats_hold_is_taken_from_them(tmp_path):
    path = foreign(tmp_path / "t5-hf", "t5-hf")
    tiny.rewrite(path, lambda held: held.update(dict.fromkeys(REPEATS[:2], held.pop("shared.weight"))))
    assert tiny.run(path, tmp_path / "back", "--model", "t5-hf") == 0
    assert tiny.held(tmp_path / "back") == tiny.held(tmp_path / "ours")


def test_a_table_that_nothing_reads_is_left_behind(tmp_path, capsys):
    path = foreign(tmp_path / "t5-hf", "t5-hf")
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tiny.rewrite(path, lambda held: held.update({name: np.zeros((8, 3), np.float32)}))
    assert tiny.run(path, tmp_path / "back") == 0 and "nothing reads" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("to", "fields", "why"),
    [
        ("t5.1.1-hf", {"feed_forward_proj": "gated-silu"}, "'gated-silu'; flaxgen has 'relu', 'gated-gelu'"),
        ("t5.1.1-hf", {"feed_forward_proj": "relu"}, "'feed_forward_proj' says relu; the tensors are those of gated_gelu"),
        ("t5.1.1-hf", {"scale_decoder_outputs": True}, "flaxgen scales before a tied head only"),
        ("t5.1.1-hf", {"scale_decoder_outputs": True, "tie_word_embeddings": True}, "'lm_head.weight' differs from 'shared.weight'"),
        ("t5-hf", {"scale_decoder_outputs": False, "tie_word_embeddings": False}, "'lm_head.weight' is missing"),
        ("t5-hf", {"model_type": "umt5"}, "'model_type' is 'umt5'; flaxgen has 't5' or 'mt5' only"),
        ("t5-hf", {"d_kv": 5}, "wanted [15, 6]"),
        ("t5-hf", {"num_decoder_layers": 2}, "decoder_layers is 2 by config.json, 1 by the tensors"),
        ("t5-hf", {"vocab_size": 14}, "vocab is 14 by config.json, 13 by the tensors"),
        ("t5-hf", {"eos_token_id": "</s>"}, "'eos_token_id' is '</s>'"),
    ],
)
def test_a_json_that_does_not_fit_is_refused_by_name(to, fields, why, tmp_path, capsys):
    path = foreign(tmp_path / "hf", to)
    tiny.edit(path / "config.json", **fields)
    assert tiny.run(path, tmp_path / "back") == errors.Mismatch.exit_code
    assert why in capsys.readouterr().err


def test_mt5_of_transformers_has_a_head_of_its_own_whatever_its_json_says(tmp_path, capsys):
    path = foreign(tmp_path / "hf", "t5.1.1-hf")
    tiny.edit(path / "config.json", model_type="mt5", tie_word_embeddings=True, scale_decoder_outputs=None, spell=1)
    assert tiny.run(path, tmp_path / "back") == 0 and config_of(tmp_path / "back") == GATED
    assert "not known, and left: spell" in capsys.readouterr().out


@pytest.mark.parametrize("to", ["t5-hf", "t5.1.1-hf"])
def test_a_head_that_is_tied_and_not_scaled_is_the_embedding(to, tmp_path):
    """As transformers 5 saves T5 1.1 and mT5 that were made with tied tables: no lm_head.weight."""
    path = foreign(tmp_path / "hf", "t5-hf" if to == "t5-hf" else "t5.1.1-hf")
    tiny.rewrite(path, lambda held: held.pop("lm_head.weight", None))
    tiny.edit(path / "config.json", tie_word_embeddings=True, scale_decoder_outputs=False)
    assert tiny.run(path, tmp_path / "ours-too") == 0 and config_of(tmp_path / "ours-too").head == "own"
    held = tiny.held(tmp_path / "ours-too")
    assert held["head/kernel"] == held["embed/token/embedding"]
    assert tiny.run(tmp_path / "ours-too", tmp_path / "back", "--to", to) == 0
    written = tiny.held(tmp_path / "back")
    assert written.pop("lm_head.weight") == written["shared.weight"] and written == tiny.held(path)
    assert tiny.run(tmp_path / "back", tmp_path / "again") == 0 and tiny.held(tmp_path / "again") == held


@pytest.mark.parametrize(("to", "head"), [("t5-hf", "own"), ("t5.1.1-hf", "tied")])
def test_head_and_activation_go_together_in_any_way(to, head, tmp_path):
    config = dataclasses.replace(CONFIGS[to], head=head)
    folder(tmp_path / "ours", config)
    assert tiny.run(tmp_path / "ours", tmp_path / "hf", "--to", to) == 0
    assert tiny.run(tmp_path / "hf", tmp_path / "back") == 0
    assert config_of(tmp_path / "back") == config and tiny.held(tmp_path / "back") == tiny.held(tmp_path / "ours")


@pytest.mark.parametrize(
    ("to", "other", "why"),
    [("t5", "t5.1.1", "activation"), ("t5.1.1", "t5-hf", "activation"), ("t5.1.1", "t5", "head"), ("t5", "gpt2-hf", "architecture")],
)
def test_a_format_that_cannot_hold_it_is_refused(to, other, why, tmp_path, capsys):
    folder(tmp_path / "ours", CONFIGS[to])
    assert tiny.run(tmp_path / "ours", tmp_path / "there", "--to", other) == errors.Mismatch.exit_code
    assert f"its {why} is" in capsys.readouterr().err


def test_what_google_s_format_has_built_in_is_not_lost(tmp_path, capsys):
    folder(tmp_path / "ours", dataclasses.replace(PLAIN, epsilon=1e-5))
    assert tiny.run(tmp_path / "ours", tmp_path / "there", "--to", "t5") == errors.Mismatch.exit_code
    assert "epsilon 1e-05" in capsys.readouterr().err


ODD = (None, True, -1, 0, 1.5, 10**30, "x", [], {}, [1, 2], "relu", float("nan"))


def test_fields_of_wrong_types_are_values_errors_or_fit():
    """600 cards with a few fields replaced, through transformers' and Google's readers."""
    choose = random.Random(0)
    card = t5_hf.write(table.Card(GATED, (1,)))
    sizes = {"vocab": 13, "width": 6, "heads": 3, "buckets": 8, "hidden": 10, "layers": 1, "decoder_layers": 2, "inner": 12, "d_model": 6}
    for number in range(600):
        read, whole = (formats.FORMATS["t5.1.1-hf"].read, card) if number % 2 else (formats.FORMATS["mt5"].read, sizes)
        changed = whole | {choose.choice(list(whole)): choose.choice(ODD) for _ in range(choose.randint(1, 3))}
        try:
            assert isinstance(read(changed).config, t5_config.Config)
        except (ValueError, TypeError) as error:
            assert str(error)


def test_damaged_gin_is_read_as_far_as_it_goes():
    """400 mutations: numbers or a ValueError, in bounded time."""
    choose, parse = random.Random(1), gin.parser(("d_model", "num_layers"))
    assert parse(REAL_GIN) == {"d_model": 6, "num_layers": 7, "encoder/num_layers": 2, "decoder/num_layers": 1}
    for _ in range(400):
        raw = bytearray(REAL_GIN)
        for _ in range(choose.randint(1, 20)):
            place = choose.randrange(len(raw))
            raw[place : place + choose.randint(0, 3)] = choose.randbytes(choose.randint(0, 4))
        try:
            assert all(type(value) in (int, float) for value in parse(bytes(raw)).values())
        except ValueError as error:
            assert "in one line and" in str(error)
    assert parse(b"d_model = " + b"9" * 10**6) == {} and parse(b"d_model=" * 10**5) == {}


def test_the_source_of_a_bundle_is_told_from_its_names(golden):
    from convert import matching

    for name, wanted in (("t5", "t5"), ("mt5_1_1", "mt5")):
        found = matching.match(source.open_source(golden / "google_t5" / name), None)
        assert found.format.name == wanted and found.card.end == (1,)
