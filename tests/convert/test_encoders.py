"""BERT and its kin: which of them a file holds, with which heads, and what its JSON says."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
import tiny

from flaxgen import errors

MISMATCH = errors.Mismatch.exit_code
NAMED = ("nezha", "roformer")  # they have the same tensors


def sizes(folder) -> dict:
    return json.loads((folder / "config.json").read_text())["config"]


def paper(folder):
    return next(folder / name for name in ("bert_config.json", "albert_config.json", "config.json") if (folder / name).exists())


def read(source, target, *more):
    assert tiny.run(source, target, *more) == 0
    return sizes(target)


@pytest.fixture
def refused(tmp_path, capsys):
    def refused(source, *arguments):
        assert tiny.run(source, tmp_path / "target", *arguments) == MISMATCH
        return capsys.readouterr().err

    return refused


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("to", tiny.ENCODERS)
def test_there_and_back_is_bitwise_equal(to, dtype, tmp_path):
    ours = tiny.folder(tmp_path / "ours", tiny.ENCODERS[to], dtype)
    assert tiny.run(ours, tmp_path / "foreign", "--to", to, "--verify") == 0
    named = ("--model", to) if to in NAMED else ()
    assert tiny.run(tmp_path / "foreign", tmp_path / "back", *named) == 0
    assert tiny.held(tmp_path / "back") == tiny.held(ours) and sizes(tmp_path / "back") == sizes(ours)


@pytest.mark.parametrize("to", ["bert", "bert-hf", "albert-hf"])
@pytest.mark.parametrize("outputs", [(), ("mlm",), ("pool",), ("mlm", "pool"), ("pool", "nsp")])
def test_the_heads_are_those_that_have_tensors(to, outputs, tmp_path):
    config = dataclasses.replace(tiny.ENCODERS[to], outputs=outputs)
    ours = tiny.folder(tmp_path / "ours", config)
    assert tiny.run(ours, tmp_path / "foreign", "--to", to) == 0
    assert read(tmp_path / "foreign", tmp_path / "back")["outputs"] == list(outputs)
    bare = to != "bert" and outputs in ((), ("pool",))
    names = tiny.held(tmp_path / "foreign")
    assert any(name.startswith("embeddings.") for name in names) == bare


def test_a_head_that_is_there_in_part_is_missed_not_ignored(tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "bert", "bert")
    tiny.rewrite(foreign, lambda found: [found.pop(name) for name in ("bert/pooler/dense/bias", "cls/predictions/transform/dense/kernel")])
    said = refused(foreign)
    assert "'bert/pooler/dense/bias' is missing" in said and "'cls/predictions/transform/dense/kernel' is missing" in said


def test_an_electra_generator_of_transformers_has_an_mlm_head(tmp_path):
    ours = tiny.folder(tmp_path / "ours", dataclasses.replace(tiny.NARROW, outputs=("mlm",)))
    assert tiny.run(ours, tmp_path / "foreign", "--to", "electra-hf") == 0
    assert "generator_lm_head.bias" in tiny.held(tmp_path / "foreign")
    assert read(tmp_path / "foreign", tmp_path / "back")["outputs"] == ["mlm"]
    assert json.loads(paper(tmp_path / "foreign").read_text())["architectures"] == ["ElectraForMaskedLM"]


def test_nezha_and_roformer_cannot_be_told_apart_without_their_json(tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "nezha", "nezha")
    assert "2 models fit its tensors: nezha, roformer" in refused(foreign)
    assert read(foreign, tmp_path / "one", "--model", "roformer")["position"] == "rotary"
    tiny.edit(paper(foreign), use_relative_position=True)
    assert read(foreign, tmp_path / "two")["position"] == "relative"
    assert "use_relative_position" in refused(foreign, "--model", "roformer")


def test_a_gpt_is_told_from_a_gpt2_of_the_same_prefix(tmp_path):
    gpt2 = tiny.foreign(tmp_path / "gpt2", "gpt2-bert4keras")
    assert read(gpt2, tmp_path / "one")["wiring"] == "pre"
    assert read(tiny.foreign(tmp_path / "gpt", "gpt"), tmp_path / "two")["wiring"] == "post"


def test_a_bare_encoder_of_transformers_is_told_by_its_json(tmp_path, refused):
    """Without prefix and heads, ELECTRA of equal widths has BERT's tensors."""
    ours = tiny.folder(tmp_path / "ours", dataclasses.replace(tiny.POST, outputs=()))
    for to in ("bert-hf", "electra-hf"):
        assert tiny.run(ours, tmp_path / to, "--to", to) == 0
        assert read(tmp_path / to, tmp_path / f"{to}-back")["outputs"] == []
        assert json.loads((tmp_path / f"{to}-back/config.json").read_text())["source"]["format"] == to
    (tmp_path / "bert-hf/config.json").unlink()
    assert "2 models fit its tensors: bert-hf, electra-hf" in refused(tmp_path / "bert-hf")


