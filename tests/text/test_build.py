"""A vocabulary from a corpus."""

import random

import pytest

from flaxgen.text import build, wordpiece

POEMS = ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。", "明月 GPT2 and カナ"]


def test_control_tokens_come_first_then_signs_then_characters_by_frequency():
    text = build.vocabulary(POEMS, size=400)
    assert text.tokens[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert set(text.control) == {*text.tokens[:5]}
    first = text.tokens.index("明")
    assert text.tokens[first : first + 3] == ("明", "月", "头")  # 3, 3 and 2 times; 头 before all that stand once


def test_ordinary_text_is_spelled_whatever_the_corpus():
    text = build.vocabulary([], size=300)
    for sample in ("Hello, World! (3.14 + 2e10)", "user@example.com", "GPT2_ML~`^|\\", "“，。！？”《》……——"):
        ids = text.encode(sample)
        assert text.control["[UNK]"] not in ids
        assert text.decode(ids).replace(" ", "") == sample.lower().replace(" ", "")
    assert text.encode("今") == [text.control["[UNK]"]]


def test_every_character_of_the_corpus_is_spelled_where_it_stood():
    text = build.vocabulary(POEMS, size=400)
    assert all(text.control["[UNK]"] not in text.encode(poem) for poem in POEMS)
    assert "##ナ" in text.tokens and "ナ" not in text.tokens


def test_order_and_division_of_the_texts_do_not_matter():
    lines = [poem for poem in POEMS for _ in range(3)]
    random.Random(0).shuffle(lines)
    text = build.vocabulary(lines, size=400)
    assert text == build.vocabulary(iter(POEMS * 3), size=400) == build.vocabulary(["\n".join(POEMS * 3)], size=400)


def test_size_and_least_count_are_kept():
    always = len(build.vocabulary([], size=300))
    assert len(build.vocabulary(POEMS, size=always + 2)) == always + 2
    often = build.vocabulary(POEMS, size=400, least=2)
    assert set(often.tokens[always:]) == {"明", "月", "头"}


def test_upper_case_is_kept_where_asked_for():
    text = build.vocabulary(["Ab"], size=400, case="keep")
    assert text.decode(text.encode("Ab aB É")) == "Ab aB"
    assert build.vocabulary(["Ab"], size=400).decode(text.encode("")) == ""


def test_own_control_tokens_have_the_first_ids():
    text = build.vocabulary(POEMS, size=400, control=("[PAD]", "[UNK]", "[END]", "<S>"))
    assert text.control == {"[PAD]": 0, "[UNK]": 1, "[END]": 2, "<S>": 3}


def test_an_extended_vocabulary_keeps_its_ids_and_spells_the_new_texts():
    text = build.vocabulary(POEMS, size=400)
    new = ["红楼梦里红楼", "гора"]
    longer = build.extend(text, new)
    assert longer.tokens[: len(text)] == text.tokens
    assert longer.tokens[len(text) :] == ("楼", "红", "##а", "##о", "##р", "г", "梦", "里")  # twice each, then by code
    for poem in POEMS:
        assert longer.encode(poem) == text.encode(poem)
    assert all(longer.control["[UNK]"] not in longer.encode(one) for one in new)
    assert build.extend(longer, new) == longer


def test_only_the_characters_of_unknown_words_are_added():
    text = wordpiece.WordPiece(("[UNK]", "gora", "a"), end=(0,))
    longer = build.extend(text, ["gora gora", "goa"])
    assert longer.tokens == ("[UNK]", "gora", "a", "##a", "##o", "g") and longer.end == (0,)
    assert longer.encode("gora") == [1]


def test_an_extension_stays_within_its_size_and_least_count():
    text = build.vocabulary(POEMS, size=400)
    new = ["红楼梦里红楼"]
    assert build.extend(text, new, size=len(text) + 1).tokens[len(text) :] == ("楼",)
    assert build.extend(text, new, size=len(text)) == text
    assert build.extend(text, new, least=2).tokens[len(text) :] == ("楼", "红")
    assert build.extend(text, ["\u0301" + "б" * 201]) == text  # nothing, and a word too long to be spelled
    with pytest.raises(ValueError, match=f"size: got 9, wanted at least {len(text)}"):
        build.extend(text, new, size=9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"size": 20}, "size: got 20, wanted at least 1"),
        ({"control": ("[PAD]",)}, "wanted .UNK. among them"),
        ({"control": ("[UNK]", "end")}, "got .'end'., wanted names such as"),
    ],
)
def test_what_cannot_be_built_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        build.vocabulary(POEMS, **{"size": 400} | more)
