"""A byte-pair vocabulary from a corpus."""

import itertools
import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxgen.text import bytepair, pairs

LETTERS = len(bytepair.alphabet())
TEXTS = st.lists(st.text(st.sampled_from("ab今é \n'"), max_size=30), max_size=8)


def literal(texts, size, least):
    """Sennrich's loop as it is written: count all pairs, merge the first of the most frequent everywhere, begin again."""
    tokens = sorted(bytepair.alphabet())
    words = [[bytepair.alphabet()[byte] for byte in word.encode()] for text in texts for word in bytepair._words.findall(text)]
    merges = []
    while len(tokens) < size - 1:
        counts = {}
        for left, right in itertools.chain.from_iterable(map(itertools.pairwise, words)):
            counts[left, right] = counts.get((left, right), 0) + 1
        counts = {pair: count for pair, count in counts.items() if count >= least and pair not in merges}
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], tokens.index(pair[0]), tokens.index(pair[1])))
        merges.append(best)
        if "".join(best) not in tokens:
            tokens.append("".join(best))
        for word in words:
            place = 0
            while place < len(word) - 1:
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = ["".join(best)]
                place += 1
    return tuple(merges)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, more=st.integers(0, 40), least=st.integers(1, 3))
@example(texts=["aaaa aaaaa aaaaaaa"], more=20, least=1)
@example(texts=["abababa abab", "babab"], more=20, least=1)
@example(texts=["a\0b a\0b"], more=20, least=1)
def test_it_is_the_literal_loop(texts, more, least):
    made = pairs.byte_pairs(texts, size=LETTERS + 1 + more, least=least)
    assert made.merges == literal(texts, LETTERS + 1 + more, least)
    for text in texts:
        assert made.decode(made.encode(text)) == text


SAMPLE = ["the thin thing that thinks", "床前明月光，疑是地上霜。\n举头望明月", "  x=1;\t y=22; aaaaaaa", "don't café's ½"] * 2


def test_order_and_division_of_the_texts_do_not_matter():
    made = pairs.byte_pairs(SAMPLE, size=320)
    mixed = [*SAMPLE]
    random.Random(0).shuffle(mixed)
    assert made == pairs.byte_pairs(iter(mixed), size=320)


def test_bytes_come_first_and_the_end_last_as_in_gpt2():
    made = pairs.byte_pairs(SAMPLE, size=300)
    assert made.tokens[:LETTERS] == tuple(sorted(bytepair.alphabet()))
    assert (len(made), made.control, made.end) == (300, {"<|endoftext|>": 299}, (299,))


@pytest.mark.shared
def test_the_bytes_have_the_ids_that_gpt2_gives_them(shared):
    table = json.loads((shared / "data" / "vocab" / "gpt2-encoder.json").read_text(encoding="utf-8"))
    assert pairs.byte_pairs([], size=257).tokens[:LETTERS] == tuple(sorted(table, key=table.__getitem__)[:LETTERS])


def test_rare_pairs_are_left_alone():
    assert pairs.byte_pairs(["ab ab cd"], size=400).merges == (("a", "b"),)
    assert len(pairs.byte_pairs([], size=400)) == LETTERS + 1


def test_what_was_made_is_saved_and_loaded(tmp_path):
    made = pairs.byte_pairs(SAMPLE, size=300)
    made.save(tmp_path)
    again = bytepair.BytePair.load(tmp_path / bytepair.VOCAB, tmp_path / bytepair.MERGES)
    assert (again.tokens, again.merges) == (made.tokens, made.merges)


@pytest.mark.parametrize(
    ("texts", "more", "message"),
    [
        ([], {"size": 256}, "size: got 256, wanted at least 257"),
        ([], {"least": 0}, "least: got 0, wanted 1 or more"),
        (["ab\ud800"], {}, "text: character 2 is half a character"),
    ],
)
def test_what_cannot_be_made_is_refused(texts, more, message):
    with pytest.raises(ValueError, match=message):
        pairs.byte_pairs(texts, **{"size": 300} | more)


@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "红楼梦.txt", "thucnews_titles_dev.txt"])
@pytest.mark.shared
def test_merges_are_those_of_hf_tokenizers(shared, name):
    tokenizers = pytest.importorskip("tokenizers")
    text = (shared / "data" / "text" / name).read_text(encoding="utf-8")[:200_000]
    texts = text.split("\n\n")
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1999, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    peer.train_from_iterator(texts, trainer)
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in json.loads(peer.to_str())["model"]["merges"]]
    made = pairs.byte_pairs(texts, size=2000)
    assert made.merges == tuple(merges)
    assert made.decode(made.encode(text)) == text
