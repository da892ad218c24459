"""Text or JSONL into a memory-mapped table of rows, and batches as a pure function of (seed, step).

A row is T + 1 tokens: whole documents one after the other, each with its end token, and -1 where nothing more fitted. So every row starts
where a document starts, as a prompt does. With T = 9, documents `abc` and `defg`, end `.`:   a b c . d e f g . -
"""

import bisect
import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

EMPTY = -1
WINDOW = 4096  # documents packed together: rows of verse, 193 wide, are 98.9 % full


@dataclasses.dataclass(frozen=True)
class Rows:
    """token_RT of R rows, T + 1 wide, memory-mapped from `rows.npy`, and the digest of what they were made of."""

    token_RT: np.ndarray
    digest: str

    def batch(self, seed: int, step: int, size: int) -> dict[str, np.ndarray]:
        """The batch of a step: each epoch is a permutation of the rows, drawn from (seed, epoch)."""
        place_B = np.arange(step * size, (step + 1) * size)
        count = len(self.token_RT)
        row_B = np.empty(size, np.int64)
        for epoch in np.unique(place_B // count):
            mine_B = place_B // count == epoch
            row_B[mine_B] = permute(place_B[mine_B] % count, count, seed, int(epoch))
        return split(self.token_RT[row_B])

    def weight(self) -> int:
        """Targets in one epoch."""
        return int(np.count_nonzero(self.token_RT[:, 1:] != EMPTY))


def split(token_BT: np.ndarray) -> dict[str, np.ndarray]:
    """Rows as inputs, the targets that follow them, and weights that leave out the empty places."""
    row_BT = np.asarray(token_BT, np.int32)
    target_BT = row_BT[:, 1:]
    return {
        "token_BT": np.maximum(row_BT[:, :-1], 0),
        "target_BT": np.maximum(target_BT, 0),
        "weight_BT": (target_BT != EMPTY).astype(np.float32),
    }


def documents(path: pathlib.Path) -> Iterator[str]:
    """The documents of a file: the field "text" of each line of a .jsonl, the paragraphs between empty lines of any other."""
    if not path.is_file():
        raise ValueError(
            f'no data at {path}; give data=FILE (and dev=FILE, or dev= for none), a .jsonl with a field "text" or text with empty lines '
            "between documents. Verse comes from `python -m train prepare-poetry`"
        )
    with open(path, encoding="utf-8") as file:
        if path.suffix != ".jsonl":
            yield from (paragraph for paragraph in map(str.strip, file.read().split("\n\n")) if paragraph)
            return
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)["text"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise ValueError(f'{path} line {number}: wanted a JSON object with a field "text", got {line[:60]!r}') from None


def build(folder: pathlib.Path, path: pathlib.Path, encode: Callable[[str], list[int]], end: int, *, length: int, recipe: str) -> Rows:
    """Rows of `length` + 1 tokens in `folder`, made anew only when the text, the length or `recipe` (what the tokenizer is) differ."""
    digest = hashlib.sha256(path.read_bytes() + f"/{recipe}/{end}/{length}".encode()).hexdigest() if path.is_file() else ""
    facts = folder / "rows.json"
    if not (facts.is_file() and json.loads(facts.read_text())["digest"] == digest):
        rows = list(pack(([*encode(text), end] for text in documents(path)), length + 1))
        if not rows:
            raise ValueError(f"{path} holds no document")
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "rows.npy", np.stack(rows))
        facts.write_text(json.dumps({"digest": digest, "rows": len(rows)}))
    return Rows(np.load(folder / "rows.npy", mmap_mode="r"), digest)


def pack(sequences: Iterable[list[int]], width: int) -> Iterator[np.ndarray]:
    """Rows of `width` tokens: among WINDOW documents the longest first, each into the row it fills best.

    A document wider than a row is cut. In its row a document stands at a random place, so that short ones begin rows too.
    """
    rng = np.random.default_rng(0)
    pieces = _cut(sequences, width)
    for window in iter(lambda: list(itertools.islice(pieces, WINDOW)), []):
        rows: list[list[list[int]]] = []
        free: list[tuple[int, int]] = []  # sorted (free places, row)
        for sequence in sorted(window, key=len, reverse=True):
            place = bisect.bisect_left(free, (len(sequence), -1))
            if place < len(free):
                left, row = free.pop(place)
            else:
                left, row = width, len(rows)
                rows.append([])
            rows[row].append(sequence)
            bisect.insort(free, (left - len(sequence), row))
        for row in rows:
            tokens = [token for place in rng.permutation(len(row)) for token in row[place]]
            yield np.asarray(tokens + [EMPTY] * (width - len(tokens)), np.int32)


def _cut(sequences: Iterable[list[int]], width: int) -> Iterator[list[int]]:
    for sequence in sequences:
        while len(sequence) > width:
            yield sequence[:width]
            sequence = sequence[width - 1 :]  # the last token stands again, as the first input: every token is a target once
        yield sequence


def permute(place_B: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(count) at the places asked for, without a table: a four-round Feistel network, walked until it is in range."""
    half = max(1, (int(count - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.default_rng([seed, epoch]).integers(1 << 63, size=4, dtype=np.uint64)

    def rounds(value_B):
        left_B, right_B = value_B >> np.uint64(half), value_B & mask
        for key in keys:
            mixed_B = (right_B + key) * np.uint64(0x9E3779B97F4A7C15)
            mixed_B = (mixed_B ^ (mixed_B >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left_B, right_B = right_B, left_B ^ ((mixed_B >> np.uint64(32)) & mask)
        return (left_B << np.uint64(half)) | right_B

    value_B = rounds(np.asarray(place_B, np.uint64))
    while (outside_B := value_B >= count).any():
        value_B = np.where(outside_B, rounds(value_B), value_B)
    return value_B.astype(np.int64)
