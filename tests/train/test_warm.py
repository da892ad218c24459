"""Where a run starts: on the vocabulary of a folder, on an extended one, or on a new one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import weights
from flaxgen.models import config, transformer
from flaxgen.text import build, bytepair, pairs, wordpiece
from train import warm

POEMS = ["床前明月光，疑是地上霜。举头望明月，低头思故乡。", "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。"]
ENGLISH = ["It is a truth universally acknowledged, that a single man\nin possession of a good fortune must be in want of a wife."] * 4
JAPANESE = ["吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"]
CHARACTERS = build.vocabulary(POEMS, size=400)


def saved(folder, text, *, spare: int = 0, end=None):
    """A small model folder whose table has `spare` rows more than the vocabulary."""
    sizes = config.Config(len(text) + spare, 11, 6, 2, 3, 10, "between", "gelu")
    model = transformer.Transformer(sizes)
    params = model.init(jax.random.key(1), jnp.zeros((1, 1), jnp.int32))
    weights.save(folder, model, params, text, end=end)
    return model, params


def same(one, other) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def test_a_vocabulary_that_covers_the_text_is_kept(tmp_path):
    model, params = saved(tmp_path / "m", CHARACTERS, end=[2])
    plan = warm.choose(tmp_path / "m", POEMS)
    assert (plan.action, plan.config) == ("keep", model.config)
    assert plan.text == dataclasses.replace(CHARACTERS, end=(2,))
    assert same(plan.params, params)
    assert plan.note.endswith("is kept: its 172 tokens spell your text")
    assert len(CHARACTERS) == 172


def test_a_few_unknown_characters_change_nothing_but_are_counted(tmp_path):
    saved(tmp_path / "m", CHARACTERS)
    plan = warm.choose(tmp_path / "m", [*POEMS * 10, "鹳雀"])
    assert plan.action == "keep" and plan.note.endswith("spell your text; 2 characters of 482 are unknown")


def test_some_unknown_characters_extend_the_vocabulary(tmp_path):
    model, _ = saved(tmp_path / "m", CHARACTERS)
    plan = warm.choose(tmp_path / "m", [*POEMS, "登鹳雀楼"], seed=3)
    assert plan.action == "extend"
    assert plan.note.startswith(
        "vocabulary extended by 3 characters of your text: 172 -> 175 tokens; 5.77% of the text was unknown, 0.00% is"
    )
    assert plan.text.tokens == (*CHARACTERS.tokens, *sorted("登鹳雀"))
    assert plan.text.end == (CHARACTERS.control["[SEP]"],)
    assert plan.config == dataclasses.replace(model.config, vocab=175)
    weights.check_shapes("plan", {n: leaf.shape for n, leaf in weights.flatten(plan.params).items()}, config.shapes(plan.config))
    again = warm.choose(tmp_path / "m", [*POEMS, "登鹳雀楼"], seed=3)
    assert same(plan.params, again.params)
    other = warm.choose(tmp_path / "m", [*POEMS, "登鹳雀楼"], seed=4)
    assert not same(plan.params, other.params)


def test_old_tokens_keep_their_logits_and_new_ones_get_an_average(tmp_path):
    model, params = saved(tmp_path / "m", CHARACTERS)
    plan = warm.choose(tmp_path / "m", [*POEMS, "登鹳雀楼"])
    token_BT = np.asarray([CHARACTERS.encode(POEMS[0])[:11]])
    before_BTV, _ = model.apply(params, token_BT)
    after_BTV, _ = transformer.Transformer(plan.config).apply(plan.params, token_BT)
    np.testing.assert_allclose(after_BTV[..., :172], before_BTV, rtol=0, atol=1e-6)
    gap_BTV = np.asarray(after_BTV)[..., 172:] - np.asarray(before_BTV).mean(-1, keepdims=True)
    assert np.abs(gap_BTV).max() < 0.5 * np.asarray(before_BTV).std()


def test_reserved_rows_are_used_before_the_table_grows(tmp_path):
    model, params = saved(tmp_path / "m", CHARACTERS, spare=2)
    old_VD = params["params"]["embed"]["token"]["embedding"]
    for rows, vocab in ((1, 174), (2, 174), (3, 175)):
        grown, sizes = warm.grow(params, model.config, rows, jax.random.key(0), known=172)
        new_VD = grown["params"]["embed"]["token"]["embedding"]
        assert (sizes.vocab, new_VD.shape) == (vocab, (vocab, 6))
        assert np.array_equal(new_VD[:172], old_VD[:172]) and np.array_equal(new_VD[172 + rows : 174], old_VD[172 + rows :])
        assert not np.array_equal(new_VD[172], old_VD[172])
    grown, sizes = warm.grow(params, model.config, 2, jax.random.key(0))
    assert sizes.vocab == 176
    assert grown["params"]["embed"]["position"] is params["params"]["embed"]["position"]


def test_english_for_a_chinese_model_makes_byte_pairs_and_a_fresh_model(tmp_path):
    model, _ = saved(tmp_path / "m", build.vocabulary(map(chr, range(0x4E00, 0x4F00)), size=600))
    plan = warm.choose(tmp_path / "m", ENGLISH, length=17, vocab=300)
    assert (plan.action, plan.params) == ("rebuild", None)
    assert plan.text == pairs.byte_pairs(ENGLISH, size=300) and plan.text.end == (299,)
    assert plan.config == dataclasses.replace(model.config, vocab=300, positions=17, wiring="pre", activation="gelu_tanh")
    assert plan.note == (
        "a new vocabulary of 300 byte pairs was made from your text, and the model starts from nothing: "
        "the old vocabulary is Chinese and cuts your text's words into pieces of 1.0 letters"
    )


def test_english_for_a_model_of_letters_is_kept(tmp_path):
    saved(tmp_path / "m", build.vocabulary(ENGLISH, size=400))
    assert warm.choose(tmp_path / "m", ENGLISH).action == "keep"


def test_chinese_for_a_model_of_english_byte_pairs_makes_characters(tmp_path):
    saved(tmp_path / "m", pairs.byte_pairs(ENGLISH, size=300))
    plan = warm.choose(tmp_path / "m", POEMS)
    assert (plan.action, plan.params) == ("rebuild", None)
    assert plan.text.tokens == CHARACTERS.tokens and plan.text.end == (CHARACTERS.control["[SEP]"],)
    assert (
        plan.note.startswith("a new vocabulary of 172 characters was made from your text")
        and "100.0% of your text's characters" in plan.note
    )


def test_byte_pairs_are_kept_for_any_text_in_letters_they_know(tmp_path):
    text = pairs.byte_pairs(ENGLISH, size=300)
    _, params = saved(tmp_path / "m", text)
    plan = warm.choose(tmp_path / "m", ["Der Prozeß: jemand mußte Josef K. verleumdet haben"])
    assert (plan.action, plan.text) == ("keep", text)
    assert plan.note.endswith("2 characters of 43 are cut into bytes")
    assert same(plan.params, params)


def test_japanese_makes_byte_pairs_since_wordpiece_would_drop_its_accents(tmp_path):
    saved(tmp_path / "m", CHARACTERS)
    plan = warm.choose(tmp_path / "m", JAPANESE)
    assert plan.action == "rebuild" and isinstance(plan.text, bytepair.BytePair)
    assert plan.text.decode(plan.text.encode(JAPANESE[0])) == JAPANESE[0]
    kept = tmp_path / "n"
    saved(kept, pairs.byte_pairs(JAPANESE * 2, size=400))
    assert warm.choose(kept, JAPANESE).action == "keep"  # it has whole characters of that script


def test_a_text_of_another_language_can_be_refused_instead(tmp_path):
    saved(tmp_path / "m", CHARACTERS)
    with pytest.raises(ValueError, match=r"m cannot go on with this text: [0-9.]+% of your text's characters are not in the vocabulary"):
        warm.choose(tmp_path / "m", JAPANESE, foreign="refuse")
    assert warm.choose(tmp_path / "m", [*POEMS, "登鹳雀楼"], foreign="refuse").action == "extend"


def test_parameters_come_in_the_hosts_memory_in_float32(tmp_path):
    model, params = saved(tmp_path / "m", CHARACTERS)
    weights.save(tmp_path / "half", model, params, CHARACTERS, dtype="bfloat16")
    for texts in (POEMS, [*POEMS, "登鹳雀楼"]):
        leaves = jax.tree.leaves(warm.choose(tmp_path / "half", texts).params)
        assert {(type(leaf), leaf.dtype.name) for leaf in leaves} == {(np.ndarray, "float32")}


@pytest.mark.parametrize(("count", "size"), [(1, 512), (200_000, 512), (1_100_000, 2048), (4_000_000, 4096), (10**9, 8192)])
def test_the_size_of_a_byte_pair_vocabulary_follows_the_text(count, size):
    assert warm.pieces(count) == size


def test_more_rows_than_positions_are_refused_unless_the_model_is_new(tmp_path):
    saved(tmp_path / "m", CHARACTERS)
    assert warm.choose(tmp_path / "m", POEMS, length=5).config.positions == 11
    with pytest.raises(ValueError, match=r"length=12: the model in .*m has 11 positions; give length=11 or less"):
        warm.choose(tmp_path / "m", POEMS, length=12)
    assert warm.choose(tmp_path / "m", JAPANESE, length=12).config.positions == 12


def test_a_long_text_is_judged_by_its_beginning(tmp_path, monkeypatch):
    saved(tmp_path / "m", CHARACTERS)
    monkeypatch.setattr(warm, "SAMPLE", 30)
    assert warm.sample(POEMS) == [POEMS[0], POEMS[1][:6]]

    def endless():
        yield from POEMS
        raise AssertionError("read on")

    plan = warm.choose(tmp_path / "m", endless())
    assert plan.action == "keep" and plan.note.endswith("your text (judged by its first 30 characters)")


def test_what_cannot_be_started_from_is_refused(tmp_path):
    saved(tmp_path / "whole", CHARACTERS)
    model, params = saved(tmp_path / "m", wordpiece.WordPiece(("[UNK]", "月")))
    weights.save(tmp_path / "none", model, params)
    with pytest.raises(ValueError, match="none has no vocabulary"):
        warm.choose(tmp_path / "none", POEMS)
    with pytest.raises(ValueError, match=r"m has no token that ends a text; wanted .SEP. or <.endoftext.>"):
        warm.choose(tmp_path / "m", ["月月"])
    with pytest.raises(ValueError, match="the data holds no text"):
        warm.choose(tmp_path / "whole", [" \n"])