def test_albert_unshared_gives_every_layer_a_copy_and_goes_back_while_they_are_equal(tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "albert", "albert")
    assert read(foreign, tmp_path / "own", "--model", "albert-unshared")["sharing"] == "none"
    held = tiny.held(tmp_path / "own")
    assert held["block_00/mlp/up/kernel"] == held["block_01/mlp/up/kernel"]
    assert tiny.run(tmp_path / "own", tmp_path / "back", "--to", "albert") == 0
    assert tiny.held(tmp_path / "back") == tiny.held(foreign)
    tiny.rewrite(tmp_path / "own", lambda found: found["block_01/mlp/up/kernel"].__setitem__((3, 2), 9.0))
    for to in ("albert", "albert-hf"):
        assert "'block_00/mlp/up/kernel' and 'block_01/mlp/up/kernel' differ" in refused(tmp_path / "own", "--to", to)


def test_slots_steps_and_electras_generator_are_dropped_by_name(tmp_path, capsys):
    foreign = tiny.foreign(tmp_path / "electra", "electra")
    before = tiny.held(tmp_path / "electra-ours")

    def change(found):
        for name in [*found]:
            found |= {f"{name}/adam_m": found[name], f"{name}/adam_v": found[name]}
        found |= {"generator/encoder/layer_0/output/dense/kernel": np.zeros((3, 4), np.float32), "global_step": np.array(7, np.int64),
                  "generator_predictions/output_bias": np.zeros(13, np.float32)}  # fmt: skip

    tiny.rewrite(foreign, change)
    assert tiny.run(foreign, tmp_path / "ours") == 0
    assert "ELECTRA's generator" in capsys.readouterr().out and tiny.held(tmp_path / "ours") == before


def test_older_spellings_constants_and_copies_of_transformers_are_known(tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "bert", "bert-hf")
    before = tiny.held(tmp_path / "bert-ours")

    def change(found):
        renamed = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
                   for name, each in found.items()}  # fmt: skip
        renamed |= {"bert.embeddings.position_ids": np.arange(7)[None], "cls.predictions.decoder.bias": found["cls.predictions.bias"],
                    "cls.predictions.decoder.weight": found["bert.embeddings.word_embeddings.weight"]}  # fmt: skip
        found.clear()
        found |= renamed

    tiny.rewrite(foreign, change)
    assert tiny.run(foreign, tmp_path / "one") == 0 and tiny.held(tmp_path / "one") == before
    tiny.rewrite(foreign, lambda found: found.pop("cls.predictions.bias"))
    assert tiny.run(foreign, tmp_path / "two") == 0 and tiny.held(tmp_path / "two") == before
    tiny.rewrite(foreign, lambda found: found.update({"cls.predictions.bias": found["cls.predictions.decoder.bias"] + 1}))
    assert "'cls.predictions.decoder.bias' differs from 'cls.predictions.bias'" in refused(foreign)


def test_bert4kerass_own_keys_come_first_and_fall_back_to_googles(tmp_path):
    foreign = tiny.foreign(tmp_path / "bert", "bert")
    fields = json.loads(paper(foreign).read_text())
    fields |= {"max_position": 7, "max_position_embeddings": 99, "segment_vocab_size": 2, "type_vocab_size": 5, "dropout_rate": 0.25}
    paper(foreign).write_text(json.dumps(fields))
    found = read(foreign, tmp_path / "one")
    assert (found["positions"], found["segments"], found["dropout"]) == (7, 2, 0.25)
    for name in ("max_position", "max_position_embeddings", "segment_vocab_size", "type_vocab_size"):
        del fields[name]
    paper(foreign).write_text(json.dumps(fields))
    found = read(foreign, tmp_path / "two")
    assert (found["positions"], found["segments"]) == (7, 2)


