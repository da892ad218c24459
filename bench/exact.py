"""What exact=True costs against the default: GPT-2 124M, a prompt and an answer, interleaved rounds, medians.

    python -m bench exact [--batches 1 8] [--prompt 64] [--tokens 128] [--rounds 5]

Whole calls, the prompt included. The random model copies nothing, so that guesses under exact do not help here; see speculate for that.
"""

import argparse
import statistics

import report
import rounds
import subjects

import flaxgen

MODES = {"default": {}, "exact": {"exact": True}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    text = subjects.text()
    # top_k: a random model finds all tokens alike, a trained one keeps few.
    writer = flaxgen.Writer(*subjects.gpt2(options.size), text, rule=flaxgen.Rule(top_k=40, top_p=0.95))
    prompt = text.decode(subjects.words(text, options.prompt))
    rows = [row for batch in options.batches for row in measure(writer, prompt, batch, options)]
    report.finish("exact", rows, ["jax", "jaxlib", "flax"], size=options.size, prompt=options.prompt, tokens=options.tokens)


def measure(writer: flaxgen.Writer, prompt: str, batch: int, options) -> list[dict]:
    def side(wishes):
        return lambda: writer.write([prompt] * batch, tokens=options.tokens, seed=list(range(batch)), **wishes).stats.seconds

    figures = rounds.interleaved({name: side(wishes) for name, wishes in MODES.items()}, options.rounds)
    count = batch * options.tokens
    return [
        {"batch": batch, "mode": name, "tokens/s": count / statistics.median(values), **_times(rounds.ratio(figures, name, "default"))}
        for name, values in figures.items()
    ]


def _times(ratios: dict) -> dict:
    return {name.replace("ratio", "time"): value for name, value in ratios.items()}


if __name__ == "__main__":
    main()
