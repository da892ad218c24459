"""A WordPiece vocabulary from a corpus: its characters by frequency; and one extended by the characters that it lacks."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from flaxgen.text import characters, wordpiece

CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# In every vocabulary, whatever the corpus: with these any Latin text and any Chinese punctuation can be spelled.
_SIGNS = "".join(map(chr, range(33, 127)))
_CHINESE = "，。、；：？！“”‘’（）《》〈〉「」『』【】…—～·"


def count(texts: Iterable[str], *, case: Literal["lower", "keep"] = "lower") -> collections.Counter[str]:
    """How often each character opens a word, and, as "##x", stands further inside one."""
    counts: collections.Counter[str] = collections.Counter()
    for word, times in words(texts, case=case).items():
        for piece in _pieces(word):
            counts[piece] += times
    return counts


def words(texts: Iterable[str], *, case: Literal["lower", "keep"] = "lower") -> collections.Counter[str]:
    """How often each word stands in the texts, as a WordPiece vocabulary is asked for it."""
    chunks: collections.Counter[str] = collections.Counter()
    for text in texts:
        chunks.update(characters.chunks(text))
    found: collections.Counter[str] = collections.Counter()
    for chunk, times in chunks.items():
        for word in characters.words(chunk, case):
            found[word] += times
    return found


def vocabulary(
    texts: Iterable[str], *, size: int, control: Sequence[str] = CONTROL, least: int = 1, case: Literal["lower", "keep"] = "lower"
) -> wordpiece.WordPiece:
    """A tokenizer of at most `size` tokens: control tokens, signs, digits and letters, then what is frequent in the texts.

    [PAD] is id 0. Entries seen fewer than `least` times are left out. The same texts in any order give the same vocabulary: entries of
    equal count stand in the order of their characters.
    """
    if "[UNK]" not in control:
        raise ValueError(f"control: got {list(control)}, wanted [UNK] among them; it stands for what the vocabulary cannot spell")
    plain = [name for name in control if not wordpiece.is_control(name)]
    if plain:
        raise ValueError(f"control: got {plain}, wanted names such as [SEP] or <S>; a text could spell anything else")
    tokens = dict.fromkeys((*control, *_always(case)))
    if len(tokens) > size:
        raise ValueError(f"size: got {size}, wanted at least {len(tokens)}, for control tokens, signs, digits and letters; allow more")
    counts = count(texts, case=case)
    for token in sorted(counts, key=lambda token: (-counts[token], token)):
        if len(tokens) >= size or counts[token] < least:
            break
        tokens[token] = None
    return wordpiece.WordPiece(tuple(tokens), case)


def extend(text: wordpiece.WordPiece, texts: Iterable[str], *, size: int | None = None, least: int = 1) -> wordpiece.WordPiece:
    """The same tokenizer with the characters behind it that the texts' unknown words want, the most frequent first.

    Old ids stay as they are, and so does the cut of every word that could be spelled before. size: the most tokens there may be in all.
    Characters seen fewer than `least` times in unknown words are left out; what needs them stays [UNK].
    """
    if size is not None and size < len(text):
        raise ValueError(f"size: got {size}, wanted at least {len(text)}, which the vocabulary has already; allow more, or leave it out")
    known, unknown = set(text.tokens), text.control[wordpiece.UNKNOWN]
    counts: collections.Counter[str] = collections.Counter()
    for word, times in words(texts, case=text.case).items():
        if len(word) <= wordpiece.LONGEST and unknown in text.encode(word):
            for piece in _pieces(word):
                if piece not in known:
                    counts[piece] += times
    wanted = sorted((piece for piece in counts if counts[piece] >= least), key=lambda piece: (-counts[piece], piece))
    room = None if size is None else size - len(text)
    return dataclasses.replace(text, tokens=(*text.tokens, *wanted[:room]))


def _pieces(word: str) -> list[str]:
    return [word[0], *("##" + character for character in word[1:])]


def _always(case: str) -> list[str]:
    signs = [c for c in _SIGNS if case == "keep" or not c.isupper()]
    return [*signs, *("##" + c for c in signs if c.isalnum()), *_CHINESE]
