"""Scores of a couplet model on couplets it has not seen: perplexity, accuracy, and what its answers are like, by rule and without."""

import collections
import math
import pathlib
import time

import numpy as np

from flaxgen import couplets, weights
from flaxgen.measure import couplet
from flaxgen.tasks import tagging
from train import couplets as pairs
from train import recipes

LINES = 1000  # held-out upper lines that are answered
ROWS = 64
RULES = {"the article's rule": couplets.ARTICLE, "all rules": couplets.Rules()}


def score(folder: pathlib.Path, data: pathlib.Path, *, longest: int) -> dict:
    """What stands in a model's card; `folder` is a flaxgen folder, `data` what prepare-couplets wrote."""
    began = time.monotonic()
    model, params, text = weights.load(folder)
    learnt, dev, held_out = (pairs.build(str(data / f"{name}.tsv"), text, longest=longest) for name in ("train", "dev", "heldout"))
    nats, right, count = likelihood(model, params, held_out)
    writer = couplets.Couplets(model, params, text)
    known = list(pairs.pairs(str(data / "heldout.tsv"), longest=longest))[:LINES]
    upper, people = map(list, zip(*known, strict=True))
    answers = {name: [several[0].text for several in writer(upper, rules=rules)] for name, rules in RULES.items()}
    return {
        "held_out_couplets": len(held_out),
        "held_out_characters": count,
        "perplexity": math.exp(nats / count),
        "accuracy": right / count,
        "same_place_perplexity": same_place(learnt, dev, held_out, len(text)),
        "lines_answered": len(upper),
        "people": judged(upper, people),
        "answers": {name: judged(upper, lines) for name, lines in answers.items()},
        "samples": {prompt: [one.text for one in writer(prompt, best=3)] for prompt in recipes.COUPLET_PROMPTS.split("|")},
        "seconds": round(time.monotonic() - began, 1),
    }


def likelihood(model, params, data: pairs.Couplets) -> tuple[float, int, int]:
    """(nats, characters guessed right, characters) of the lower lines; unknown characters count as the one that they are read as."""
    task, nats, right, count = tagging.Tagging(model), 0.0, 0, 0
    for batch in data.parts(ROWS, len(data)):
        keep_B = batch["weight_B"] > 0
        guess_BT = np.asarray(model.apply(params, batch["token_BT"]).argmax(axis=-1))
        nats += float(np.asarray(task.nats(params, batch), np.float64)[keep_B].sum())
        right += int((guess_BT == batch["target_BT"])[keep_B].sum())
        count += int(batch["target_BT"][keep_B].size)
    return nats, right, count


def same_place(learnt: pairs.Couplets, dev: pairs.Couplets, held_out: pairs.Couplets, vocab: int) -> float:
    """Perplexity of a table that knows the upper line's character at the same place alone, mixed with how frequent characters are.

    The share of the mixture is the best on `dev`; frequencies have 1 added to every count.
    """
    both = [np.concatenate([[b.token_BT.ravel(), b.target_BT.ravel()] for b in data.buckets], axis=1) for data in (learnt, dev, held_out)]
    frequency_V = np.bincount(both[0][1], minlength=vocab) + 1.0
    seen, after = collections.Counter(zip(*both[0].tolist(), strict=True)), np.bincount(both[0][0], minlength=vocab)

    def nats(part, share):
        upper_N, lower_N = part
        table_N = np.asarray([seen[pair] for pair in zip(*part.tolist(), strict=True)]) / np.maximum(after[upper_N], 1)
        return -np.log(share * table_N + (1 - share) * frequency_V[lower_N] / frequency_V.sum()).mean()

    share = min(np.arange(0.0, 1.0, 0.05), key=lambda share: nats(both[1], share))
    return math.exp(nats(both[2], share))


def judged(upper: list[str], lower: list[str]) -> dict[str, float]:
    """Broken rules, and how many of the runs of one and two characters differ."""
    found = list(zip(upper, lower, strict=True))
    return couplet.violations(found) | {"distinct-1": couplet.distinct(lower, 1), "distinct-2": couplet.distinct(lower, 2)}


def describe(scores: dict) -> str:
    """The scores as two Markdown tables."""
    rows = [
        ("perplexity a character", f"{scores['perplexity']:.1f}"),
        ("… of a table of characters at the same place", f"{scores['same_place_perplexity']:.1f}"),
        ("characters guessed as the poet wrote", f"{scores['accuracy']:.1%}"),
    ]
    first = f"| {scores['held_out_couplets']:,} held-out couplets | |\n|---|---|\n"
    first += "".join(f"| {name} | {value} |\n" for name, value in rows)
    sides = {"poets": scores["people"]} | scores["answers"]
    columns = list(scores["people"])
    head = f"| lower lines to {scores['lines_answered']:,} of them | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}\n"
    body = "".join(f"| {name} | {' | '.join(f'{side[column]:.1%}' for column in columns)} |\n" for name, side in sides.items())
    return f"{first}\n{head}{body}"
