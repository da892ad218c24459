"""Smaller vocabularies: the logits of the kept tokens stay what they were, and the way back is bitwise."""

import json

import jax
import numpy as np
import pytest
import tiny

import flaxgen
from flaxgen import errors, tensors, weights
from flaxgen.models import t5_config, vocabulary
from flaxgen.text import wordpiece

MISMATCH = errors.Mismatch.exit_code
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "天", "气", "不", "错", "天气", "a", "b", "##b"]
KEPT = [0, 1, 3, 7, 10, 5]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    ours = tiny.folder(tmp_path / "ours", tiny.POST)
    assert tiny.run(ours, tmp_path / "full", "--vocab", tmp_path / "words.txt") == 0
    return tmp_path / "full"


def listed(path, lines):
    path.write_text("\n".join(map(str, lines)) + "\n", encoding="utf-8")
    return path


apply = jax.jit(lambda model, params, token_BT: model.apply(params, token_BT, head="logits")[0], static_argnums=0)


def logits(model, params, token_BT):
    return np.asarray(apply(model, params, token_BT))


@pytest.mark.parametrize("application", ["encoder", "lm"])
def test_the_logits_of_kept_tokens_are_the_same_bits(application, folder, tmp_path):
    assert tiny.run(folder, tmp_path / "less", "--keep", listed(tmp_path / "ids.txt", KEPT)) == 0
    full_model, full_params, _ = flaxgen.load(folder, application=application)
    model, params, text = flaxgen.load(tmp_path / "less", application=application)
    assert model.config.vocab == len(KEPT) and list(text.tokens) == [TOKENS[i] for i in KEPT]
    token_BT = np.random.default_rng(0).integers(0, len(KEPT), (2, 5))
    wanted_BTV = logits(full_model, full_params, np.array(KEPT)[token_BT])[..., KEPT]
    np.testing.assert_array_equal(logits(model, params, token_BT), wanted_BTV)


