"""Passages and questions as the rows that a reader reads.

After examples/task_reading_comprehension_by_seq2seq.py and …_by_mlm.py of bojone/bert4keras.
"""

import dataclasses
import re
from typing import Literal

from flaxgen.errors import Mismatch
from flaxgen.text import wordpiece

Form = Literal["causal", "filled"]
_separators = re.compile("[ 、；，]")


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Tokens at most, control tokens counted: a passage with [CLS] and [SEP], a question and an answer with a [SEP] each."""

    passage: int = 256
    question: int = 64
    answer: int = 32

    def __post_init__(self):
        for name in ("passage", "question", "answer"):
            value = getattr(self, name)
            if type(value) is not int or value < 3:
                raise ValueError(f"{name}={value!r}: wanted a whole number of at least 3 tokens, as there are control tokens among them")

    @property
    def row(self) -> int:
        """The longest row."""
        return self.passage + self.question + self.answer


def normalised(passage: str) -> str:
    """A passage as the model reads it: blanks and the commas of lists are ",". Every character keeps its place."""
    return _separators.sub(",", passage)


def causal(text: wordpiece.WordPiece, question: list[int], passage: list[int], lengths: Lengths) -> list[int]:
    """[CLS] passage [SEP] question [SEP], behind which an answer is written token by token."""
    start, end = control(text, "[CLS]"), control(text, "[SEP]")
    return [start, *passage[: lengths.passage - 2], end, *question[: lengths.question - 1], end]


def filled(text: wordpiece.WordPiece, question: list[int], passage: list[int], lengths: Lengths) -> list[int]:
    """[CLS] [MASK]… [SEP] question [SEP] passage [SEP], whose masks an answer fills in at once; here a passage may have a token more."""
    start, end, mask = (control(text, name) for name in ("[CLS]", "[SEP]", "[MASK]"))
    asked, shown = question[: lengths.question - 1], passage[: lengths.passage - 1]
    return [start, *[mask] * lengths.answer, end, *asked, end, *shown, end]


def longest(form: Form, lengths: Lengths) -> int:
    """Tokens of the longest row, its answer among them; to fill an answer in at once, a [SEP] and a token of the passage more."""
    return lengths.row + (2 if form == "filled" else 0)


def room(form: Form, lengths: Lengths) -> int:
    """Tokens that a passage may have by itself."""
    return lengths.passage - (2 if form == "causal" else 1)


def control(text: wordpiece.WordPiece, name: str) -> int:
    """The id of a control token that rows are made with."""
    if getattr(text, "kind", None) != "wordpiece" or name not in text.control:
        raise Mismatch(
            f"the vocabulary has no {name}, which a reader needs; take a WordPiece one with [CLS], [SEP] and, to fill in, [MASK]"
        )
    return text.control[name]
