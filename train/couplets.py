"""Couplets to learn from: pairs of lines, and batches of one length, as a pure function of (seed, place)."""

import collections
import dataclasses
import gzip
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from flaxgen.text import single
from train import shuffle as order

Batch = dict[str, np.ndarray]
_upper_lines = re.compile(r"(?P<head>(.*[._-])?)in\.txt(?P<end>(\.gz)?)")  # in.txt, train_in.txt.gz; not train.txt, which is a table


@dataclasses.dataclass(frozen=True)
class Bucket:
    """All couplets of one length."""

    token_BT: np.ndarray
    target_BT: np.ndarray

    def __len__(self) -> int:
        return len(self.token_BT)

    def read(self, row_B: np.ndarray) -> Batch:
        return {"token_BT": self.token_BT[row_B], "target_BT": self.target_BT[row_B]}


@dataclasses.dataclass(frozen=True)
class Couplets:
    """Couplets by length, the shortest first. digest: of them, the vocabulary and what was left out."""

    buckets: tuple[Bucket, ...]
    digest: str

    def __len__(self) -> int:
        return sum(map(len, self.buckets))

    def weight(self) -> int:
        """Characters in one pass."""
        return sum(bucket.target_BT.size for bucket in self.buckets)

    def batch(self, seed: int, place: int, size: int, rows: slice = slice(None)) -> Batch:
        """Batch number `place` of `size` couplets of one length, or the part `rows` of it; row_B has their numbers in the whole batch.

        A length is drawn with a chance in proportion to its couplets, as from a deck that holds every batch of an epoch once and is
        shuffled by (seed, epoch); within a length each couplet comes once before any comes twice.
        """
        counts = [-(-len(bucket) // size) for bucket in self.buckets]
        (card,) = order.shuffle(np.asarray([place]), sum(counts), seed)
        length = int(np.searchsorted(np.cumsum(counts), card, "right"))
        before = place // sum(counts) * counts[length] + int(card) - sum(counts[:length])
        number_B = np.arange(size)[rows]
        row_B = order.shuffle(before * size + number_B, len(self.buckets[length]), seed, length + 1)
        return self.buckets[length].read(row_B) | {"row_B": number_B.astype(np.int32)}

    def parts(self, size: int, most: int) -> Iterator[Batch]:
        """All couplets, or of each length its share of `most`, in batches of `size` rows; weight_B is 0 for rows that fill up the last."""
        share = min(1.0, most / len(self))
        for bucket in self.buckets:
            count = -int(-len(bucket) * share // 1)
            for start in range(0, count, size):
                row_B = start + np.arange(size)
                yield bucket.read(np.minimum(row_B, count - 1)) | {"weight_B": (row_B < count).astype(np.float32)}


def build(words: str, text: single.Single, *, longest: int, known: str | None = None) -> Couplets:
    """The couplets of at most `longest` characters that data= names. known: the digest that they must have, another one is refused."""
    found: dict[int, list[tuple[list[int], list[int]]]] = collections.defaultdict(list)
    for upper, lower in pairs(words, longest=longest):
        found[len(upper)].append((text.encode(upper), text.encode(lower)))
    digest = hashlib.sha256(json.dumps(text.options(), sort_keys=True).encode())
    buckets = []
    for length in sorted(found):
        both_B2T = np.asarray(found[length], np.int32)
        digest.update(both_B2T.tobytes())
        buckets.append(Bucket(both_B2T[:, 0], both_B2T[:, 1]))
    if known not in (None, digest.hexdigest()):
        raise ValueError(f"{words} is not the text that the run was started on (its digest differs); restore it, or give another out=")
    return Couplets(tuple(buckets), digest.hexdigest())


def pairs(words: str, *, longest: int) -> Iterator[tuple[str, str]]:
    """The couplets of data= without blanks, those left out whose sides differ in length or have more than `longest` characters."""
    some = False
    for upper, lower in _lines(words):
        upper, lower = "".join(upper.split()), "".join(lower.split())
        if 1 <= len(upper) == len(lower) <= longest:
            some = True
            yield upper, lower
    if not some:
        raise ValueError(f"{words} holds no couplet whose two lines have the same number of characters, at most {longest}")


def _lines(words: str) -> Iterator[tuple[str, str]]:
    """Both sides of every line: of a file `upper<TAB>lower`, of an in.txt and the out.txt beside it, or of a folder that has these."""
    path = pathlib.Path(words).expanduser()
    if path.is_dir():
        path = next((path / name for name in ("in.txt", "in.txt.gz") if (path / name).is_file()), path / "in.txt")
    if not words or not path.is_file():
        raise ValueError(
            f"no couplets at {words or 'data='}; give data=FILE of lines `upper<TAB>lower`, or a folder with in.txt and out.txt. "
            "Couplets of verse come from `python -m train prepare-couplets`"
        )
    named = _upper_lines.fullmatch(path.name)
    if not named:
        for number, line in enumerate(_text(path), 1):
            upper, tab, lower = line.partition("\t")
            if line.strip() and (not tab or "\t" in lower):
                raise ValueError(f"{path} line {number}: wanted `upper<TAB>lower`, got {line[:60]!r}")
            yield upper, lower
        return
    other = path.with_name(f"{named['head']}out.txt{named['end']}")
    if not other.is_file():
        raise ValueError(f"{path} holds upper lines, but {other} is not there; put the lower lines there, one for each")
    uppers, lowers = _text(path), _text(other)
    for number, upper in enumerate(uppers, 1):
        lower = next(lowers, None)
        if lower is None:
            raise ValueError(f"{other} ends before line {number} of {path.name}; wanted a lower line for each upper one")
        yield upper, lower
    if next(lowers, None) is not None:
        raise ValueError(f"{other} has more lines than {path.name}; wanted a lower line for each upper one")


def _text(path: pathlib.Path) -> Iterator[str]:
    """The lines of a UTF-8 file, gzipped by its name."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="\n") as file:
        try:
            for line in file:
                yield line.rstrip("\r\n")
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: {error}; wanted UTF-8 text, or that gzipped under a name that ends with .gz") from None
