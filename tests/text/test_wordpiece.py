"""WordPiece against the reference ids, and against a plain, slow statement of its rules on whatever Unicode hypothesis finds."""

import json
import pathlib
import random
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxgen import errors
from flaxgen.text import characters, wordpiece

FILES = {"bert-base-chinese": "bert-base-chinese-vocab.txt", "clue": "clue-vocab.txt"}
CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "<S>", "<T>")
WORDS = ("aba", "##bb", "cls", "s", "t", "mask", "天气", "\u2028", "##\u2028")
TINY = wordpiece.WordPiece((*CONTROL, *"今天气不错的ab12.,'[]<>_σςи", *(f"##{c}" for c in "ab12σςи]"), *WORDS))
KNOWN = "abABcls12今天气的.,'[]<>_ΑΣσςİßﬁ豈\U0002f800\ud800"
BLANK = " \t\n\r\v\f\x1c\x85\xa0\u2028\u3000\x00\ufffd\u00ad\u200b\u0301"
# Words, signs, ideographs, every kind of blank, dropped and combining characters, the final sigma, and anything else.
TEXTS = st.text(
    st.one_of(
        st.sampled_from(KNOWN),
        st.sampled_from(BLANK),
        st.characters(),
    ),
    max_size=40,
)


def plain(text: str, token_to_id: dict[str, int], case: str = "lower") -> list[int]:
    """BERT's rules, a character at a time."""
    spaced = ""
    for c in text:
        if c in "\0\ufffd" or (unicodedata.category(c) in ("Cc", "Cf") and c not in "\t\n\r"):
            continue
        spaced += f" {c} " if ideograph(ord(c)) else " " if c in " \t\n\r" or unicodedata.category(c) == "Zs" else c
    ids: list[int] = []
    for word in spaced.split():
        if case == "lower":
            word = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        signs = (c for c in word if (33 <= ord(c) <= 126 and not c.isalnum()) or unicodedata.category(c)[0] == "P")
        for sign in set(signs):
            word = word.replace(sign, f" {sign} ")
        for piece in word.split():
            ids += longest(piece, token_to_id)
    return ids


def ideograph(code: int) -> bool:
    low = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF))
    high = ((0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F))
    return any(first <= code <= last for first, last in low + high)


def longest(word: str, token_to_id: dict[str, int]) -> list[int]:
    if len(word) > 200:
        return [token_to_id["[UNK]"]]
    ids, start = [], 0
    while start < len(word):
        ends = [e for e in range(len(word), start, -1) if ("##" if start else "") + word[start:e] in token_to_id]
        if not ends:
            return [token_to_id["[UNK]"]]
        ids.append(token_to_id[("##" if start else "") + word[start : ends[0]]])
        start = ends[0]
    return ids


def load(shared: pathlib.Path, name: str) -> wordpiece.WordPiece:
    return wordpiece.WordPiece.load(shared / "data" / "vocab" / FILES[name])


@pytest.fixture(scope="module", params=FILES)
def reference(request, shared, golden):
    table = json.loads((golden / "decode" / "tokenize.json").read_text(encoding="utf-8"))[request.param]
    return table, load(shared, request.param)


@pytest.mark.shared
def test_ids_are_those_of_gpt2_ml_and_bert4keras(reference):
    table, text = reference
    assert len(text) == table["vocab_size"]
    for row in table["rows"]:
        assert text.encode(row["text"]) == row["gpt2_ml_ids"] == row["bert4keras_ids"], row["text"]


@pytest.mark.shared
def test_a_simplified_vocabulary_keeps_the_rows_that_bert4keras_keeps(reference):
    table, text = reference
    small, kept = text.simplify()
    assert len(small) == len(kept) == table["simplified_size"]
    assert (kept[:40], kept[-10:]) == (table["keep_tokens_head"], table["keep_tokens_tail"])
    assert len(text.simplify(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))[1]) == table["simplified_size"] + 1
    for row in table["rows"]:
        start, *ids, end = row["simplified_ids"]
        assert (start, end) == (small.control["[CLS]"], small.control["[SEP]"])
        assert small.encode(row["text"]) == ids
        assert [kept[i] for i in ids] == row["gpt2_ml_ids"]


@pytest.mark.shared
def test_decoding_is_bert4keras_s_but_for_blanks_in_names_and_addresses(reference):
    table, text = reference
    better = {"gpt2_ ml is 1.5b!": "gpt2_ml is 1.5b!", "http: //example. com/a? b=c& d=1": "http://example.com/a?b=c&d=1"}
    small, _ = text.simplify()
    for row in table["rows"]:
        wanted = better.get(row["bert4keras_decoded"], row["bert4keras_decoded"])
        assert text.decode(row["gpt2_ml_ids"]) == small.decode(row["simplified_ids"]) == wanted


