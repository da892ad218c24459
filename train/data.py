"""Batches as a pure function of (seed, place): which rows of which source, whoever asks, from wherever it was left.

The state of reading is one integer, the number of the batch. A batch is the global one; a process asks for its part of the rows.
"""

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from train import corpus, packing, progress, table
from train import shuffle as order

EMPTY = table.EMPTY
FORMAT = 1  # of the tables; another one is made anew
CYCLE = 10_000  # places in which weighted sources have exactly their shares

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Data:
    """The rows of one or several sources.

    shares: how many rows each source gives in a cycle of sum(shares), each in an order of its own; () where the sources are one corpus.
    digest: of the corpus, the tokenizer and the settings that the tables were made of.
    """

    tables: tuple[table.Table, ...]
    shares: tuple[int, ...]
    digest: str

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    def weight(self) -> int:
        """Targets in one pass over all sources."""
        return sum(each.targets for each in self.tables)

    def batch(self, seed: int, place: int, size: int, rows: slice = slice(None)) -> Batch:
        """Batch number `place` of `size` rows, or the part `rows` of it; row_B has the rows' numbers in the whole batch.

        An epoch is a permutation of the rows, drawn from (seed, epoch); weighted sources have each their own epochs.
        """
        number_B = np.arange(size)[rows]
        return self._batch(number_B, *self._draw(seed, place * size + number_B))

    def part(self, start: int, stop: int, size: int, rows: slice = slice(None)) -> Batch:
        """Rows `start` to `stop` as they lie in the tables, and empty ones behind them up to `size`, or the part `rows` of all that."""
        number_B = np.arange(size)[rows]
        place_B = start + number_B
        return self._batch(number_B, *self._locate(np.where(place_B < min(stop, len(self)), place_B, EMPTY)))

    def _draw(self, seed: int, place_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not self.shares:
            return self._locate(order.shuffle(place_B, len(self), seed))
        ends = np.cumsum(self.shares)
        cycle = int(ends[-1])
        slot_B = order.shuffle(place_B, cycle, seed, 0)
        table_B = np.searchsorted(ends, slot_B, "right")
        share_B = np.asarray(self.shares)[table_B]
        row_B = place_B // cycle * share_B + slot_B - (ends[table_B] - share_B)
        for number in np.unique(table_B):
            mine_B = table_B == number
            row_B[mine_B] = order.shuffle(row_B[mine_B], len(self.tables[number]), seed, int(number) + 1)
        return table_B, row_B

    def _locate(self, row_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(table, row of it) of rows numbered through all tables; EMPTY stays as it is."""
        ends = np.cumsum([len(each) for each in self.tables])
        table_B = np.where(row_B == EMPTY, EMPTY, np.searchsorted(ends, row_B, "right"))
        return table_B, row_B - np.where(row_B == EMPTY, 0, np.concatenate([[0], ends])[table_B])

    def _batch(self, number_B: np.ndarray, table_B: np.ndarray, row_B: np.ndarray) -> Batch:
        layout = self.tables[0].layout
        token_BT = np.full((len(row_B), layout.width), EMPTY, np.int32)
        start_BT = np.zeros(token_BT.shape, bool) if layout.neighbours == "hidden" else None
        for number in np.unique(table_B[table_B != EMPTY]):
            mine_B = table_B == number
            token_BT[mine_B], found_BT = self.tables[number].read(row_B[mine_B])
            if start_BT is not None:
                start_BT[mine_B] = found_BT
        return split(token_BT, start_BT) | {"row_B": number_B.astype(np.int32)}


def split(token_BT: np.ndarray, start_BT: np.ndarray | None = None) -> Batch:
    """Rows as inputs, the targets that follow them, and weights that leave out the empty places.

    start_BT: where documents start that hide from each other. Their first tokens are no targets, and floor_BT is the rank of the first
    token of a token's document, ranks being 1 to T:   a b c . d e f   has the floors   1 1 1 1 5 5 5
    """
    row_BT = np.asarray(token_BT, np.int32)
    target_BT = row_BT[:, 1:]
    weight_BT = target_BT != EMPTY
    if start_BT is not None:
        weight_BT &= ~start_BT[:, 1:]
    batch = {
        "token_BT": np.maximum(row_BT[:, :-1], 0),
        "target_BT": np.maximum(target_BT, 0),
        "weight_BT": weight_BT.astype(np.float32),
    }
    if start_BT is not None:
        rank_T = np.arange(1, row_BT.shape[1], dtype=np.int32)
        batch["floor_BT"] = np.maximum.accumulate(np.where(start_BT[:, :-1], rank_T[None], 1), axis=1).astype(np.int32)
    return batch


def build(
    folder: pathlib.Path,
    words: str | os.PathLike,
    encode: Callable[[str], list[int]],
    end: int | None,
    *,
    length: int,
    vocab: int,
    rows: packing.Rows = "packed",
    neighbours: table.Neighbours = "seen",
    shortest: int = 0,
    recipe: str,
    known: str | None = None,
) -> Data:
    """The rows of what `words` (data=) name in `folder`, made anew only where the corpus or a setting differs from what lies there.

    end: the id behind each document, or None. length: inputs a row. vocab: ids are below it. shortest: documents of at most so many tokens
    are left out. recipe: what the tokenizer is. known: the digest that a run was started on; another one is refused and changes nothing.
    A build that is killed leaves nothing that is taken for rows. Processes of one machine wait for each other.
    """
    sources = corpus.sources(words)
    layout = table.Layout.of(length, vocab, neighbours)
    facts = {"format": FORMAT, "layout": dataclasses.asdict(layout), "rows": rows, "shortest": shortest, "end": end, "recipe": recipe}
    stamps = corpus.stamps(sources)
    digest = corpus.digest(sources, facts)
    if known not in (None, digest):
        raise ValueError(f"{words} is not the text that the run was started on (its digest differs); restore it, or give another out=")
    with table.alone(folder):
        if table.facts(folder).get("digest") != digest:
            what = {"digest": digest, "shares": _shares(sources), "layout": facts["layout"], "tables": []}
            for number, source in enumerate(sources):
                with progress.shown(f"tokens of {source.name}", corpus.size([source])) as note:
                    ids = corpus.sequences(source, encode, end, vocab=vocab, shortest=shortest, note=note)
                    what["tables"].append(table.write(table.fresh(folder, number), packing.rows(ids, layout.width, rows), layout))
                if not what["tables"][-1]["rows"]:
                    raise ValueError(f"{source.name} holds no document of more than {max(shortest, int(rows == 'single'))} tokens")
            if corpus.stamps(sources) != stamps:
                raise ValueError(f"{words} was changed while it was read; start again when it is finished")
            table.commit(folder, what)
    return load(folder)


def load(folder: pathlib.Path) -> Data:
    """The rows that `build` left in a folder."""
    facts = table.facts(folder)
    if not facts:
        raise ValueError(f"{folder} holds no rows; they are made from data= when the run is started or resumed")
    layout = table.Layout(**facts["layout"])
    tables = (table.Table.open(table.place(folder, number), layout, **each) for number, each in enumerate(facts["tables"]))
    return Data(tuple(tables), tuple(facts["shares"]), facts["digest"])


def _shares(sources: Sequence[corpus.Source]) -> list[int]:
    """CYCLE places by weight, rounded so that the largest fractions go up; none where the sources have no weights."""
    weights = [source.weight for source in sources if source.weight is not None]
    exact = [CYCLE * weight / sum(weights) for weight in weights]
    shares = [int(each) for each in exact]
    behind = sorted(range(len(exact)), key=lambda number: shares[number] - exact[number])
    for number in behind[: CYCLE - sum(shares) if shares else 0]:
        shares[number] += 1
    if 0 in shares:
        raise ValueError(f"{sources[shares.index(0)].name}: its weight is less than one of {CYCLE:,}; leave it out, or give it more")
    return shares


class Prefetch(contextlib.AbstractContextManager):
    """Batches made ahead in a thread: `get` gives what make(step) gives, and raises what it raised, at that step.

    Steps are asked for one after the other; another one (after a rollback) starts anew there. `close`, or leaving
    `with`, ends the thread.
    """

    def __init__(self, make: Callable[[int], Any], start: int, depth: int = 2):
        if depth < 1:
            raise ValueError(f"depth={depth}: wanted a whole number from 1 up")
        self._make, self._depth = make, depth
        self._pool = futures.ThreadPoolExecutor(1, "batches")
        self._ahead: collections.deque[futures.Future] = collections.deque()
        self._begin(start)

    def get(self, step: int) -> Any:
        """make(step)."""
        if step != self._step:
            self._drop()
            self._begin(step)
        self._step += 1
        found = self._ahead.popleft()
        self._ahead.append(self._pool.submit(self._make, next(self._places)))
        return found.result()

    def close(self) -> None:
        """Waits for the batch that is being made, and ends the thread."""
        self._drop()
        self._pool.shutdown()

    def _begin(self, step: int) -> None:
        self._step = step
        self._places: Iterator[int] = itertools.count(step)
        self._ahead.extend(self._pool.submit(self._make, next(self._places)) for _ in range(self._depth))

    def _drop(self) -> None:
        while self._ahead:
            self._ahead.popleft().cancel()

    def __exit__(self, *_) -> None:
        self.close()
