"""Scores of answers as the SogouQA evaluation tool counts them: accuracy, F1 over characters, and their mean.

What counts follows evaluate_tool/ of bojone/dgcnn_for_reading_comprehension, which published results use.
"""

import collections
import dataclasses
import pathlib
import re
import string
from collections.abc import Iterable, Mapping, Sequence

from flaxgen import disk

# The 127 signs of the tool's list, by code point; its 128th entry is an empty line.
SIGNS = string.punctuation + "¤§¨°±·×÷ˇˉ—‖‘’“”•…‰′″※№←↑→↓∈∑√∞∠∨∩∴∵∶≈≌≠≡≤≥≮≯⊙⊥⌒■□▲△◆◇◎●★☆♀♂"
SIGNS += "\u3000、。〃々〈〉《》「」『』【】〓〔〕〖〗﹑！＄（），．：；？＿～￠￣￥"
_NARROW = {0x3000: 0x20} | {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # the tool lowers bytes, so ASCII's letters alone
_BLANK = str.maketrans(dict.fromkeys(SIGNS, " "))
_blanks = re.compile("[ \t\n\r\f\v]+")


@dataclasses.dataclass(frozen=True)
class Score:
    """Means over `questions`, each in [0, 1]."""

    accuracy: float
    f1: float
    questions: int

    @property
    def final(self) -> float:
        """The mean of accuracy and F1."""
        return (self.accuracy + self.f1) / 2


def normalise(answer: str) -> str:
    """Full width made half, ASCII in lower case, without signs and blanks."""
    return _blanks.sub("", answer.translate(_NARROW).translate(_LOWER).translate(_BLANK))


def correct(answer: str, variants: Sequence[str]) -> bool:
    """Whether an answer is one of the variants, normalised, or has the parts of the first of them in any order.

    Parts lie between blanks and signs: 红 黄 is 黄、红. An empty answer is never correct.
    """
    if not answer.strip():
        return False
    own = normalise(answer)
    return any(own in (variant, normalise(variant)) for variant in variants) or _parts(answer) == _parts(variants[0])


def f1(answer: str, variants: Sequence[str]) -> float:
    """The best F1 of a normalised answer's characters, counted with repetition, against a variant's."""
    own = collections.Counter(normalise(answer))
    return max((_overlap(own, collections.Counter(normalise(variant))) for variant in variants), default=0.0)


def score(answers: Mapping[str, str], gold: Mapping[str, Sequence[str]]) -> Score:
    """The Score over all questions of `gold`, id -> the accepted variants; a question without an answer counts as answered emptily."""
    strange = [name for name in answers if name not in gold]
    if strange:
        raise ValueError(f"{len(strange)} of {len(answers)} answers are to questions that are not asked, first {strange[0]!r}")
    blank = [name for name, variants in gold.items() if not any(map(normalise, variants))]
    if blank or not gold:
        first = repr(blank[0]) if blank else "none"
        raise ValueError(f"{len(blank)} of {len(gold)} questions have no answer to compare with, first {first}; leave them out")
    given = [(answers.get(name, ""), variants) for name, variants in gold.items()]
    right = sum(correct(*pair) for pair in given)
    return Score(right / len(gold), sum(f1(*pair) for pair in given) / len(gold), len(gold))


def read(path) -> dict[str, str]:
    """Answers by question from lines `id<TAB>answer`, the format of the tool's input."""
    return dict(_fields(path, 2, "id<TAB>answer"))


def read_gold(path) -> dict[str, tuple[str, ...]]:
    """Variants by question from lines `id<TAB>answer<TAB>variant|variant|…`, the format of the tool's qid_answer_expand."""
    rows = _fields(path, 3, "id<TAB>answer<TAB>variant|variant")
    return {name: tuple(dict.fromkeys((answer, *variants.split("|")))) for name, answer, variants in rows}


def write(path, answers: Mapping[str, str]) -> None:
    """Writes `id<TAB>answer` lines, whole or not at all; blanks inside an answer become single spaces, so that a line stays a line."""
    wrong = [name for name in answers if not name or not name.isprintable()]
    if wrong:
        raise ValueError(f"{len(wrong)} ids cannot stand in a file of lines, first {wrong[0]!r}; wanted no tab, line end or other control")
    lines = (f"{name}\t{' '.join(answer.split())}\n" for name, answer in answers.items())
    disk.replace(pathlib.Path(path), "".join(lines).encode())


def _parts(answer: str) -> set[str]:
    # A blank beside a sign leaves an empty part, which counts: `a, b` is not `b a`. So the tool has it.
    return {normalise(part) for part in answer.translate(_BLANK).split(" ")}


def _overlap(own: collections.Counter, other: collections.Counter) -> float:
    return 2 * (own & other).total() / max(own.total() + other.total(), 1)


def _fields(path, count: int, wanted: str) -> Iterable[list[str]]:
    seen: set[str] = set()
    for number, line in enumerate(_lines(path), 1):
        fields = line.split("\t")
        if len(fields) != count:
            raise ValueError(f"{path} line {number}: {len(fields)} fields between tabs, wanted {wanted}")
        if fields[0] in seen:
            raise ValueError(f"{path} line {number}: the question {fields[0]!r} stands twice; keep one answer")
        seen.add(fields[0])
        yield fields


def _lines(path) -> Iterable[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from (line.rstrip("\n") for line in file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); wanted lines of answers, saved as UTF-8") from None
