"""WordPiece: text to ids exactly as gpt2-ml and bert4keras cut it, and back into text that reads naturally.

Where the two originals differ (a capital sigma before a dropped character) this follows gpt2-ml, whose model it is.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from flaxgen.errors import Mismatch
from flaxgen.text import characters, files, spacing

FILE = "vocab.txt"
UNKNOWN = "[UNK]"
LONGEST = 200  # characters in a word; a longer one is unknown
CACHED, SHORT = 1 << 16, 32  # so many chunks of so many characters are remembered, then forgotten all at once

_control = re.compile(r"\[[^\[\]\s]+\]|<[^<>\s]+>")


@dataclasses.dataclass(frozen=True)
class WordPiece:
    """A tokenizer over a vocabulary of words, characters and "##" continuations.

    tokens: the vocabulary, a token's place being its id. case: "lower" folds case and accents, as all released Chinese models do.
    Entries that look like [NAME] or <NAME> are control tokens: they have ids in `control`, decode to nothing, and no text encodes to
    them, except that a word the vocabulary cannot spell becomes [UNK]. end: the ids that end a text of the model it belongs to.
    """

    tokens: tuple[str, ...]
    case: Literal["lower", "keep"] = "lower"
    end: tuple[int, ...] = ()
    kind: ClassVar[str] = "wordpiece"

    def __post_init__(self):
        if self.case not in ("lower", "keep"):
            raise ValueError(f'case: got {self.case!r}, wanted "lower" or "keep"')
        wrong = [f"id {i}: {token!r}" for i, token in enumerate(self.tokens) if not _whole(token)]
        if wrong:
            raise Mismatch(f"{len(wrong)} tokens are empty or hold blanks, first {wrong[0]}; write one token a line and nothing else")
        if len(set(self.tokens)) != len(self.tokens):
            place: dict[str, int] = {}
            first, second = next((place[t], i) for i, t in enumerate(self.tokens) if place.setdefault(t, i) != i)
            raise Mismatch(f"ids {first} and {second} are both {self.tokens[first]!r}, wanted each token once; fetch the file again")
        if UNKNOWN not in self.tokens:
            raise Mismatch(f"none of the {len(self.tokens)} tokens is {UNKNOWN}: not a WordPiece vocabulary; name the model's vocab.txt")

    @classmethod
    def load(cls, path, *, case: Literal["lower", "keep"] = "lower") -> "WordPiece":
        """The tokenizer of a vocab.txt: a token a line."""
        rows = [row.strip(" \t") for row in files.lines(path)]
        blank = [i for i, row in enumerate(rows) if not row]
        if blank:
            raise Mismatch(f"{path}: {len(blank)} lines are empty, first line {blank[0] + 1} of {len(rows)}; wanted a token a line")
        try:
            return cls(tuple(rows), case)
        except Mismatch as error:
            raise Mismatch(f"{path}: {error}") from None

    def save(self, folder) -> dict[str, Any]:
        """Writes vocab.txt into a folder; the value is `options`."""
        (pathlib.Path(folder) / FILE).write_bytes(self._bytes)
        return self.options()

    def options(self) -> dict[str, Any]:
        """What config.json says of this tokenizer: its kind, its settings and its file's sha256."""
        return {"kind": self.kind, "case": self.case, "sha256": {FILE: files.digest(self._bytes)}}

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def control(self) -> dict[str, int]:
        """The ids of the control tokens by name."""
        return {token: i for i, token in enumerate(self.tokens) if is_control(token)}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without control tokens but [UNK]."""
        if not isinstance(text, str):
            raise TypeError(f"text: got {type(text).__name__}, wanted a str; decode bytes first")
        return list(itertools.chain.from_iterable(map(self._cache.__getitem__, characters.chunks(text))))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; control tokens, and ids of reserved rows past the vocabulary, give nothing."""
        stream = self.stream()
        return "".join([stream.push(i) for i in ids]) + stream.finish()

    def stream(self, after: Iterable[int] = ()) -> spacing.Stream:
        """A decoder of one id at a time, whose pieces join to `decode`.

        after: ids that came before; their text is not given again, but decides about the first space.
        """
        return spacing.Stream(self.joints, after)

    def simplify(self, first: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")) -> "tuple[WordPiece, list[int]]":
        """A smaller vocabulary, `first` at its head, and the old ids it keeps: the rows to gather from an embedding.

        Tokens of several characters that hold an ideograph or punctuation go; no text needs them, as such characters are cut apart. These
        are bert4keras's rules: [MASK] and other control tokens go too, unless they are named.
        """
        place = {token: i for i, token in enumerate(self.tokens)}
        absent = [token for token in first if token not in place]
        if absent or len(set(first)) != len(first):
            raise ValueError(f"first: got {list(first)}, of which {absent} are not in the vocabulary; wanted tokens of it, each once")
        kept = [place[token] for token in first]
        head = set(kept)
        kept += [i for i, token in enumerate(self.tokens) if i not in head and _simple(token)]
        return WordPiece(tuple(self.tokens[i] for i in kept), self.case), kept

    @functools.cached_property
    def _bytes(self) -> bytes:
        return "".join(f"{token}\n" for token in self.tokens).encode()

    @functools.cached_property
    def joints(self) -> list[spacing.Joint | None]:
        """What `stream` knows of each token; None for those that give no text."""
        return [None if token in self.control else spacing.joint(token) for token in self.tokens]

    @functools.cached_property
    def tables(self) -> dict:
        """What text.tables remembers of this vocabulary."""
        return {}

    @functools.cached_property
    def _cache(self) -> "_Cache":
        return _Cache(self)


class _Cache(dict):
    """Chunk -> ids, filled on demand: text repeats itself, so nearly every look-up is one of a plain dict."""

    def __init__(self, text: WordPiece):
        self.id = {token: i for i, token in enumerate(text.tokens) if token not in text.control}
        self.unknown, self.case = (text.tokens.index(UNKNOWN),), text.case
        self.longest = max((len(token) for token in self.id), default=1)

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        ids = tuple(itertools.chain.from_iterable(map(self.cut, characters.words(chunk, self.case))))
        if len(chunk) <= SHORT:
            if len(self) >= CACHED:
                self.clear()
            self[chunk] = ids
        return ids

    def cut(self, word: str) -> tuple[int, ...]:
        """Longest match from the left; a word that cannot be cut to its end is unknown as a whole."""
        if len(word) > LONGEST:
            return self.unknown
        ids: list[int] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            for end in range(min(len(word), start + self.longest), start, -1):
                found = self.id.get(mark + word[start:end])
                if found is not None:
                    break
            else:
                return self.unknown
            ids.append(found)
            start = end
        return tuple(ids)


def is_control(token: str) -> bool:
    """Whether a token is spelled as a control token: [NAME] or <NAME>, which no text reaches, as brackets are cut off."""
    return _control.fullmatch(token) is not None


def _whole(token: str) -> bool:
    # BERT's vocabulary holds U+2028 and ##U+2028, which no text reaches: words are cut there.
    stem = token.removeprefix("##")
    return token.split() == [token] or (stem.isspace() and not stem.isascii())


def _simple(token: str) -> bool:
    return len(token) == 1 or not any(characters.is_ideograph(c) or characters.is_punctuation(c) for c in token.removeprefix("##"))