@pytest.mark.shared
def test_the_full_stop_has_the_id_that_ends_a_text_in_either_vocabulary(shared):
    assert load(shared, "bert-base-chinese").encode("。，：、") == [511, 8024, 8038, 510]
    assert load(shared, "clue").encode("。，：、“”‘’—") == [545, 6294, 6308, 544, 108, 2, 109, 35, 3]


@pytest.mark.shared
def test_a_million_characters_of_a_novel_are_cut_as_the_plain_rules_cut_them(reference, shared):
    _, text = reference
    novel = (shared / "data" / "text" / "红楼梦.txt").read_text(encoding="utf-8")
    assert text.encode(novel) == [i for line in novel.split("\n") for i in text.encode(line)]
    token_to_id = {token: i for i, token in enumerate(text.tokens)}
    assert text.encode(novel[:20_000]) == plain(novel[:20_000], token_to_id)


@pytest.mark.parametrize("case", ["lower", "keep"])
@given(text=TEXTS)
@example(text="ΑΣ ΑΣΑ Α\u00adΣ中ΣΑ Σ'Α")
@example(text="a" * 201 + " " + "a" * 200 + "." + "b" * 200)
@settings(max_examples=400, deadline=None)
def test_any_text_is_cut_as_the_plain_rules_cut_it(case, text):
    check(wordpiece.WordPiece(TINY.tokens, case), text)


@pytest.mark.nightly
def test_any_text_is_cut_as_the_plain_rules_cut_it_at_length():
    draw = random.Random(0)
    for _ in range(300_000):
        pools = [[*KNOWN, *BLANK, *TINY.tokens], list(BLANK), [chr(draw.randrange(0x110000)) for _ in range(5)]]
        check(TINY, "".join(draw.choice(draw.choice(pools)) for _ in range(draw.randrange(30))))