@pytest.mark.parametrize("said,activation", [("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("gelu_tanh", "gelu_tanh"), ("relu", "relu")])
@pytest.mark.parametrize("to", ["bert", "bert-hf"])
def test_activations_have_many_names(to, said, activation, tmp_path):
    foreign = tiny.foreign(tmp_path / "bert", to)
    tiny.edit(paper(foreign), hidden_act=said)
    assert read(foreign, tmp_path / "one")["activation"] == activation
    assert tiny.run(tmp_path / "one", tmp_path / "back", "--to", to) == 0
    assert read(tmp_path / "back", tmp_path / "two")["activation"] == activation


@pytest.mark.parametrize("to,field,value", [
    ("bert", "hidden_act", "swish"), ("bert", "hierarchical_position", 0.4), ("bert", "shared_segment_embeddings", True),
    ("bert", "use_relative_position", True), ("bert", "attention_head_size", 5), ("bert", "attention_key_size", 6),
    ("bert", "residual_attention_scores", True), ("bert", "layer_norm_eps", 1e-5), ("bert", "ln_type", "preln"),
    ("albert", "num_hidden_groups", 2), ("albert", "inner_group_num", 2), ("albert", "net_structure_type", 1),
    ("bert-hf", "model_type", "roberta"), ("bert-hf", "position_embedding_type", "relative_key"), ("bert-hf", "add_cross_attention", True),
    ("roformer-hf", "rotary_value", True), ("nezha-hf", "max_relative_position", 32),
    ("bert", "num_hidden_layers", 10**9), ("albert", "num_hidden_layers", 10**9), ("bert", "hidden_size", "12"),
    ("bert", "vocab_size", None), ("bert", "embedding_size", 5), ("bert", "type_vocab_size", 3), ("bert", "max_position_embeddings", 8),
    ("bert", "num_attention_heads", 5),
])  # fmt: skip
def test_a_json_that_asks_for_something_else_is_refused_by_the_fields_name(to, field, value, tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "bert", to)
    tiny.edit(paper(foreign), **{field: value})
    ours = {"num_hidden_layers": "layers", "hidden_size": "width", "vocab_size": "vocab", "embedding_size": "embedding",
            "type_vocab_size": "segments", "max_position_embeddings": "positions", "num_attention_heads": "heads"}  # fmt: skip
    said = refused(foreign, "--model", to)
    assert field in said or ours[field] in said


def test_fields_that_nobody_knows_are_named_and_left(tmp_path, capsys):
    foreign = tiny.foreign(tmp_path / "bert", "bert")
    tiny.edit(paper(foreign), colour="blue", attention_probs_dropout_prob=0.0, pooler_type="first_token_transform")
    assert tiny.run(foreign, tmp_path / "one") == 0
    said = capsys.readouterr().out
    assert "not known, and left: colour" in said and "pooler_type" not in said and "dropout of attention is 0.0" in said


@pytest.mark.parametrize(("to", "activation"), [("bert-hf", "gelu"), ("albert-hf", "gelu_tanh"), ("albert", "gelu")])
def test_an_absent_activation_is_that_of_the_originals_and_said(to, activation, tmp_path, capsys):
    foreign = tiny.foreign(tmp_path / "foreign", to)
    for number, fields in enumerate(({"hidden_act": None}, {})):
        fields = json.loads(paper(foreign).read_text()) | fields
        paper(foreign).write_text(json.dumps({name: value for name, value in fields.items() if number == 0 or name != "hidden_act"}))
        assert read(foreign, tmp_path / f"back-{number}")["activation"] == activation
        assert "the JSON has no hidden_act: gelu" in capsys.readouterr().out


def test_null_in_a_json_is_as_good_as_absent(tmp_path):
    foreign = tiny.foreign(tmp_path / "bert", "bert-hf")
    tiny.edit(paper(foreign), position_embedding_type=None, is_encoder_decoder=None, model_type=None, num_hidden_groups=None)
    assert read(foreign, tmp_path / "back")["position"] == "learned"


def test_albert_of_equal_widths_is_not_transformers_(tmp_path, refused):
    ours = tiny.folder(tmp_path / "ours", dataclasses.replace(tiny.POST, sharing="all"))
    assert "both 12: transformers has a map between them even then" in refused(ours, "--to", "albert-hf")
    foreign = tiny.foreign(tmp_path / "albert", "albert-hf")

    def widen(found):
        for name, each in found.items():
            size = [12 if length == 5 else length for length in each.shape]
            found[name] = np.resize(each, size)

    tiny.rewrite(foreign, widen)
    tiny.edit(paper(foreign), embedding_size=12)
    assert "both 12: transformers has a map between them even then" in refused(foreign)


def test_an_electra_generator_has_gelu_and_a_discriminator_any_activation(tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "discriminator", "electra-hf")
    tiny.edit(paper(foreign), hidden_act="relu")
    assert read(foreign, tmp_path / "back")["activation"] == "relu"
    assert tiny.run(tmp_path / "back", tmp_path / "there", "--to", "electra-hf") == 0
    assert json.loads(paper(tmp_path / "there").read_text())["hidden_act"] == "relu"
    ours = tiny.folder(tmp_path / "generator", dataclasses.replace(tiny.NARROW, outputs=("mlm",)))
    assert tiny.run(ours, tmp_path / "foreign", "--to", "electra-hf") == 0
    tiny.edit(paper(tmp_path / "foreign"), hidden_act="relu")
    assert "transformers' generator has 'gelu'" in refused(tmp_path / "foreign")
    odd = tiny.folder(tmp_path / "odd", dataclasses.replace(tiny.NARROW, outputs=("mlm",), activation="relu"))
    assert "transformers' generator has 'gelu'" in refused(odd, "--to", "electra-hf")


def sines(shape):
    """Element by element: RoFormer's halves for (N, K), NEZHA's pairs of clipped distances for (T, T, K)."""
    found = np.empty(shape, np.float32)
    for place in np.ndindex(shape):
        inside = place[-1]
        if len(shape) == 2:
            row, part, pair = place[0], inside // (shape[1] // 2), inside % (shape[1] // 2)
        else:
            row, part, pair = min(max(place[1] - place[0], -64), 64) + 64, inside % 2, inside // 2
        found[place] = (np.sin, np.cos)[part](row / 10000 ** (2 * pair / shape[-1]))
    return found


CONSTANTS = {"roformer-hf": ("roformer.encoder.embed_positions.weight", (7, 4)),
             "nezha-hf": ("nezha.encoder.layer.0.attention.self.relative_positions_encoding.positions_encoding", (70, 70, 4))}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("to", CONSTANTS)
def test_a_table_of_sines_is_left_behind_once_it_is_seen_to_be_one(to, dtype, tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "foreign", to)
    name, shape = CONSTANTS[to]
    tiny.rewrite(foreign, lambda found: found.update({name: sines(shape).astype(dtype)}))
    assert read(foreign, tmp_path / "back")["position"] == {"roformer-hf": "rotary", "nezha-hf": "relative"}[to]
    tiny.rewrite(foreign, lambda found: found[name].__setitem__((3,) * len(shape), 2))
    assert f"tensor {name!r} {list(shape)} does not hold sines" in refused(foreign)
    tiny.rewrite(foreign, lambda found: found.update({name: np.zeros(5, dtype)}))
    assert "does not hold sines" in refused(foreign)


def test_a_message_does_not_repeat_a_long_value(tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "bert", "bert")
    said = json.loads(paper(foreign).read_text())
    for field, value in (
        ("vocab_size", 10**400),
        ("hidden_size", "9" * 9999),
        ("hidden_act", ["gelu"] * 999),
        ("num_hidden_layers", 10**99),
    ):
        paper(foreign).write_text(json.dumps(said | {field: value}))
        assert max(map(len, refused(foreign).splitlines())) < 400


def test_a_json_that_is_not_the_preset_s_is_told_by_its_fields(tmp_path, refused):
    foreign = tiny.foreign(tmp_path / "bert", "bert")
    said = refused(foreign, "--model", "bert-base-chinese")
    assert "bert_config.json is not --model bert-base-chinese: vocab is 13, wanted 21128, " in said and "epsilon is" not in said


def test_a_decoder_of_transformers_is_a_language_model(tmp_path):
    ours = tiny.folder(tmp_path / "ours", dataclasses.replace(tiny.POST, outputs=("mlm",), application="lm"))
    assert tiny.run(ours, tmp_path / "foreign", "--to", "bert-hf") == 0
    assert read(tmp_path / "foreign", tmp_path / "back")["application"] == "lm"


def test_published_sizes_need_no_json(tmp_path, refused):
    config = dataclasses.replace(tiny.POST, width=256, embedding=128, heads=4, hidden=1024, positions=512, layers=12, outputs=())
    ours = tiny.folder(tmp_path / "ours", config)
    assert tiny.run(ours, tmp_path / "electra", "--to", "electra") == 0
    paper(tmp_path / "electra").unlink()
    assert read(tmp_path / "electra", tmp_path / "one")["heads"] == 4
    other = tiny.foreign(tmp_path / "bert", "bert")
    paper(other).unlink()
    assert "number of attention heads cannot be read off" in refused(other)


@pytest.mark.parametrize("to", [name for name in tiny.ENCODERS if name != "bert"])
def test_what_a_format_has_no_place_for_is_refused(to, tmp_path, refused):
    odd = dataclasses.replace(tiny.POST, wiring="pre", embedding_norm="none")
    assert f"--to {to} cannot hold this model" in refused(tiny.folder(tmp_path / "odd", odd), "--to", to)
    if tiny.ENCODERS[to].norm == "layer":
        tied = dataclasses.replace(tiny.NARROW, outputs=("tied",))
        assert "cannot hold this model" in refused(tiny.folder(tmp_path / "tied", tied), "--to", to)
