"""Scores of a poetry model on poems it has not seen: perplexity against a trigram's, and whether what it writes is verse, and new."""

import json
import pathlib
import time

import numpy as np

from flaxgen import weights
from flaxgen.chains import scoring
from flaxgen.measure import perplexity, trigram, verse
from train import corpus, sample

PROMPTS = ("床前明月光", "今天天气不错", "春江花月夜")
FORMS = ("五绝", "七绝", "五律", "七律")
POEMS = 256  # held-out first lines that are continued
ROWS = 32


def score(folder: pathlib.Path, verses: pathlib.Path) -> dict:
    """What stands in a model's card; `folder` is a flaxgen folder, `verses` what prepare-poetry wrote."""
    model, params, text = weights.load(folder)
    (end,) = weights.describe(folder)["end"]
    began = time.monotonic()
    held_out = [[*text.encode(document), end] for document in corpus.documents(verses / "heldout.jsonl")]
    log_prob = likelihood(model, params, held_out)
    learnt = [[*text.encode(document), end] for document in corpus.documents(verses / "train.jsonl")]
    dev = [[*text.encode(document), end] for document in corpus.documents(verses / "dev.jsonl")]
    baseline = trigram.Trigram.fit(learnt, dev, vocab=len(text))
    known = verse.grams(verse.lines(document) for document in corpus.documents(verses / "train.jsonl"))
    originals = regular_poems(verses / "heldout.jsonl")
    firsts = [poem[0] for poem in originals[:POEMS]]
    parts = [firsts[start : start + ROWS] for start in range(0, len(firsts), ROWS)]
    written = [each for part in parts for each in sample.continuations(model, params, text, part, end=end)]
    poems = [[first, *verse.lines(text)] for first, text in zip(firsts, written, strict=True)]
    return {
        "held_out_texts": len(held_out),
        "held_out_tokens": len(log_prob),
        "perplexity": perplexity.perplexity(log_prob),
        "trigram_perplexity": perplexity.perplexity(baseline.log_prob(held_out)),
        "poems_written": len(poems),
        "lines_regular": verse.regular(poems),
        "lines_regular_of_poets": verse.regular(originals),
        "grams_known": verse.known(poems, known),
        "grams_known_of_poets": verse.known(originals, known),
        "grams_repeated": verse.repeated(poems),
        "grams_repeated_of_poets": verse.repeated(originals),
        "rule": sample.RULE,
        "samples": {prompt: [prompt + each for each in several] for prompt, several in tries(model, params, text, end).items()},
        "seconds": round(time.monotonic() - began, 1),
    }


def likelihood(model, params, texts: list[list[int]]) -> np.ndarray:
    """Log-probabilities of all tokens but each text's first; every text stands alone at the start of a row."""
    ordered = sorted(texts, key=len)
    found = []
    for start in range(0, len(ordered), ROWS):
        part = ordered[start : start + ROWS]
        width = -(-len(part[-1]) // 32) * 32
        token_BT = np.zeros((ROWS, width), np.int32)
        length_B = np.full(ROWS, 2, np.int32)
        for row, ids in enumerate(part):
            token_BT[row, : len(ids)] = ids
            length_B[row] = len(ids)
        log_prob_BT = scoring.score(model, params, token_BT, length_B)
        found += [log_prob_BT[row, : len(ids) - 1] for row, ids in enumerate(part)]
    return np.concatenate(found)


def regular_poems(path: pathlib.Path) -> list[list[str]]:
    """The lines of the four regular forms' poems."""
    with open(path, encoding="utf-8") as file:
        records = map(json.loads, file)
        return [verse.lines(record["text"]) for record in records if record["form"] in FORMS]


def tries(model, params, text, end: int, count: int = 3) -> dict[str, list[str]]:
    """A few continuations of each of PROMPTS, one seed each."""
    drawn = [sample.continuations(model, params, text, list(PROMPTS), end=end, seed=seed) for seed in range(count)]
    return {prompt: [several[row] for several in drawn] for row, prompt in enumerate(PROMPTS)}


def describe(scores: dict) -> str:
    """The scores as a Markdown table."""
    rows = [
        ("held-out perplexity a character", scores["perplexity"], None),
        ("… of an interpolated trigram on the same text", scores["trigram_perplexity"], None),
        ("lines as long as their poem's first, 5 or 7", scores["lines_regular"], scores["lines_regular_of_poets"]),
        ("runs of 4 characters that stand in the corpus", scores["grams_known"], scores["grams_known_of_poets"]),
        ("runs of 4 characters that repeat within a poem", scores["grams_repeated"], scores["grams_repeated_of_poets"]),
    ]
    head = "| measure | model | held-out poems |\n|---|---|---|\n"
    return head + "".join(
        f"| {name} | {value:.1f} | |\n" if other is None else f"| {name} | {value:.1%} | {other:.1%} |\n" for name, value, other in rows
    )
