"""Where blanks go when pieces become text again: between Latin words, not between Chinese characters.

WordPiece forgets the blanks of a text, so they are put back by the characters that meet. A stream decides about the blank before a piece
when the piece comes, from the text so far; nothing already given changes.

    今天 天 气 不 错  ->  今天天气不错            hello , world ! it ' s un ##aff ##able  ->  hello, world! it's unaffable
    gpt ##2 _ ml     ->  gpt2_ml                 http : / / example . com / a ? b = c    ->  http://example.com/a?b=c
"""

import functools
import operator
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from flaxgen.text import characters

Kind = Literal["word", "ideograph", "wide", "open", "close", "glue", "quote", "apostrophe", "mark"]

# Full-width and Chinese punctuation carries its own blank.
_wide = re.compile("[\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufe10-\ufe6f–—‘’‛“”„‟…‧·]")
_number = re.compile(r"[0-9][.,:]$")
_ASCII: dict[str, Kind] = {
    **dict.fromkeys("([{<", "open"),
    **dict.fromkeys(")]}", "close"),
    **dict.fromkeys("+-/=_&@~^|\\`*$", "glue"),
    '"': "quote",
    "'": "apostrophe",
}
_ENDINGS = frozenset(("s", "t", "re", "ve", "m", "ll", "d"))  # of it's, don't, we're, I've, I'm, we'll, he'd
_BEGINNINGS = _ENDINGS | {"r", "v", "l"}
_DIGITS = "0123456789"
# Pieces known by their text: what opens and closes quotations and addresses, and whatever a contraction can be put together from.
_NAMED = frozenset(('"', "@", "/", "e", *_BEGINNINGS))
# A character of each kind that nothing asks for by name.
_SAMPLE: dict[Kind, str] = {
    **{"word": "a", "ideograph": "一", "wide": "。", "open": "(", "close": ")"},
    **{"glue": "-", "quote": '"', "apostrophe": "'", "mark": "!"},
}


class Joint(NamedTuple):
    """What decides about the blanks around a piece."""

    text: str
    first: Kind
    last: Kind
    continues: bool


@functools.lru_cache(maxsize=1 << 14)
def kind(character: str) -> Kind:
    """How a character takes its neighbours."""
    if characters.is_ideograph(character):
        return "ideograph"
    if _wide.match(character):
        return "wide"
    if not characters.is_punctuation(character):
        return "word"
    return _ASCII.get(character, "mark")


def joint(token: str) -> Joint | None:
    """The joint of a WordPiece token, its text without "##"; None for a blank, such as U+2028 in BERT's vocabulary."""
    continues = token.startswith("##") and len(token) > 2
    text = token[2:] if continues else token
    if text.isspace():
        return None
    return Joint(text, kind(text[0]), kind(text[-1]), continues)


class Memory(NamedTuple):
    """All that a stream remembers and that can still matter, characters that act alike written as one."""

    tail: str = ""
    quoted: bool = False
    address: bool = False
    held: str | None = None


def habit(piece: Joint) -> tuple:
    """All of a piece, but for its characters, that can matter to a stream: pieces of one habit leave it remembering the same."""
    text = piece.text
    named = text if text in _NAMED else None
    return piece.continues, piece.first, text[0] in _DIGITS, named, _alike(text) if len(text) == 1 else _summary(text) + "…"


def _alike(character: str) -> str:
    """One character for all that act alike as the last of a text or the last but one."""
    if character in _DIGITS:
        return "0"
    if character in ".,":
        return "."
    return character if character in "]:/" else _SAMPLE[kind(character)]


def _summary(tail: str) -> str:
    """The end of a text: its last character, and the one before where `Stream` would look at it."""
    last = _alike(tail[-1]) if tail else ""
    wanted = {"'": "a0", ".": "0", ":": "0", "/": ":"}.get(last)
    if wanted is None:
        return last
    before = "" if tail[-2:-1] in ("", " ") else _alike(tail[-2])
    return (wanted[0] if before and before in wanted else "!") + last


class Stream:
    """Text out of ids, one at a time: what `push` gives and `finish` adds join to the decoded whole.

    A stream moves, and so is no frozen thing: it holds the last three characters, whether a quotation or an address is open, and what may
    end a contraction until the next id shows that it does: ' s is 's, but ' s ##hare is ' share.
    """

    def __init__(self, joints: Sequence[Joint | None], after: Iterable[int] = ()):
        self._joints = joints
        self._tail, self._last, self._quoted, self._address = "", None, False, False
        self._held: Joint | None = None
        for token in after:
            self.push(token)
        self.finish()

    def remember(self, memory: Memory) -> None:
        """Goes on as a stream with this memory would."""
        self._tail, self._quoted, self._address = memory.tail, memory.quoted, memory.address
        self._last = kind(memory.tail[-1]) if memory.tail else None
        self._held = None if memory.held is None else joint(memory.held)

    @property
    def memory(self) -> Memory:
        return Memory(_summary(self._tail), self._quoted, self._address, None if self._held is None else self._held.text)

    def push(self, token: int) -> str:
        """The text that one more id settles, often its own; "" for control tokens and ids past the vocabulary."""
        token = operator.index(token)
        if token < 0:
            raise ValueError(f"id: got {token}, wanted 0 or more; give token ids as the model drew them")
        piece = self._joints[token] if token < len(self._joints) else None
        if piece is None:
            return ""
        if self._held is not None and piece.continues:
            piece = Joint(self._held.text + piece.text, self._held.first, piece.last, False)
            self._held = None
        before = self.finish()
        if self._last == "apostrophe" and not piece.continues and piece.text in _BEGINNINGS and self._after_word():
            self._held = piece
            return before
        return before + self._put(" " if self._parts(piece) else "", piece)

    def finish(self) -> str:
        """The text still held back."""
        held, self._held = self._held, None
        if held is None:
            return ""
        return self._put("" if held.text in _ENDINGS else " ", held)

    def _after_word(self) -> bool:
        """Whether the last character stands right after a word, as an apostrophe does, not after a blank, as an opening quote."""
        return len(self._tail) > 1 and self._tail[-2] != " " and kind(self._tail[-2]) == "word"

    def _put(self, blank: str, piece: Joint) -> str:
        if piece.text == '"':
            self._quoted = not self._quoted
        elif piece.text == "@" or (piece.text == "/" and self._tail.endswith(":/")):
            self._address = True
        elif blank or piece.first in ("ideograph", "wide"):
            self._address = False
        self._tail = (self._tail + blank + piece.text)[-3:]
        self._last = piece.last
        return blank + piece.text

    def _parts(self, piece: Joint) -> bool:
        """Whether a blank parts the text so far from a piece."""
        last, first = self._last, piece.first
        if last is None or piece.continues or last in ("wide", "open", "glue"):
            return False
        if first == "ideograph":
            return self._tail[-1] == "]"  # [1] 注: a mark in brackets stands apart, as in bert4keras
        if last == "ideograph" or first in ("wide", "close", "glue", "apostrophe", "mark"):
            return False
        if self._address and last != "word":
            return False
        if last == "quote" and self._quoted:
            return False
        if first == "quote":
            return not self._quoted
        if first == "open":
            return last in ("close", "mark")
        if last == "apostrophe":
            return self._after_word()  # the dogs' food, but 'twas
        return not (_number.search(self._tail) and piece.text[0] in _DIGITS)
