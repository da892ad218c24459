"""Blanks between the pieces of a text, decided one piece at a time."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxgen.text import build, spacing, wordpiece

TEXT = build.vocabulary(["今天天气不错科学空间英文成立于年混排和中的苹果公司注入见他说你好世界"], size=400)
NATURAL = [
    "今天天气不错",
    "科学空间（英文：science space station），成立于2009年。",
    "混排english和中文123abc。",
    "苹果(apple)公司的50%",
    "hello, world! it's unaffable",
    "gpt2_ml is 1.5b!",
    "12:30, or 3,000 of 3.14159",
    "he said \"hello, world\" to john's dog, isn't it?",
    '他说"你好"，世界。',
    "the dogs' share, (or so) we're off; i'd say we've got",
    "http://example.com/a?b=c&d=1 is a page",
    "foo@bar.com and http://a.b/c，见文中",
    "r&d: f(x)=y+1, a/b, x*y, u|v",
    "[mask] [sep] [cls] 注入",
    "《科学》、“空间”——‘文’…",
    "'twas so",
    'a "b" c',
]


@pytest.mark.parametrize("text", NATURAL)
def test_a_natural_text_comes_back_as_it_was(text):
    assert TEXT.decode(TEXT.encode(text)) == text


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["it", "'", "s", "un", "##aff"], "it's unaff"),
        (["it", "'", "s"], "it's"),
        (["it", "'", "s", "."], "it's."),
        (["the", "'", "s", "##hare"], "the' share"),
        (["the", "'", "[SEP]", "s", "##hare"], "the' share"),
        (["'", "s", "##hare"], "'share"),
        (["##ing", "a"], "ing a"),
        (["[CLS]", "a", "[UNK]", "b", "[PAD]"], "a b"),
        (["今", "a", "天"], "今a天"),
        (["今", "[UNK]", "天"], "今天"),
        (["年代", "a", "##今", "b"], "年代a今b"),
        (["a", "##", "b"], "a## b"),
        ([], ""),
    ],
)
def test_pieces_join(pieces, text):
    tokenizer = wordpiece.WordPiece(("[PAD]", "[UNK]", *dict.fromkeys(p for p in pieces if p not in ("[PAD]", "[UNK]"))))
    assert tokenizer.decode([tokenizer.tokens.index(p) for p in pieces]) == text


@given(ids=st.lists(st.integers(0, len(TEXT) + 3), max_size=30), cut=st.integers(0, 30))
@settings(max_examples=600, deadline=None)
def test_pieces_join_to_the_decoded_whole_and_never_change(ids, cut):
    check(ids, cut)


@pytest.mark.nightly
def test_pieces_join_to_the_decoded_whole_at_length():
    draw = random.Random(0)
    for _ in range(300_000):
        check([draw.randrange(len(TEXT) + 3) for _ in range(draw.randrange(30))], draw.randrange(30))


def check(ids, cut):
    whole = TEXT.decode(ids)
    stream = TEXT.stream()
    shown = ""
    for i in ids:
        shown += stream.push(i)
        assert whole.startswith(shown)
    assert shown + stream.finish() == whole
    assert whole == whole.strip() and "  " not in whole
    before = TEXT.stream()
    given = "".join([before.push(i) for i in ids[:cut]])
    if not before.finish():  # nothing was held back where the text is cut
        assert given + rest(ids[:cut], ids[cut:]) == whole


def rest(before, ids):
    stream = TEXT.stream(after=before)
    return "".join([stream.push(i) for i in ids]) + stream.finish()


def test_a_continuation_begins_with_the_blank_its_prompt_asks_for():
    assert rest(TEXT.encode("hello"), TEXT.encode("world")) == " world"
    assert rest(TEXT.encode("今天"), TEXT.encode("天气")) == "天气"
    assert rest(TEXT.encode("it's"), TEXT.encode("so")) == " so"
    assert rest([], TEXT.encode("so")) == "so"


def test_a_character_takes_its_neighbours_by_kind():
    assert [spacing.kind(c) for c in "今，“(,é😀"] == ["ideograph", "wide", "wide", "open", "mark", "word", "word"]