def check(tokenizer: wordpiece.WordPiece, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids == plain(text, {token: i for i, token in enumerate(tokenizer.tokens)}, tokenizer.case)
    assert not {*ids} & {i for name, i in tokenizer.control.items() if name != "[UNK]"}
    assert "".join(_pushed(tokenizer, ids)) == tokenizer.decode(ids)


def _pushed(tokenizer, ids):
    stream = tokenizer.stream()
    yield from map(stream.push, ids)
    yield stream.finish()


def test_every_character_falls_into_the_class_its_unicode_category_says():
    for c in map(chr, range(0x110000)):
        kind = unicodedata.category(c)
        blank = c in " \t\n\r\u2028\u2029" or kind == "Zs"
        assert characters.chunks(f"a{c}b") == (["a", "b"] if blank else ["a", c, "b"] if ideograph(ord(c)) else [f"a{c}b"]), ascii(c)
        assert characters.is_ideograph(c) == ideograph(ord(c))


def test_control_tokens_spelled_in_a_text_are_brackets_and_letters():
    assert {*TINY.control} == {*CONTROL}
    for name in CONTROL:
        for text in (name, name.lower(), f"a{name}b", f"今{name}", name.replace("]", "]\u200b"), name[0] + "\x00" + name[1:]):
            assert not {*TINY.encode(text)} & ({*TINY.control.values()} - {TINY.control["[UNK]"]}), text
    assert [TINY.tokens[i] for i in TINY.encode("[CLS]<S>")] == ["[", "cls", "]", "<", "s", ">"]


def test_control_tokens_and_reserved_ids_decode_to_nothing():
    ids = TINY.encode("今天")
    assert TINY.decode([2, *ids, 3, 1, len(TINY), len(TINY) + 1, 10**9]) == "今天"
    with pytest.raises(ValueError, match="got -1, wanted 0 or more"):
        TINY.decode([-1])


@pytest.mark.parametrize("value", [b"bytes", None, 3, ["list"]])
def test_what_is_no_str_is_refused(value):
    with pytest.raises(TypeError, match="wanted a str"):
        TINY.encode(value)


def test_a_million_characters_on_one_line_are_no_trouble():
    unknown, today = TINY.control["[UNK]"], TINY.tokens.index("今")
    assert TINY.encode("a" * 10**6) == [unknown]
    assert TINY.encode("今" * 10**6) == [today] * 10**6
    assert TINY.encode("a." * 10**5) == TINY.encode("a.") * 10**5


def test_memory_stays_small_over_many_different_words():
    for start in range(0, wordpiece.CACHED + 5000, 5000):
        TINY.encode(" ".join(f"a{i}b" for i in range(start, start + 5000)))
    assert len(TINY._cache) <= wordpiece.CACHED
    assert TINY.encode("aba") == [TINY.tokens.index("aba")]


# Files


def write(tmp_path, data: bytes) -> pathlib.Path:
    path = tmp_path / "vocab.txt"
    path.write_bytes(data)
    return path


ENDS = ("[PAD]\n[UNK]\na\n", "[PAD]\n[UNK]\na", "[PAD]\r\n[UNK]\r\na\r\n", "\ufeff[PAD]\n[UNK]\na", "[PAD] \n[UNK]\t\n a")


@pytest.mark.parametrize("text", ENDS)
def test_line_ends_blanks_at_them_and_a_byte_order_mark_do_not_count(tmp_path, text):
    assert wordpiece.WordPiece.load(write(tmp_path, text.encode())).tokens == ("[PAD]", "[UNK]", "a")


def test_a_line_separator_is_a_token_not_a_line_end(tmp_path):
    text = wordpiece.WordPiece.load(write(tmp_path, "[UNK]\n\u2028\n##\u2028\na\n".encode()))
    assert len(text) == 4
    assert text.encode("a\u2028a") == [3, 3]
    assert text.decode([3, 1, 2, 3]) == "a a"
    assert text.decode([1, 3, 2]) == "a"


@pytest.mark.shared
def test_every_pair_of_a_real_vocabulary_can_be_decoded(shared):
    text, draw = load(shared, "bert-base-chinese"), random.Random(0)
    for i in range(len(text)):
        j = draw.randrange(len(text))
        whole = text.decode([i, j])
        assert whole == whole.strip() and whole.replace(" ", "") == text.decode([i]) + text.decode([j])


def test_what_is_saved_loads_to_the_same(tmp_path):
    section = TINY.save(tmp_path)
    assert section == TINY.options()
    assert wordpiece.WordPiece.load(tmp_path / "vocab.txt") == TINY


BROKEN = {
    "empty": (b"", errors.Incomplete, "is empty"),
    "binary": (bytes(range(256)), errors.Corrupt, "not UTF-8 text .byte 128 is 0x80"),
    "nul": (b"[UNK]\na\0b\n", errors.Corrupt, "a binary file"),
    "other coding": ("[UNK]\n今".encode("gbk"), errors.Corrupt, "not UTF-8"),
    "no unknown": (b"[PAD]\na\n", errors.Mismatch, "none of the 2 tokens is .UNK."),
    "json": (b'{"a": 0}', errors.Mismatch, "hold blanks"),
    "twice": (b"[UNK]\na\nb\na\n", errors.Mismatch, "ids 1 and 3 are both 'a'"),
    "blank line": (b"[UNK]\n\na\n\n", errors.Mismatch, "2 lines are empty, first line 2"),
    "two words": (b"[UNK]\na b\n", errors.Mismatch, "id 1: 'a b'"),
    "carriage returns": (b"[UNK]\ra\rb\r", errors.Mismatch, "hold blanks"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_file_is_refused_by_name(tmp_path, name):
    data, kind, message = BROKEN[name]
    with pytest.raises(kind, match=message) as caught:
        wordpiece.WordPiece.load(write(tmp_path, data))
    assert "vocab.txt" in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(errors.Incomplete, match="there is no vocabulary file"):
        wordpiece.WordPiece.load(tmp_path / "absent.txt")
    with pytest.raises(errors.Incomplete, match="is a folder"):
        wordpiece.WordPiece.load(tmp_path)
    with pytest.raises(errors.Unsafe, match="not a file name"):
        wordpiece.WordPiece.load("a\0b")


def test_a_model_file_in_place_of_a_vocabulary_is_not_read(tmp_path):
    path = tmp_path / "model.bin"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(errors.TooLarge, match="8589934592 bytes"):
        wordpiece.WordPiece.load(path)


def test_a_simplified_vocabulary_needs_its_first_tokens():
    with pytest.raises(ValueError, match=r"of which \['\[NONE\]'\] are not in the vocabulary"):
        TINY.simplify(("[UNK]", "[NONE]"))


def test_an_unknown_case_is_refused():
    with pytest.raises(ValueError, match='wanted "lower" or "keep"'):
        wordpiece.WordPiece(TINY.tokens, "upper")


@given(data=st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_bytes_of_a_file_break_the_reader(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.txt"
    path.write_bytes(b"[UNK]\n" + data)
    try:
        text = wordpiece.WordPiece.load(path)
    except errors.CheckpointError:
        return
    assert text.encode("a") is not None and isinstance(text.decode(range(len(text))), str)
