"""Batches of questions as a pure function of (seed, place): passages drawn anew each epoch, rows of like length together."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from flaxgen.text import passages
from train import answering, corpus, data, questions, shuffle

WIDTHS = 32  # a batch is as wide as the next multiple of this, so that there are few widths to compile
GROUP = 16  # batches whose rows are sorted by length together

MAKE: dict[str, Callable[..., answering.Sample]] = {"causal": answering.causal, "filled": answering.filled}


@dataclasses.dataclass(eq=False)
class Rows:
    """Questions as batches of a `data.Data`'s kind, of text and lengths that are given.

    found: the questions, one as often as it counts. form: how a question is a row, see train.answering. text: the vocabulary.
    digest: of the files and of all this.
    """

    found: tuple[questions.Question, ...]
    text: object
    lengths: passages.Lengths
    form: passages.Form
    digest: str

    def __post_init__(self):
        self._last: tuple = (None, [])

    def __len__(self) -> int:
        return len(self.found)

    def weight(self) -> int:
        """Targets in one pass over all, as the passages of epoch 0 give them."""
        return int(sum(self.sample(number, 0, 0).weight_T.sum() for number in range(len(self))))

    def sample(self, number: int, seed: int, epoch: int) -> answering.Sample:
        """Question `number` with a passage drawn from (seed, epoch, number)."""
        question = self.found[number]
        shown = answering.drawn(question, number, seed=seed, epoch=epoch)
        answer = answering.target(question, shown, self.lengths)
        return MAKE[self.form](self.text, question.text, shown, answer, self.lengths)

    def batch(self, seed: int, place: int, size: int, rows: slice = slice(None)) -> data.Batch:
        """Batch number `place` of `size` rows, or the part `rows` of it; row_B has the rows' numbers in the whole batch.

        An epoch is a permutation of the questions. GROUP batches of it are sorted by length, cut, and given in an order drawn anew.
        """
        group, inside = divmod(place, GROUP)
        if self._last[0] != (seed, group, size):
            self._last = (seed, group, size), self._group(seed, group, size)
        rank = int(shuffle.shuffle(np.asarray([group * GROUP + inside]), GROUP, seed, 1)[0])
        return self._batch(self._last[1][rank * size : (rank + 1) * size], size, rows)

    def part(self, start: int, stop: int, size: int, rows: slice = slice(None)) -> data.Batch:
        """Questions `start` to `stop` with their passages of epoch 0, and empty rows behind them up to `size`, or the part `rows`."""
        last = min(stop, len(self), start + size)
        return self._batch([self.sample(number, 0, 0) for number in range(start, last)], size, rows)

    def _group(self, seed: int, group: int, size: int) -> list[answering.Sample]:
        place_B = group * GROUP * size + np.arange(GROUP * size)
        number_B = shuffle.shuffle(place_B, len(self), seed, 0)
        samples = [self.sample(int(number), seed, int(place) // len(self)) for number, place in zip(number_B, place_B, strict=True)]
        return sorted(samples, key=lambda each: len(each.token_T))

    def _batch(self, samples: list[answering.Sample], size: int, rows: slice) -> data.Batch:
        width = math.ceil(max(len(each.token_T) for each in samples) / WIDTHS) * WIDTHS
        found = answering.batch(samples, width)
        padded = {name: np.concatenate([leaf, np.zeros((size - len(leaf), width), leaf.dtype)])[rows] for name, leaf in found.items()}
        return padded | {"row_B": np.arange(size, dtype=np.int32)[rows]}


def build(words: str, text, lengths: passages.Lengths, form: passages.Form, *, known: str | None = None) -> Rows:
    """The rows of what `words` (data=) name: files of questions, each with `*N` where its questions count N times.

    known: the digest that they must have.
    """
    found = sources(words)
    facts = {"lengths": dataclasses.asdict(lengths), "form": form, "text": text.options()}
    digest = corpus.digest(found, facts)
    if known not in (None, digest):
        raise ValueError(f"{words} is not what the run was started on (its digest differs); restore it, or give another out=")
    return Rows(tuple(every(words)), text, lengths, form, digest)


def sources(words: str) -> tuple[corpus.Source, ...]:
    """The files that data= names."""
    try:
        return corpus.sources(words)
    except ValueError as error:
        what, _, _ = str(error).partition("; give data=")
        raise ValueError(f"{what}; wanted files of questions, as `python -m train prepare-reading` writes them") from None


def every(words: str) -> list[questions.Question]:
    """The questions of all files that data= names, each as often as it counts."""
    found = []
    for source in sources(words):
        times = source.weight or 1
        if times != int(times):
            raise ValueError(f"{source.name}*{times:g}: wanted a whole number, how often each of its questions stands in an epoch")
        found += [each for path in source.files for each in questions.load(path)] * int(times)
    return found


def texts(words: str):
    """Every text of the questions, for a vocabulary."""
    for question in every(words):
        yield from (question.text, *(passage.text for passage in question.passages), *question.answers)
