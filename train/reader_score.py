"""Scores of a reader about verse on poems that it has not seen, by what is asked, and beside how many passages the true one stands."""

import collections
import pathlib
from collections.abc import Sequence

from flaxgen import reader as readers
from flaxgen.measure import answers
from train import questions

BESIDE = (1, 3, 5)  # passages of a question, one of which answers it
SILENT = 3  # passages of a question that none answers
SHOWN = 12


def score(folder: pathlib.Path, data: pathlib.Path, *, most: int = 600) -> dict:
    """What stands in a model's card; `folder` is a flaxgen folder, `data` what prepare-verse-reading wrote.

    most: questions of heldout.json, the first; a question is asked once for each number of passages.
    """
    reader, asked = readers.Reader.load(folder), questions.load(data / "heldout.json")[:most]
    found = {str(count): right(reader, asked, count) for count in BESIDE}
    silent = [not each.text for each in reader.answers([(each.text, passages(each, SILENT, True)) for each in asked])]
    kinds = [kind(each) for each in asked]
    counts = collections.Counter(kinds)
    shares = {
        name: {"questions": count, "silent": share(silent, kinds, name)}
        | {beside: share(hits, kinds, name) for beside, hits in found.items()}
        for name, count in counts.most_common()
    }
    whole = {"questions": len(asked), "silent": sum(silent) / len(asked)} | {
        beside: sum(hits) / len(asked) for beside, hits in found.items()
    }
    shown = asked[:SHOWN]
    said = reader.answers([(each.text, passages(each, 3)) for each in shown])
    samples = [[each.text, answer.quote, each.answers[0]] for each, answer in zip(shown, said, strict=True)]
    return {"kinds": shares | {"all": whole}, "samples": samples}


def passages(question: questions.Question, count: int, silent: bool = False) -> list[str]:
    """The first passages in their order, among them the one that answers, or none that does."""
    others = [each for each in question.passages if not each.answer][: count if silent else count - 1]
    return [each.text for each in question.passages if each in others or (each.answer and not silent)]


def right(reader: readers.Reader, asked: Sequence[questions.Question], count: int) -> list[bool]:
    """Which questions are answered exactly, as SogouQA's tool compares, beside so many passages."""
    said = reader.answers([(each.text, passages(each, count)) for each in asked])
    return [answers.normalise(answer.quote) == answers.normalise(each.answers[0]) for each, answer in zip(asked, said, strict=True)]


def kind(question: questions.Question) -> str:
    return question.id.rpartition("/")[0]


def share(hits: Sequence[bool], kinds: Sequence[str], name: str) -> float:
    own = [hit for hit, each in zip(hits, kinds, strict=True) if each == name]
    return sum(own) / len(own)


def describe(scores: dict) -> str:
    """The scores as a Markdown table."""
    head = f"| asked for | questions | {' | '.join(f'{count} passages' for count in BESIDE)} | no answer among {SILENT} |\n"
    rows = [
        f"| {name} | {each['questions']:,} | {' | '.join(f'{each[str(count)]:.1%}' for count in BESIDE)} | {each['silent']:.1%} |\n"
        for name, each in scores["kinds"].items()
    ]
    return head.replace("1 passages", "1 passage") + "|---" * (len(BESIDE) + 3) + "|\n" + "".join(rows)
