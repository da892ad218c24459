"""Questions for the recipe `reading`: read from files of several shapes, split, and written as train.json, dev.json and heldout.json.

    python -m train prepare-reading runs/reading webqa.json cmrc2018_dev.json --window 120
    python -m train prepare-reading runs/sogou SogouQA.json --order random_order.json

No text of a passage stands in two of the parts. train.json has cloze.json beside it where --cloze asks for it.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from flaxgen.text import passages
from train import questions

HELD_OUT, DEV = 0.1, 0.03
_clause = re.compile(r"[^。！？!?；;，,、\n]{6,40}")
_span = re.compile("[\u4e00-\u9fff]+|[0-9A-Za-z.%]+")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How questions are prepared.

    window: characters of a passage that a context of CMRC 2018, DRCD or SQuAD is cut into; 0: whole. wrong: passages that do not answer,
    kept for each question of the training part; -1: all. cloze: questions made of a sentence with a gap, for each passage of the
    training part. cloze_window: characters of such a passage at most, cut between sentences; 0: as they are. cloze_gap: characters of a
    gap at most. damaged: "skip" leaves out questions of another shape, "refuse" stops at the first. order: a shuffled index of all
    questions, of which every third, from the first on, is held out and none is dev, as published; none: by chance.
    """

    window: int = 0
    wrong: int = -1
    cloze: int = 0
    cloze_window: int = 0
    cloze_gap: int = 6
    damaged: Literal["refuse", "skip"] = "refuse"
    order: tuple[int, ...] = ()
    seed: int = 0


def prepare(sources: Sequence[pathlib.Path], target: pathlib.Path, plan: Plan, simplify: Callable[[str], str] = str) -> dict[str, int]:
    """Writes the parts and facts.json into `target`; the counts of facts.json."""
    found, skipped = [], 0
    for path in sources:
        read, damaged = questions.read(path, window=plan.window)
        if damaged and plan.damaged == "refuse":
            raise ValueError(f"{path}: {damaged[0]}; --skip leaves such questions out")
        name = "".join(one if one.isprintable() else "_" for one in path.stem)
        found += [converted(each, simplify, f"{name}/") for each in read]
        skipped += len(damaged)
    names = collections.Counter(each.id for each in found)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} questions have an id that stands twice, first {twice[0]!r}; give each file once")
    parts = listed(found, plan.order) if plan.order else split(found, plan.seed)
    parts["train"] = [fewer(each, plan.wrong, plan.seed) for each in parts["train"]]
    if plan.cloze:
        parts["cloze"] = cloze(parts["train"], plan.cloze, plan.seed, window=plan.cloze_window, gap=plan.cloze_gap)
    target.mkdir(parents=True, exist_ok=True)
    counts = {"read": len(found), "skipped": skipped}
    for name, part in parts.items():
        counts[name] = len(part)
        if part:
            questions.save(target / f"{name}.json", part)
    facts = {"sources": [path.name for path in sources], "plan": dataclasses.asdict(plan), "counts": counts}
    (target / "facts.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return counts


def converted(question: questions.Question, simplify: Callable[[str], str], prefix: str) -> questions.Question:
    """The question with an id of its file, its text as `simplify` gives it, and the commas of its answers as passages will have them."""
    own = tuple(
        questions.Passage(simplify(each.text), simplify(each.answer if " " in each.answer else passages.normalised(each.answer).strip(",")))
        for each in question.passages
    )
    return questions.Question(prefix + question.id, simplify(question.text), own, tuple(map(simplify, question.answers)))


def listed(found: Sequence[questions.Question], order: Sequence[int]) -> dict[str, list[questions.Question]]:
    """The published split: of a shuffled index, every third place from the first on is held out."""
    if sorted(order) != list(range(len(found))):
        raise ValueError(
            f"the order has {len(order)} places for {len(found)} questions; wanted each number from 0 to {len(found) - 1} once"
        )
    parts: dict[str, list[questions.Question]] = {"train": [], "dev": [], "heldout": []}
    for place, number in enumerate(order):
        parts["train" if place % 3 else "heldout"].append(found[number])
    return parts


def split(found: Iterable[questions.Question], seed: int) -> dict[str, list[questions.Question]]:
    """Questions by chance; those that share a passage come into one part."""
    found = list(found)
    group = list(range(len(found)))

    def root(place: int) -> int:
        while group[place] != place:
            place = group[place]
        return place

    first: dict[str, int] = {}
    for place, question in enumerate(found):
        for passage in question.passages:
            group[root(place)] = root(first.setdefault(passage.text, place))
    parts: dict[str, list[questions.Question]] = {"train": [], "dev": [], "heldout": []}
    for place, question in enumerate(found):
        draw = chance(seed, "split", found[root(place)].passages[0].text)
        parts["heldout" if draw < HELD_OUT else "dev" if draw < HELD_OUT + DEV else "train"].append(question)
    return parts


def fewer(question: questions.Question, wrong: int, seed: int) -> questions.Question:
    """The question with at most `wrong` of the passages that do not answer it, unless none does."""
    order = sorted(range(len(question.passages)), key=lambda i: chance(seed, f"wrong/{question.id}", str(i)))
    silent = [i for i in order if not question.passages[i].answer]
    if wrong < 0 or len(silent) == len(order):
        return question
    dropped = set(silent[wrong:])
    return dataclasses.replace(question, passages=tuple(each for i, each in enumerate(question.passages) if i not in dropped))


def cloze(found: Sequence[questions.Question], count: int, seed: int, *, window: int = 0, gap: int = 6) -> list[questions.Question]:
    """Questions that teach to find and to copy: a clause of a passage with a run of characters replaced by 什么.

    床前明月光，疑是地上霜。  gives for example  疑是什么霜  ->  地上
    """
    whole = dict.fromkeys(passage.text for question in found for passage in question.passages)
    made, parts = [], (part for each in whole for _, part in questions.windows(each, window or len(each)))
    for text in dict.fromkeys(parts):
        clauses = [match for match in _clause.findall(text) if _span.search(match)]
        for number in range(count if clauses else 0):
            draws = [chance(seed, f"cloze/{number}/{part}", text) for part in range(4)]
            clause = clauses[int(draws[0] * len(clauses))]
            runs = list(_span.finditer(clause))
            run = runs[int(draws[1] * len(runs))]
            length = min(1 + int(draws[2] * gap), len(run[0]), len(clause) - 3)
            start = run.start() + int(draws[3] * (len(run[0]) - length + 1))
            asked, answer = f"{clause[:start]}什么{clause[start + length :]}", clause[start : start + length]
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            made.append(questions.Question(f"cloze/{digest}/{number}", asked, (questions.Passage(text, answer),), (answer,)))
    return made


def chance(seed: int, purpose: str, text: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
