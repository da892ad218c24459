"""Questions and their passages made ready for a reader: checked, cut into tokens, and put together in few sizes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from flaxgen import automata
from flaxgen.chains import reading
from flaxgen.text import factors, passages

COUNTS = (1, 2, 4, 6, 8, 10, 12, 16, 24, 32, 48, 64)  # numbers of passages that programs are compiled for
WIDTH = 64  # and rows of multiples of so many tokens
TOGETHER = 16  # rows of one batch, where many questions are asked
CELLS = 1 << 17
Longer = Literal["cut", "refuse"]


@dataclasses.dataclass(frozen=True)
class Programs:
    """The few sizes of a reader that compiles nothing anew.

    counts: of passages, growing; rows are then as long as they may be. beams: of which a question may have fewer.
    """

    counts: tuple[int, ...]
    beams: int


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question with its passages as tokens, cut to what is read.

    own: of each passage alone. cut: the passages that are not whole; question_cut: whether the question is not.
    """

    question: str
    passages: tuple[str, ...]
    own: tuple[tuple[int, ...], ...]
    rows: tuple[list[int], ...]
    cut: tuple[int, ...]
    question_cut: bool


class Size(NamedTuple):
    questions: int
    passages: int
    width: int


def ask(
    text: Any, question: str, given: Sequence[str], form: passages.Form, lengths: passages.Lengths, longer: Longer, most: int = COUNTS[-1]
) -> Asked:
    """ValueError where nothing is asked, there is nothing to read, or something is too long that may not be cut."""
    if not isinstance(question, str):
        raise ValueError(f"question={question!r:.60}: wanted a text")
    if not question.strip():
        raise ValueError(f"question={question!r:.60}: it is empty; ask something")
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(passage, str) for passage in given):
        raise ValueError(f"passages={given!r:.60}: wanted a list of texts; for a single one, a list of one")
    if not any(passage.strip() for passage in given):
        raise ValueError(f"{len(given)} passages with text in none of them; give at least one to read the answer from")
    if len(given) > most:
        raise ValueError(f"{len(given)} passages, wanted at most {most}; ask about the likeliest of them")
    asked = text.encode(question)
    own = [text.encode(passages.normalised(passage)) for passage in given]
    room = passages.room(form, lengths)
    cut = tuple(n for n, ids in enumerate(own) if len(ids) > room)
    if longer == "refuse" and cut:
        raise ValueError(f"passage {cut[0]} has {len(own[cut[0]])} tokens, wanted at most {room}; split it into several")
    question_cut = len(asked) > lengths.question - 1
    if longer == "refuse" and question_cut:
        raise ValueError(f"the question has {len(asked)} tokens, wanted at most {lengths.question - 1}; ask more briefly")
    row = {"causal": passages.causal, "filled": passages.filled}[form]
    rows = tuple(row(text, asked, ids, lengths) for ids in own)
    return Asked(question, tuple(given), tuple(tuple(ids[:room]) for ids in own), rows, cut, question_cut)


def blocks(ready: Sequence[Asked], most: int, counts: Sequence[int] | None = None) -> Iterator[tuple[Size, list[int]]]:
    """The numbers of the questions that are read together, and the least size that programs are compiled for and holds them.

    most: tokens of a row. One question alone is read alone; of many, so many together as make TOGETHER rows. counts: of Programs.
    """
    alike: dict[tuple[int, int], list[int]] = {}
    for number, each in enumerate(ready):
        count = next(count for count in counts or COUNTS if count >= len(each.rows))
        width = most if counts else min(-(-max(map(len, each.rows)) // WIDTH) * WIDTH, most)
        alike.setdefault((count, width), []).append(number)
    for (count, width), numbers in alike.items():
        together = 1 if counts or len(ready) == 1 else max(1, TOGETHER // count)
        for start in range(0, len(numbers), together):
            yield Size(together, count, width), numbers[start : start + together]


def prompt(block: Sequence[Asked], size: Size, *, mode: reading.Mode, limit: int, room: int, vocab: int) -> reading.Prompt:
    """What the chains of a reader start from. limit: tokens of an answer; room: tokens that a passage has at most."""
    token_BPT, length_BP = np.zeros(size, np.int32), np.zeros(size[:2], np.int32)
    for b, asked in enumerate(block):
        for p, row in enumerate(asked.rows):
            token_BPT[b, p, : len(row)], length_BP[b, p] = row, len(row)
    made = reading.Prompt(token_BPT, length_BP, np.full(size.questions, limit, np.int32), None, None)
    return made if mode == "generative" else _constrained(made, block, size, room, vocab)


def _constrained(made: reading.Prompt, block: Sequence[Asked], size: Size, room: int, vocab: int) -> reading.Prompt:
    found = [factors.factors([*asked.own, *[()] * (size.passages - len(asked.own))]) for asked in block]
    tokens = size.passages * room
    states, classes = min(2 * tokens + 1, factors.STATES), min(tokens, vocab) + 1
    cells = max(CELLS, *(1 << (len(each.table.owner_L) - 1).bit_length() for each in found))
    rows = [each.table for each in found] + [None] * (size.questions - len(found))
    holds_BQP = np.zeros((size.questions, states, size.passages), bool)
    for b, each in enumerate(found):
        holds_BQP[b, : len(each.holds_QP)] = each.holds_QP
    return made.replace(runs=automata.stacked(rows, vocab, size=(states, classes, cells)), holds_BQP=holds_BQP)