def test_tokens_are_named_by_id_by_entry_or_by_bert4kerass_rule(folder, tmp_path):
    asked = {"ids": listed(tmp_path / "ids.txt", KEPT), "entries": listed(tmp_path / "entries.txt", [TOKENS[i] for i in KEPT]),
             "simplified": "simplified"}  # fmt: skip
    for name, what in asked.items():
        assert tiny.run(folder, tmp_path / name, "--keep", what) == 0
        assert json.loads((tmp_path / name / "kept.json").read_text())["rows"] == 13
    assert tiny.held(tmp_path / "ids") == tiny.held(tmp_path / "entries")
    assert vocabulary.load(tmp_path / "ids").ids == tuple(KEPT)
    assert "天气" not in (tmp_path / "simplified/vocab.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("to", ["flaxgen", "bert", "bert-hf"])
def test_the_full_model_comes_back_bitwise_with_what_was_trained_in_between(to, folder, tmp_path):
    assert tiny.run(folder, tmp_path / "less", "--keep", listed(tmp_path / "ids.txt", KEPT), "--to", to) == 0
    assert tiny.run(tmp_path / "less", tmp_path / "back", "--restore", folder) == 0
    assert tiny.held(tmp_path / "back") == tiny.held(folder) and not (tmp_path / "back/kept.json").exists()
    assert (tmp_path / "back/vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()
    assert tiny.run(tmp_path / "less", tmp_path / "mine") == 0

    def train(found):
        found["embed/token/embedding"] += 1
        found["block_01/mlp/up/kernel"] *= 2

    tiny.rewrite(tmp_path / "mine", train)
    assert tiny.run(tmp_path / "mine", tmp_path / "trained", "--restore", folder) == 0
    _, before, _ = flaxgen.load(folder)
    _, after, _ = flaxgen.load(tmp_path / "trained")
    before, after = (weights.flatten(each) for each in (before, after))
    changed_V = np.isin(np.arange(13), KEPT)
    gap_VD = np.asarray(after["embed/token/embedding"] - before["embed/token/embedding"])
    np.testing.assert_allclose(gap_VD[changed_V], 1, atol=1e-6)
    assert (gap_VD[~changed_V] == 0).all()
    np.testing.assert_array_equal(after["block_01/mlp/up/kernel"], 2 * before["block_01/mlp/up/kernel"])


def test_compound_tokens_are_means_over_the_kept_table(folder, tmp_path):
    compounds = [{"ids": [3, 5], "token": "不天"}, {"ids": [3, 4, 5], "weights": [1, 2, 5], "token": "不a天"}]
    (tmp_path / "asked.json").write_text(json.dumps({"ids": KEPT, "compounds": compounds}))
    assert tiny.run(folder, tmp_path / "less", "--keep", tmp_path / "asked.json") == 0
    _, full, _ = flaxgen.load(folder)
    _, params, text = flaxgen.load(tmp_path / "less")
    assert text.tokens[-2:] == ("不天", "不a天")
    for path in ("embed/token/embedding", "mlm/bias"):
        table = np.asarray(weights.flatten(full)[path])[KEPT]
        wanted = np.stack([np.average(table[[3, 5]], 0), np.average(table[[3, 4, 5]], 0, [1, 2, 5])])
        np.testing.assert_allclose(weights.flatten(params)[path][-2:], wanted, rtol=1e-6)
    assert tiny.run(tmp_path / "less", tmp_path / "back", "--restore", folder) == 0
    assert tiny.held(tmp_path / "back") == tiny.held(folder)


def test_a_loaded_model_is_trimmed_and_restored_in_python(folder, tmp_path):
    model, params, text = flaxgen.load(folder)
    small, less, words, kept = vocabulary.trim(model, params, text, KEPT, [vocabulary.Compound((3, 5), token="不天")])
    assert (small.config.vocab, len(words), len(kept)) == (7, 7, 7)
    assert words.decode(words.encode("天不")) == "天不"
    token_BT = np.array([[0, 3, 5], [2, 4, 1]])
    np.testing.assert_array_equal(logits(small, less, token_BT)[..., :6], logits(model, params, np.array(KEPT)[token_BT])[..., KEPT])
    flaxgen.save(tmp_path / "less", small, less, words)
    kept.save(tmp_path / "less")
    again, back = vocabulary.restore(small, less, vocabulary.load(tmp_path / "less"), model, params)
    assert again.config == model.config
    assert all(np.array_equal(one, two) for one, two in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True))


@pytest.mark.parametrize("ids", [[1.5, 2], ["1"], [None]])
def test_ids_that_are_no_whole_numbers_are_refused_in_python(ids, folder):
    with pytest.raises(ValueError, match="wanted whole numbers, the tokens to keep"):
        vocabulary.trim(*flaxgen.load(folder), ids)


def test_keep_and_restore_do_not_go_together(folder, tmp_path, capsys):
    ids = listed(tmp_path / "ids.txt", KEPT)
    assert tiny.run(folder, tmp_path / "less", "--keep", ids, "--restore", folder) == MISMATCH
    assert "--keep and --restore" in capsys.readouterr().err and not (tmp_path / "less").exists()


def test_a_map_is_carried_from_format_to_format(folder, tmp_path):
    assert tiny.run(folder, tmp_path / "less", "--keep", listed(tmp_path / "ids.txt", KEPT)) == 0
    assert tiny.run(tmp_path / "less", tmp_path / "tf", "--to", "bert") == 0
    assert (tmp_path / "tf/kept.json").read_bytes() == (tmp_path / "less/kept.json").read_bytes()


@pytest.mark.parametrize("kept,reason", [
    ([1, 13], "id 13 of 13 rows"), ([1, 1], "an id twice"), (["[UNK]", "魔"], "'魔'"), ([0, 2], "[UNK]"),
    ({"ids": [1], "compounds": [{"ids": [1]}]}, "1 kept tokens"), ({"ids": "1"}, "'ids' is '1'; wanted a list"),
    ({"ids": [1], "compounds": [3]}, "'ids' is 3; wanted a list"), ({"ids": {"1": 2}}, "wanted a list"), ({"ids": [1.5]}, "whole numbers"),
    ({"ids": [1], "compound": [[0]]}, "the map has the keys ['compound']"), ({"ids": [1], "compounds": {"ids": [0]}}, "wanted a list"),
    ({"ids": [1], "compounds": [{"ids": [0], "weight": [1]}]}, "a compound has the keys ['weight']"),
    ({"ids": [1, 2], "compounds": [{"ids": [0, 1], "weights": [1, -1]}]}, "a sum that is not 0"), ({"ids": None}, "no ids"),
])  # fmt: skip
def test_what_cannot_be_kept_is_refused_with_the_reason(kept, reason, folder, tmp_path, capsys):
    if isinstance(kept, dict):
        path = tmp_path / "asked.json"
        path.write_text(json.dumps(kept))
    else:
        path = listed(tmp_path / "asked.txt", kept)
    assert tiny.run(folder, tmp_path / "less", "--keep", path) == MISMATCH
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "less").exists()


