"""GPT-2's byte-pair encoding against the reference ids, and against the plain loop that openai/gpt-2 describes."""

import itertools
import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxgen import errors
from flaxgen.text import bytepair

END = "<|endoftext|>"


def grown(*merges: str, control=(END,)) -> bytepair.BytePair:
    """A tokenizer of the 256 bytes, what these merges make, and control tokens."""
    pairs = tuple(tuple(merge.split(" ")) for merge in merges)
    made = dict.fromkeys("".join(pair) for pair in pairs)
    return bytepair.BytePair((*bytepair.alphabet(), *made, *control), pairs)


TINY = grown("t h", "Ġ th", "th e", "Ġ t", "a a", "aa a", "aa aa", "ä »", "ä» Ĭ", "å¤ ©", "å ¤", "ĠĠ Ġ", "Ġ Ġ", "< |", "| >", "e n", "en d")


def plain(text: str, tokenizer: bytepair.BytePair) -> list[int]:
    """The pair of the lowest rank, everywhere, again and again."""
    place = {token: i for i, token in enumerate(tokenizer.tokens)}
    rank = {pair: i for i, pair in enumerate(tokenizer.merges)}
    ids = []
    for word in bytepair._words.findall(text):
        pieces = [bytepair.alphabet()[byte] for byte in word.encode()]
        while found := {pair for pair in itertools.pairwise(pieces) if pair in rank}:
            best, joined = min(found, key=rank.__getitem__), []
            while pieces:
                if tuple(pieces[:2]) == best:
                    joined.append(pieces.pop(0) + pieces.pop(0))
                else:
                    joined.append(pieces.pop(0))
            pieces = joined
        ids += [place[piece] for piece in pieces]
    return ids


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "data" / "vocab"
    return bytepair.BytePair.load(folder / "gpt2-encoder.json", folder / "gpt2-vocab.bpe")


@pytest.mark.shared
def test_ids_are_those_of_gpt2(reference, golden):
    assert (len(reference), reference.control) == (50257, {END: 50256})
    for row in json.loads((golden / "decode" / "gpt2_bpe.json").read_text(encoding="utf-8")):
        assert reference.encode(row["text"]) == row["ids"]
        assert reference.decode(row["ids"]) == row["decoded"]


@pytest.mark.shared
def test_novels_and_plays_come_back_as_they_were(reference, shared):
    for name in ("红楼梦.txt", "tinyshakespeare.txt"):
        text = (shared / "data" / "text" / name).read_text(encoding="utf-8")[:200_000]
        assert reference.decode(reference.encode(text)) == text
    assert reference.encode(text[:5000]) == plain(text[:5000], reference)


@pytest.mark.shared
def test_the_file_names_of_transformers_and_of_openai_hold_the_same(reference, tmp_path):
    section = reference.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(section["sha256"]) == {"vocab.json", "merges.txt"}
    assert bytepair.BytePair.load(tmp_path / "vocab.json", tmp_path / "merges.txt") == reference


KNOWN = "the aaa end今天'sS \n\t1<|>"
TEXTS = st.text(st.one_of(st.sampled_from(KNOWN), st.characters(exclude_categories=["Cs"])), max_size=40)


@given(text=TEXTS)
@example(text="")
@example(text="\0\x85\u2028\ufeff\r\n \r")
@example(text=f"a{END}b")
@example(text="aaaaaaa the aaa")
@settings(max_examples=1000, deadline=None)
def test_any_text_is_cut_by_rank_and_comes_back(text):
    check(text)


@pytest.mark.nightly
def test_any_text_is_cut_by_rank_and_comes_back_at_length():
    draw = random.Random(0)
    for _ in range(300_000):
        pools = [KNOWN, [*TINY.tokens], [chr(draw.randrange(0xD800)) for _ in range(5)], [chr(draw.randrange(0xE000, 0x110000))]]
        check("".join(draw.choice(draw.choice(pools)) for _ in range(draw.randrange(30))))


