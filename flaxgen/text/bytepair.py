"""GPT-2's byte-level pair encoding: any text to ids and back without loss."""

import codecs
import dataclasses
import functools
import heapq
import itertools
import json
import operator
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import regex

from flaxgen import errors
from flaxgen.errors import Mismatch
from flaxgen.text import files

VOCAB, MERGES = "vocab.json", "merges.txt"
CACHED, SHORT = 1 << 16, 32  # so many words of so many characters are remembered, then forgotten all at once

# Contractions, then a blank with letters, digits or signs, then blanks, of which the last goes to the next word. From openai/gpt-2.
_words = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")
_control = re.compile(r"<.*>|\[.*\]", re.DOTALL)


@functools.cache
def alphabet() -> tuple[str, ...]:
    """The character that stands for each byte in GPT-2's files: itself where it can be seen, else one from U+0100 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = itertools.count(256)
    return tuple(chr(byte if byte in seen else next(hidden)) for byte in range(256))


@dataclasses.dataclass(frozen=True)
class BytePair:
    """A tokenizer over byte strings that grow by merging pairs, the earlier merge first.

    tokens: the vocabulary in GPT-2's spelling of bytes, a token's place being its id. merges: pairs of tokens. Entries that are neither a
    byte nor what a merge makes are control tokens, as <|endoftext|>: they decode to nothing and no text encodes to them.
    end: the ids that end a text of the model it belongs to.
    """

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    end: tuple[int, ...] = ()
    kind: ClassVar[str] = "bytepair"

    def __post_init__(self):
        problems = self._problems()
        if problems:
            raise Mismatch(errors.listing("vocabulary and merges do not fit", problems, "Take both files from the same model"))

    @classmethod
    def load(cls, vocab_json, merges) -> "BytePair":
        """The tokenizer of a vocab.json and merges.txt, or of OpenAI's encoder.json and vocab.bpe."""
        table = files.table(vocab_json)
        rows = files.lines(merges)
        first = 1 if rows[0].startswith("#version") else 0
        pairs = [tuple(row.split(" ")) for row in rows[first:]]
        wrong = [first + i + 1 for i, pair in enumerate(pairs) if len(pair) != 2 or not all(pair)]
        if wrong:
            raise Mismatch(
                f"{merges}: {len(wrong)} of {len(rows)} lines are not two tokens and one blank, first line {wrong[0]}: "
                f"{rows[wrong[0] - 1][:60]!r}; name the merges.txt or vocab.bpe"
            )
        try:
            return cls(tuple(sorted(table, key=table.__getitem__)), tuple(pairs))
        except Mismatch as error:
            raise Mismatch(f"{vocab_json}, {merges}: {error}") from None

    def save(self, folder) -> dict[str, Any]:
        """Writes vocab.json and merges.txt into a folder; the value is `options`."""
        for name, data in self._bytes.items():
            (pathlib.Path(folder) / name).write_bytes(data)
        return self.options()

    def options(self) -> dict[str, Any]:
        """What config.json says of this tokenizer: its kind and the sha256 of its files."""
        return {"kind": self.kind, "sha256": {name: files.digest(data) for name, data in self._bytes.items()}}

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def control(self) -> dict[str, int]:
        """The ids of the control tokens by name."""
        made = {left + right for left, right in self.merges}.union(alphabet())
        return {token: i for i, token in enumerate(self.tokens) if token not in made}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, never a control token's."""
        if not isinstance(text, str):
            raise TypeError(f"text: got {type(text).__name__}, wanted a str; decode bytes first")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text: character {error.start} is the lone surrogate U+{ord(text[error.start]):04X}, half a character; wanted text that "
                'UTF-8 can hold: repair it, for example by text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
            ) from None
        return list(itertools.chain.from_iterable(map(self._cache.__getitem__, _words.findall(text))))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, U+FFFD where they are no whole character; control tokens and reserved ids give nothing."""
        stream = self.stream()
        return "".join([stream.push(i) for i in ids]) + stream.finish()

    def stream(self, after: Iterable[int] = ()) -> "Stream":
        """A decoder of one id at a time, whose pieces join to `decode` and never cut a character.

        after: ids that came before; their text is not given again, but they may hold the first bytes of a character.
        """
        return Stream(self.shown, after)

    def _problems(self) -> list[str]:
        place = {token: i for i, token in enumerate(self.tokens)}
        problems = [f"no token for the byte 0x{byte:02x} ({name!r})" for byte, name in enumerate(alphabet()) if name not in place]
        if len(place) != len(self.tokens):
            problems.append(f"{len(self.tokens) - len(place)} tokens stand twice")
        if len(set(self.merges)) != len(self.merges):
            problems.append(f"{len(self.merges) - len(set(self.merges))} merges stand twice")
        for i, (left, right) in enumerate(self.merges):
            problems += [f"merge {i + 1}, {left!r} and {right!r}: no token {t!r}" for t in (left, right, left + right) if t not in place]
        stray = [name for name in self.control if not _control.fullmatch(name)]
        problems += [f"token {place[name]}, {name!r}: no merge makes it, and it is not spelled as a control token" for name in stray]
        return problems

    @functools.cached_property
    def _bytes(self) -> dict[str, bytes]:
        vocab = json.dumps({token: i for i, token in enumerate(self.tokens)}, ensure_ascii=False)
        merges = "".join(f"{left} {right}\n" for left, right in self.merges)
        return {VOCAB: vocab.encode(), MERGES: f"#version: 0.2\n{merges}".encode()}

    @functools.cached_property
    def shown(self) -> list[bytes]:
        """The bytes that each token stands for; none for control tokens."""
        byte = {name: i for i, name in enumerate(alphabet())}
        return [b"" if token in self.control else bytes(byte[c] for c in token) for token in self.tokens]

    @functools.cached_property
    def tables(self) -> dict:
        """What text.tables remembers of this vocabulary."""
        return {}

    @functools.cached_property
    def _cache(self) -> "_Cache":
        return _Cache(self)


class Stream:
    """Text out of ids, one at a time, in whole characters."""

    def __init__(self, shown: Sequence[bytes], after: Iterable[int] = ()):
        self._shown = shown
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in after:
            self.push(token)

    def push(self, token: int) -> str:
        """The characters that one more id completes; "" for control tokens and ids past the vocabulary."""
        token = operator.index(token)
        if token < 0:
            raise ValueError(f"id: got {token}, wanted 0 or more; give token ids as the model drew them")
        return self._decoder.decode(self._shown[token]) if token < len(self._shown) else ""

    @property
    def pending(self) -> bytes:
        """The first bytes of a character that is not whole yet."""
        return self._decoder.getstate()[0]

    def finish(self) -> str:
        """U+FFFD if the text ends within a character, else nothing."""
        return self._decoder.decode(b"", final=True)


class _Cache(dict):
    """Word -> ids, filled on demand."""

    def __init__(self, text: BytePair):
        place = {token: i for i, token in enumerate(text.tokens)}
        self.byte = [place[name] for name in alphabet()]
        self.pairs = {(place[a], place[b]): (rank, place[a + b]) for rank, (a, b) in enumerate(text.merges)}
        self.inner = {pair for shown in text.shown for pair in itertools.pairwise(shown)}
        self.part = functools.lru_cache(maxsize=CACHED)(self.merge)

    def __missing__(self, word: str) -> tuple[int, ...]:
        """Cuts a word where no token holds the two bytes that meet: a Chinese clause falls into characters, which repeat."""
        data = word.encode()
        cuts = [0, *(i for i, pair in enumerate(itertools.pairwise(data), 1) if pair not in self.inner), len(data)]
        parts = [data[start:stop] for start, stop in itertools.pairwise(cuts)]
        ids = tuple(itertools.chain.from_iterable(self.part(part) if len(part) <= SHORT else self.merge(part) for part in parts))
        if len(word) <= SHORT:
            if len(self) >= CACHED:
                self.clear()
            self[word] = ids
        return ids

    def merge(self, data: bytes) -> list[int]:
        """Merges the pair of the lowest rank wherever it stands, from the left, until no pair has a rank.

        A heap over linked places: n log n for a word of n bytes, where a plain loop would take n² for a megabyte without blanks.
        """
        ids = [self.byte[byte] for byte in data]
        after, before = list(range(1, len(ids) + 1)), list(range(-1, len(ids) - 1))
        waiting = [(*found, i) for i in range(len(ids) - 1) if (found := self.pairs.get((ids[i], ids[i + 1])))]
        heapq.heapify(waiting)
        while waiting:
            rank, made, grown = *waiting[0][:2], []
            while waiting and waiting[0][0] == rank:
                place = heapq.heappop(waiting)[2]
                right = after[place]
                if ids[place] < 0 or right >= len(ids) or self.pairs.get((ids[place], ids[right])) != (rank, made):
                    continue  # another merge took one of the two
                ids[place], ids[right], after[place] = made, -1, after[right]
                if after[place] < len(ids):
                    before[after[place]] = place
                grown.append(place)
            for place in {*grown, *(before[place] for place in grown)}:
                if place >= 0 and ids[place] >= 0 and after[place] < len(ids):
                    found = self.pairs.get((ids[place], ids[after[place]]))
                    if found:
                        heapq.heappush(waiting, (*found, place))
        return [i for i in ids if i >= 0]
