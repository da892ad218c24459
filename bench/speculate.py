"""Prompt-lookup speculation where a text copies its prompt: tokens a second with and without it, GPT-2 124M, interleaved rounds, medians.

    python -m bench speculate [--batches 1 8] [--drafts 3 7] [--tokens 128] [--rounds 5]

The model goes round a list of words that stands in its prompt (bench/subjects.py); nothing else about it differs from a random one, so this
is the best case: nearly every guess is right. All modes must draw the same tokens, or it ends in an error. Bar: 1.5 × at batch 1.
"""

import argparse
import statistics

import report
import rounds
import subjects

import flaxgen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--drafts", type=int, nargs="+", default=[3, 7])
    parser.add_argument("--prompt", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab", nargs=2, default=[], metavar="FILE", help="GPT-2's two files; by default a made-up vocabulary")
    options = parser.parse_args()
    text = subjects.text(*options.vocab)
    cycle = subjects.words(text, options.prompt)
    writer = flaxgen.Writer(*subjects.copier(options.size, cycle), text)
    rows = [row for batch in options.batches for row in measure(writer, cycle, batch, options)]
    report.finish("speculate", rows, ["jax", "jaxlib", "flax"], size=options.size, prompt=options.prompt, tokens=options.tokens)


def measure(writer: flaxgen.Writer, cycle: list[int], batch: int, options) -> list[dict]:
    """Each exact row is compared with exact without guesses, the others with the default."""
    wishes = {"default": {}, **{f"{count} guesses": {"speculate": count} for count in options.drafts}}
    wishes |= {"exact, no guesses": {"exact": True, "speculate": 0}, "exact": {"exact": True}}
    drawn, prompt = {}, writer.text.decode(cycle + cycle[:1])
    copy = [cycle[(1 + place) % len(cycle)] for place in range(options.tokens)]

    def side(name):
        def run() -> float:
            written = writer.write([prompt] * batch, tokens=options.tokens, rule=flaxgen.Rule(), seed=0, **wishes[name])
            drawn[name] = [one.tokens for several in written for one in several]
            if drawn[name] != [copy] * batch:
                raise RuntimeError("the model did not copy its prompt, and there is nothing to measure; take a wider one")
            return written.stats.tokens_per_second

        return run

    figures = rounds.interleaved({name: side(name) for name in wishes}, options.rounds)
    rows = []
    for name, values in figures.items():
        base = "exact, no guesses" if name.startswith("exact") else "default"
        same = drawn[name] == drawn[base]
        rows.append(
            {"batch": batch, "mode": name, "tokens/s": statistics.median(values), **rounds.ratio(figures, name, base), "same": same}
        )
    return rows


if __name__ == "__main__":
    main()