def test_trimming_twice_restoring_what_was_not_trimmed_and_another_full_model_are_refused(folder, tmp_path, capsys):
    ids = listed(tmp_path / "ids.txt", KEPT)
    assert tiny.run(folder, tmp_path / "less", "--keep", ids) == 0
    assert tiny.run(tmp_path / "less", tmp_path / "twice", "--keep", listed(tmp_path / "two.txt", [0, 1])) == MISMATCH
    assert "trimmed already" in capsys.readouterr().err
    assert tiny.run(folder, tmp_path / "back", "--restore", folder) == MISMATCH
    assert "no kept.json" in capsys.readouterr().err
    other = tiny.foreign(tmp_path / "other", "nezha")
    assert tiny.run(tmp_path / "less", tmp_path / "back", "--restore", tmp_path / "other-ours") == MISMATCH
    assert "position is 'learned', wanted 'relative'" in capsys.readouterr().err and other.exists()


def test_a_byte_pair_vocabulary_is_not_trimmed_but_ids_alone_are(tmp_path, capsys):
    ours = tiny.folder(tmp_path / "ours", tiny.PRE_TANH, end=[3])
    assert tiny.run(ours, tmp_path / "less", "--keep", listed(tmp_path / "ids.txt", KEPT), "--to", "gpt2-hf") == 0
    assert json.loads((tmp_path / "less/config.json").read_text())["eos_token_id"] == 2
    assert tiny.run(ours, tmp_path / "none", "--keep", "simplified") == MISMATCH
    assert "WordPiece vocabulary" in capsys.readouterr().err


@pytest.mark.shared
def test_the_chinese_vocabulary_becomes_13584_tokens_and_no_text_loses_by_it(shared):
    text = wordpiece.WordPiece.load(shared / "data/vocab/bert-base-chinese-vocab.txt")
    kept = vocabulary.Kept(len(text), tuple(text.simplify()[1]))
    less = kept.text(text)
    assert len(kept) == len(less) == 13584 and kept.ids[:5] == (0, 100, 101, 102, 106)
    line = "科学空间（英文：science space station），成立于2009年。"
    assert [kept.ids[i] for i in less.encode(line)] == text.encode(line)


def test_a_t5_is_trimmed_with_the_head_of_its_own(tmp_path, capsys):
    config = t5_config.Config(vocab=13, width=6, layers=2, heads=3, head_width=4, hidden=10, activation="gated_gelu", head="own")
    (tmp_path / "ours").mkdir()
    arrays = {path: np.random.default_rng(0).standard_normal(shape).astype(np.float32) for path, shape in config.shapes().items()}
    entries = [(name, each.dtype, each.shape) for name, each in arrays.items()]
    tensors.write(tmp_path / "ours/model.safetensors", entries, arrays.values(), {})
    card = {"format": "flaxgen-1", "architecture": "t5", "config": vars(config), "text": None, "end": None}
    (tmp_path / "ours/config.json").write_text(json.dumps(card))
    ids = listed(tmp_path / "ids.txt", KEPT)
    for to in ("flaxgen", "t5.1.1", "t5.1.1-hf"):
        assert tiny.run(tmp_path / "ours", tmp_path / to, "--keep", ids, "--to", to) == 0
        assert tiny.run(tmp_path / to, tmp_path / f"{to}-back", "--restore", tmp_path / "ours") == 0
        assert tiny.held(tmp_path / f"{to}-back") == tiny.held(tmp_path / "ours")
    held = {name: tensors.read(entry) for name, entry in tensors.index(tmp_path / "flaxgen").items()}
    for path in ("embed/token/embedding", "head/kernel"):
        np.testing.assert_array_equal(held[path], arrays[path][KEPT])
    assert tiny.run(tmp_path / "ours", tmp_path / "none", "--keep", listed(tmp_path / "without.txt", [1, 2])) == MISMATCH
    assert "with which every answer starts, is not kept" in capsys.readouterr().err
