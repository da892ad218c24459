"""A character a token: for texts whose sides are compared place by place."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from typing import Any, ClassVar

from flaxgen.errors import Mismatch
from flaxgen.text import files

FILE = "vocab.txt"
UNKNOWN = "[UNK]"
LOST = "□"  # what an unknown character is written as


@dataclasses.dataclass(frozen=True)
class Single:
    """A tokenizer of single characters: ids from 1 in the order of `tokens`, whose first entry is [UNK], id 0.

        Single(("[UNK]", "天", "地")).encode("天 雨地")  ->  [1, 0, 2]

    Blanks are left out; every other character is one id, so places of ids are places of characters.
    """

    tokens: tuple[str, ...]
    end: tuple[int, ...] = ()
    kind: ClassVar[str] = "single"

    def __post_init__(self):
        wrong = [f"id {i}: {token!r}" for i, token in enumerate(self.tokens) if i and (len(token) != 1 or token.isspace())]
        if self.tokens[:1] != (UNKNOWN,) or wrong or len(set(self.tokens)) != len(self.tokens):
            what = f"first {wrong[0]}" if wrong else f"{len(self.tokens) - len(set(self.tokens))} twice, first entry {self.tokens[:1]}"
            raise Mismatch(f"wanted {UNKNOWN} and then single characters, each once, got {what}; fetch the file again")

    @classmethod
    def build(cls, texts: Iterable[str], *, least: int = 2) -> "Single":
        """The characters that stand at least `least` times in the texts, the most frequent first."""
        seen = collections.Counter(character for text in texts for character in text if not character.isspace())
        kept = sorted((-count, character) for character, count in seen.items() if count >= least)
        return cls((UNKNOWN, *(character for _, character in kept)))

    @classmethod
    def load(cls, path) -> "Single":
        """The tokenizer of a vocab.txt: a character a line, after [UNK]."""
        try:
            return cls(tuple(files.lines(path)))
        except Mismatch as error:
            raise Mismatch(f"{path}: {error}") from None

    def save(self, folder) -> dict[str, Any]:
        """Writes vocab.txt into a folder; the value is `options`."""
        (pathlib.Path(folder) / FILE).write_bytes(self._bytes)
        return self.options()

    def options(self) -> dict[str, Any]:
        """What config.json says of this tokenizer: its kind and its file's sha256."""
        return {"kind": self.kind, "sha256": {FILE: files.digest(self._bytes)}}

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def control(self) -> dict[str, int]:
        """The ids of the control tokens by name."""
        return {UNKNOWN: 0}

    def encode(self, text: str) -> list[int]:
        """The id of each character, 0 for an unknown one; none for blanks."""
        return [self._id.get(character, 0) for character in text if not character.isspace()]

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of ids, □ for unknown ones and reserved rows past the vocabulary."""
        stream = self.stream()
        return "".join(map(stream.push, ids)) + stream.finish()

    def stream(self, after: Iterable[int] = ()) -> "Stream":
        """A decoder of one id at a time; `after` makes no difference, as characters do not look at their neighbours."""
        return Stream(self.tokens)

    @functools.cached_property
    def _bytes(self) -> bytes:
        return "".join(f"{token}\n" for token in self.tokens).encode()

    @functools.cached_property
    def _id(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens) if i}


@dataclasses.dataclass(frozen=True)
class Stream:
    """One character for every id."""

    tokens: tuple[str, ...]

    def push(self, token: int) -> str:
        if token < 0:
            raise ValueError(f"id: got {token}, wanted 0 or more; give token ids as the model drew them")
        return self.tokens[token] if 0 < token < len(self.tokens) else LOST

    def finish(self) -> str:
        return ""
