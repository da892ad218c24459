"""Answers of a reader to questions whose answers are known, scored beside what counting characters finds."""

import dataclasses
import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from flaxgen import disk
from flaxgen import reader as readers
from flaxgen.chains import reading
from flaxgen.measure import answers, overlap
from train import digest, questions

TOGETHER = 64  # questions that are asked, and whose answers are written, before the next are
BASELINES: dict[str, overlap.Give] = {"longest overlap: sentence": "sentence", "longest overlap: rest": "rest"}


def evaluate(
    reader: readers.Reader,
    asked: Sequence[questions.Question],
    *,
    predictions: pathlib.Path | None = None,
    mode: reading.Mode = "extractive",
    beams: int = 1,
) -> dict[str, answers.Score]:
    """Scores by name, of the reader and of the baselines, on the questions that have an answer.

    predictions: where the answers are written, `id<TAB>answer`, as they stand in their passages, and in a .json beside it what gave them;
    questions that are answered there already, by the same model in the same way, are not asked again.
    """
    gold = answered(asked)
    known = [each for each in asked if each.id in gold]
    return {"reader": answers.score(read(reader, known, predictions, mode, beams), gold)} | baselines(known)


def baselines(asked: Sequence[questions.Question]) -> dict[str, answers.Score]:
    """Scores of flaxgen.measure.overlap by name."""
    scores, gold = {}, answered(asked)
    for name, give in BASELINES.items():
        found = {each.id: overlap.answer(each.text, [passage.text for passage in each.passages], give) for each in asked}
        scores[name] = answers.score({key: found[key] for key in gold}, gold)
    return scores


def answered(asked: Sequence[questions.Question]) -> dict[str, tuple[str, ...]]:
    """The variants by question, of the questions that have an answer."""
    gold = {each.id: each.answers for each in asked}
    if len(gold) < len(asked):
        raise ValueError(f"{len(asked) - len(gold)} of {len(asked)} questions have an id that stands twice; give each question its own")
    return {name: variants for name, variants in gold.items() if any(map(answers.normalise, variants))}


def read(
    reader: readers.Reader, asked: Sequence[questions.Question], target: pathlib.Path | None, mode: reading.Mode, beams: int
) -> dict[str, str]:
    """A reader's answers by question; what `target` holds already is taken from there."""
    found = resumed(target, facts(reader, mode, beams)) if target else {}
    began, left = time.monotonic(), [each for each in asked if each.id not in found]
    if len(left) < len(asked):
        print(f"{len(asked) - len(left)} of {len(asked)} answers are taken from {target}, which is there already", file=sys.stderr)
    for start in range(0, len(left), TOGETHER):
        part = left[start : start + TOGETHER]
        pairs = [(each.text, [passage.text for passage in each.passages]) for each in part]
        found |= {each.id: answer.quote for each, answer in zip(part, reader.answers(pairs, mode=mode, beams=beams), strict=True)}
        if target:
            answers.write(target, found)
        done = start + len(part)
        print(f"{done} of {len(left)} questions, {done / (time.monotonic() - began):.2f} a second", file=sys.stderr, flush=True)
    return {each.id: found[each.id] for each in asked}


def facts(reader: readers.Reader, mode: reading.Mode, beams: int) -> dict[str, Any]:
    """What answers depend on besides the questions: the model, by a digest of its weights, sizes and vocabulary, and how it is asked."""
    found = hashlib.sha256(f"{reader.model.config} {json.dumps(reader.text.options(), sort_keys=True)}".encode())
    for name, leaf in digest.named(reader.params).items():
        found.update(name.encode() + np.asarray(leaf).tobytes())
    lengths = dataclasses.asdict(reader.lengths)
    return {"model": found.hexdigest(), "form": reader.form, "lengths": lengths, "mode": mode, "beams": beams}


def resumed(target: pathlib.Path, made: dict[str, Any]) -> dict[str, str]:
    """The answers that lie in `target`; ValueError where something else than `made` gave them. Notes `made` beside a new file."""
    beside = target.with_name(f"{target.name}.json")
    if not target.exists():
        disk.replace(beside, (json.dumps(made) + "\n").encode())
        return {}
    if not beside.exists():
        raise ValueError(f"{target} is there, but {beside}, which says what gave its answers, is not; name another file, or remove it")
    known = disk.load_json(beside)
    other = [f"{name} was {known.get(name)}, is {value}" for name, value in made.items() if known.get(name) != value]
    if other:
        raise ValueError(f"the answers of {target} are not of this model, asked so: {'; '.join(other)}. Name another file, or remove it")
    return answers.read(target)


def table(scores: dict[str, answers.Score]) -> str:
    """The scores as lines of a table."""
    head = f"{'':<32}{'questions':>10}{'Accuracy':>10}{'F1':>10}{'Final':>10}"
    lines = (f"{name:<32}{s.questions:>10,}{s.accuracy:>10.4f}{s.f1:>10.4f}{s.final:>10.4f}" for name, s in scores.items())
    return "\n".join([head, *lines])
