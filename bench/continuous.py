"""Continuous batching against fixed batches of 8: prompts whose answers are 8 to 256 tokens long, log-uniformly, through 8 slots.

    python -m bench continuous [--model bundled|gpt2] [--prompts 500] [--rounds 3] [--check 64]

Lengths are forced by min_tokens and max_tokens, and cut where the model's context ends. Both sides get the same prompts, rules and seeds in
the same order, after a warm-up. With exact=True the texts of the first --check prompts must be identical. Bar: 1.5 ×.
"""

import argparse
import statistics
import time

import numpy as np
import report
import rounds
import subjects

import flaxgen

SHORTEST, LONGEST, WORDS, SLOTS = 8, 256, 24, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bundled", choices=["bundled", "gpt2"])
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", type=int, default=64)
    options = parser.parse_args()
    # top_k: a random model finds all tokens alike, a trained one keeps few.
    rule = flaxgen.Rule(top_k=40, top_p=0.95)
    writer = flaxgen.Writer(*(() if options.model == "bundled" else (*subjects.gpt2(), subjects.text())), rule=rule)
    prompts, rules = requests(writer, options.prompts)
    rows = measure(writer, prompts, rules, options)
    same = None
    if options.check:
        part = slice(options.check)
        exactly = [[one.text for one in way(writer, prompts[part], rules[part], exact=True)] for way in (fixed, continuous)]
        same = exactly[0] == exactly[1]
        print(f"exact: the texts of {options.check} prompts are {'identical' if same else 'NOT identical'}")
    name = "continuous" if options.model == "bundled" else f"continuous-{options.model}"
    report.finish(name, rows, ["jax", "jaxlib", "flax"], model=options.model, prompts=options.prompts, checked=options.check, same=same)


def requests(writer: flaxgen.Writer, count: int) -> tuple[list[str], list[flaxgen.Rule]]:
    """Prompts of 4 to 24 words, and for each a rule that forces the length of its answer."""
    noise = np.random.default_rng(0)
    words, most = np.array(subjects.words(writer.text, 400)), room(writer)
    prompts, rules = [], []
    for _ in range(count):
        length = min(round(float(np.exp(noise.uniform(np.log(SHORTEST), np.log(LONGEST))))), most)
        prompts.append(writer.text.decode(noise.choice(words, noise.integers(4, WORDS + 1)).tolist()))
        rules.append(writer.rule.replace(min_tokens=length, max_tokens=length))
    return prompts, rules


def room(writer: flaxgen.Writer) -> int:
    """The most tokens that fit behind every prompt."""
    return min(LONGEST, writer.model.config.positions - WORDS)


def fixed(writer: flaxgen.Writer, prompts, rules, **wishes) -> list:
    """One batch of 8 after the other, each until its longest answer is done."""
    done = []
    for start in range(0, len(prompts), SLOTS):
        part = slice(start, start + SLOTS)
        seeds = list(range(len(prompts)))[part]
        done += writer.write(prompts[part], tokens=room(writer), rule=rules[part], seed=seeds, **wishes)
    return [one for several in done for one in several]


def continuous(writer: flaxgen.Writer, prompts, rules, **wishes) -> list:
    return list(writer.write_many(prompts, tokens=room(writer), rule=rules, seed=list(range(len(prompts))), slots=SLOTS, **wishes))


def warm(writer: flaxgen.Writer, prompts, rules) -> None:
    """Compiles what the rounds need: batches of the shortest prompts, of the longest, and the last one, which may have fewer rows."""
    order = sorted(range(len(prompts)), key=lambda number: len(writer.text.encode(prompts[number])))
    last = list(range(len(prompts)))[-(len(prompts) % SLOTS or SLOTS) :]
    for part in (order[:SLOTS], order[-SLOTS:], last):
        fixed(writer, [prompts[i] for i in part], [rules[i] for i in part])
    continuous(writer, prompts[: 2 * SLOTS], rules[: 2 * SLOTS])


def measure(writer: flaxgen.Writer, prompts, rules, options) -> list[dict]:
    drawn = {}

    def side(name, way):
        def run() -> float:
            start = time.perf_counter()
            written = way(writer, prompts, rules)
            seconds = time.perf_counter() - start
            drawn[name] = sum(len(one.tokens) for one in written)
            return drawn[name] / seconds

        return run

    warm(writer, prompts, rules)
    figures = rounds.interleaved(
        {name: side(name, way) for name, way in (("fixed", fixed), ("continuous", continuous))}, options.rounds, warm=0
    )
    return [
        {"batching": name, "prompts": len(prompts), "tokens": drawn[name], "tokens/s": statistics.median(values)}
        | rounds.ratio(figures, name, "fixed")
        for name, values in figures.items()
    ]


if __name__ == "__main__":
    main()