def check(text):
    ids = TINY.encode(text)
    assert ids == plain(text, TINY)
    assert TINY.decode(ids) == text
    assert TINY.control[END] not in ids


@given(data=st.binary(max_size=40))
@settings(max_examples=1500, deadline=None)
def test_any_bytes_stream_in_whole_characters(data):
    stream_bytes(data)


@pytest.mark.nightly
def test_any_bytes_stream_in_whole_characters_at_length():
    draw = random.Random(0)
    for _ in range(1_000_000):
        data = bytearray("é今😀a\x7f".encode() + draw.randbytes(4))
        for _ in range(draw.randrange(6)):
            data[draw.randrange(len(data))] = draw.choice((draw.randrange(256), 0x80, 0xE4, 0xED, 0xF0, 0xF4))
        stream_bytes(bytes(data))


def stream_bytes(data):
    ids = list(data)  # the bytes are TINY's first tokens
    stream = TINY.stream()
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.finish() == TINY.decode(ids) == data.decode("utf-8", "replace")


def test_a_character_appears_when_its_last_byte_comes():
    text = "é今😀a"
    stream = TINY.stream()
    pieces = [stream.push(byte) for byte in text.encode()]
    assert pieces == ["", "é", "", "", "今", "", "", "", "😀", "a"]
    assert stream.finish() == ""


@given(text=TEXTS)
@example(text="今天 the 😀end naïve\r\n\tcafé")
@settings(max_examples=100, deadline=None)
def test_a_text_may_be_cut_between_any_two_ids(text):
    ids = TINY.encode(text)
    for cut in range(len(ids) + 1):
        stream = TINY.stream(after=ids[:cut])
        rest = "".join([stream.push(i) for i in ids[cut:]]) + stream.finish()
        assert text.endswith(rest)
        assert ("\ufffd" in rest) <= ("\ufffd" in text)


def test_a_control_token_comes_from_no_text_and_shows_nothing():
    end = TINY.control[END]
    assert TINY.control == {END: 273} and end == len(TINY) - 1
    assert end not in TINY.encode(f"{END} {END[:5]}{END}")
    assert TINY.decode([end, *TINY.encode("the"), end, len(TINY), 10**6]) == "the"
    with pytest.raises(ValueError, match="got -1"):
        TINY.decode([-1])


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d"])
def test_half_a_character_is_refused_with_its_place(text):
    with pytest.raises(ValueError, match=r"character \d is the lone surrogate U\+D"):
        TINY.encode(text)


def test_what_is_no_str_is_refused():
    with pytest.raises(TypeError, match="wanted a str"):
        TINY.encode(b"bytes")


def test_a_hundred_thousand_letters_without_a_blank_are_one_word():
    text = "the" * 40_000
    assert TINY.decode(TINY.encode(text)) == text
    assert TINY.encode("a" * 999) == plain("a" * 999, TINY)


def test_a_merge_listed_before_its_parts_waits_for_them_as_in_the_plain_loop():
    odd = grown("ab c", "a b", "b c", "c c", "cc c")
    for text in ("abc", "abcc", "aabbcc", "abcabc", "cccabccc", "bcbcabcabcc"):
        assert odd.encode(text) == plain(text, odd)


def test_memory_stays_small_over_many_different_words():
    for start in range(0, bytepair.CACHED + 10_000, 10_000):
        TINY.encode(" ".join(f"{i:x}" for i in range(start, start + 10_000)))
    assert len(TINY._cache) <= bytepair.CACHED


# Files


def write(tmp_path, vocab: bytes | None = None, merges: bytes | None = None):
    TINY.save(tmp_path)
    if vocab is not None:
        (tmp_path / "vocab.json").write_bytes(vocab)
    if merges is not None:
        (tmp_path / "merges.txt").write_bytes(merges)
    return tmp_path / "vocab.json", tmp_path / "merges.txt"


def test_what_is_saved_loads_to_the_same(tmp_path):
    assert bytepair.BytePair.load(*write(tmp_path)) == TINY
    assert TINY.save(tmp_path) == TINY.options()


