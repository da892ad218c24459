"""What the rules of couplets cost: broken rules, distinctness and perplexity of answers to test lines, rule by rule.

    python -m bench couplet_rules MODEL UPPER LOWER [--lines 1000]

UPPER and LOWER hold a line each, in the same order; characters may stand apart. Shares of couplets that break a rule are judged by
both books of tones. Perplexity is the model's own, a character of the answer; the lines people wrote stand in the first row.
"""

import argparse
import dataclasses
import pathlib
import time

import numpy as np
import report

from flaxgen import couplets
from flaxgen.measure import couplet, perplexity
from flaxgen.text import antithesis, files

ONE = {name: dataclasses.replace(couplets.ARTICLE, **{name: True}) for name in ("tones", "ends", "repeats", "fresh")}
RULES = {"article": couplets.ARTICLE, **ONE, "all": couplets.Rules(), "all, pingshui": couplets.Rules(book="pingshui")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a flaxgen folder, or `bundled`")
    parser.add_argument("upper", type=pathlib.Path)
    parser.add_argument("lower", type=pathlib.Path)
    parser.add_argument("--lines", type=int, default=1000, help="the first so many")
    options = parser.parse_args()
    writer = couplets.Couplets() if options.model == "bundled" else couplets.Couplets.load(options.model)
    upper, people = (["".join(line.split()) for line in files.lines(path)][: options.lines] for path in (options.upper, options.lower))
    rows = [judged("people", upper, people, people, by_people(writer, upper, people), None)]
    rows.append(judged("likeliest", upper, *likeliest(writer, upper, people), None))
    writer(upper, rules=couplets.ARTICLE)  # compiles a program for every length
    for name, rules in RULES.items():
        start = time.perf_counter()
        answers = [several[0] for several in writer(upper, rules=rules)]
        seconds = time.perf_counter() - start
        rows.append(judged(name, upper, [one.text for one in answers], people, sum(one.score for one in answers), seconds))
    report.finish("couplet_rules", rows, ["jax", "jaxlib", "scipy"], model=pathlib.Path(options.model).name, lines=len(upper))


def judged(name: str, upper: list[str], lower: list[str], people: list[str], log_prob: float, seconds: float | None) -> dict:
    pairs = list(zip(upper, lower, strict=True))
    spoken, written = couplet.violations(pairs), couplet.violations(pairs, "pingshui")
    count = sum(map(antithesis.is_open, "".join(upper)))
    return {
        "rules": name,
        "copied": couplet.copies(pairs),
        **{rule: share for rule, share in spoken.items() if rule != "copied"},
        **{f"{rule}, pingshui": written[rule] for rule in ("tones", "ends")},
        "distinct-1": couplet.distinct(lower, 1),
        "distinct-2": couplet.distinct(lower, 2),
        "accuracy": couplet.accuracy(lower, people),
        "perplexity": perplexity.perplexity(np.array([log_prob / count])),
        "ms a line": None if seconds is None else 1000 * seconds / len(upper),
    }


def by_people(writer: couplets.Couplets, upper: list[str], lower: list[str]) -> float:
    """Log-probability of the lines people wrote; a character the model does not know counts as the unknown one."""
    total = 0.0
    for above, below, log_prob_TV in zip(upper, lower, writer.log_probs(upper), strict=True):
        places = [place for place, one in enumerate(above) if antithesis.is_open(one)]
        ids = writer.text.encode(below)
        total += sum(float(log_prob_TV[place, ids[place]]) for place in places)
    return total


def likeliest(writer: couplets.Couplets, upper: list[str], people: list[str]) -> tuple[list[str], list[str], float]:
    """The likeliest character at every place without any rule, copies too, and its log-probability."""
    lines, total = [], 0.0
    for above, log_prob_TV in zip(upper, writer.log_probs(upper), strict=True):
        places = [place for place, one in enumerate(above) if antithesis.is_open(one)]
        answer, best_T = list(above), log_prob_TV[:, 1 : len(writer.text)].argmax(axis=1) + 1
        for place in places:
            answer[place] = writer.text.decode([int(best_T[place])])
            total += float(log_prob_TV[place, best_T[place]])
        lines.append("".join(answer))
    return lines, people, total


if __name__ == "__main__":
    main()