def test_merges_may_lack_the_version_line_and_end_their_lines_either_way(tmp_path):
    merges = "\r\n".join(" ".join(pair) for pair in TINY.merges)
    assert bytepair.BytePair.load(*write(tmp_path, merges=merges.encode())) == TINY


BROKEN_VOCAB = {
    "empty": (b"", errors.Incomplete, "is empty"),
    "binary": (b"\x80\x04\x95", errors.Corrupt, "not UTF-8"),
    "half": (b'{"a": 0, "b"', errors.Corrupt, "not the JSON of a vocabulary"),
    "deep": (b"[" * 100_000, errors.Corrupt, "not the JSON of a vocabulary"),
    "list": (b'["a", "b"]', errors.Mismatch, "holds a list, wanted an object"),
    "number": (b"3", errors.Mismatch, "holds a int"),
    "nothing": (b"{}", errors.Mismatch, "holds an empty object"),
    "text for ids": (b'{"a": "0"}', errors.Mismatch, "1 ids are not whole numbers"),
    "truth for ids": (b'{"a": true}', errors.Mismatch, "1 ids are not whole numbers"),
    "a gap": (b'{"a": 0, "b": 2}', errors.Mismatch, "not 0 to 1, each once"),
    "an id twice": (b'{"a": 0, "b": 0}', errors.Mismatch, "not 0 to 1, each once"),
    "a name twice": (b'{"a": 0, "b": 1, "a": 1}', errors.Corrupt, "key 'a' appears twice"),
    "too few": (b'{"a": 0, "b": 1}', errors.Mismatch, "no token for the byte 0x00"),
    "huge ids": (b'{"a": 99999999999999999999999999}', errors.Mismatch, "not 0 to 0"),
}


@pytest.mark.parametrize("name", BROKEN_VOCAB)
def test_a_wrong_vocabulary_is_refused_by_name(tmp_path, name):
    data, kind, message = BROKEN_VOCAB[name]
    with pytest.raises(kind, match=message) as caught:
        bytepair.BytePair.load(*write(tmp_path, vocab=data))
    assert "vocab.json" in str(caught.value)


BROKEN_MERGES = {
    "empty": (b"", errors.Incomplete, "is empty"),
    "binary": (b"\xff\xfe\x00", errors.Corrupt, "not UTF-8"),
    "one part": (b"#version: 0.2\nt h\nthe\n", errors.Mismatch, "1 of 3 lines are not two tokens and one blank, first line 3: 'the'"),
    "three parts": (b"t h e\n", errors.Mismatch, "first line 1"),
    "blank line": (b"t h\n\n", errors.Mismatch, "first line 2"),
    "unknown": (b"t h\nz q\n", errors.Mismatch, "merge 2, 'z' and 'q': no token 'zq'"),
    "twice": (b"t h\nt h\n", errors.Mismatch, "1 merges stand twice"),
    "cut short": (b"#version: 0.2\nt h\n", errors.Mismatch, "no merge makes it"),
    "json": (b'{"a": 0}', errors.Mismatch, "no token '{\"a\":'"),
}


@pytest.mark.parametrize("name", BROKEN_MERGES)
def test_wrong_merges_are_refused_by_name(tmp_path, name):
    data, kind, message = BROKEN_MERGES[name]
    with pytest.raises(kind, match=message) as caught:
        bytepair.BytePair.load(*write(tmp_path, merges=data))
    assert "merges.txt" in str(caught.value)


def test_files_given_the_wrong_way_round_are_refused(tmp_path):
    vocab, merges = write(tmp_path)
    with pytest.raises(errors.Corrupt, match=r"merges\.txt is not the JSON"):
        bytepair.BytePair.load(merges, vocab)


@given(vocab=st.binary(max_size=40), merges=st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_no_bytes_of_files_break_the_reader(tmp_path_factory, vocab, merges):
    folder = tmp_path_factory.getbasetemp()
    for pair in (write(folder, vocab=vocab), write(folder, merges=b"t h\n" + merges)):
        with pytest.raises(errors.CheckpointError):
            bytepair.BytePair.load(*pair)
