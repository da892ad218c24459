"""Milliseconds a token under the plain rule, the full rule set and regular expressions: GPT-2 124M, interleaved rounds, medians.

    python -m bench constrained [--batches 1 8] [--tokens 64] [--rounds 5] [--vocab ENCODER_JSON VOCAB_BPE]

A token is a move of the decoder after the first: prompt, tables and text are not counted. Bar: a regular expression costs 1.15 × plain.
"""

import argparse
import statistics

import report
import rounds
import subjects

import flaxgen

# top_k: a random model finds all tokens alike, a trained one keeps few.
# Patterns that can go on with any single token: no row is complete before its last token.
RULES = {
    "plain": flaxgen.Rule(top_k=40, top_p=0.95),
    "full": flaxgen.Rule(
        top_k=40, top_p=0.95, min_p=1e-6, repetition_penalty=1.1, frequency_penalty=0.1, no_repeat_ngram=4, ban=[[5, 6, 7]]
    ),
    "words": flaxgen.Rule(top_k=40, top_p=0.95, regex="[ a-z]+"),
    "table": flaxgen.Rule(top_k=40, top_p=0.95, regex=r"([A-Z][a-z]{1,9}, [12][0-9]{3}-[01][0-9]-[0-3][0-9]\n)+!*"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab", nargs=2, default=[], metavar="FILE", help="GPT-2's two files; by default a made-up vocabulary")
    options = parser.parse_args()
    text = subjects.text(*options.vocab)
    writer = flaxgen.Writer(*subjects.gpt2(options.size), text)
    prompt = text.decode(subjects.words(text, options.prompt))
    rows = [row for batch in options.batches for row in measure(writer, prompt, batch, options)]
    report.finish("constrained", rows, ["jax", "jaxlib", "flax"], size=options.size, vocabulary="made up" if not options.vocab else "GPT-2")


def measure(writer: flaxgen.Writer, prompt: str, batch: int, options) -> list[dict]:
    def side(rule):
        def run() -> float:
            stats = writer.write([prompt] * batch, tokens=options.tokens, rule=rule, seed=0).stats
            return 1000 * (stats.seconds - stats.first_token_seconds) / stats.moves

        return run

    figures = rounds.interleaved({name: side(rule) for name, rule in RULES.items()}, options.rounds)
    return [
        {"batch": batch, "rule": name, "ms a token": statistics.median(values), **rounds.ratio(figures, name, "plain")}
        for name, values in figures.items()
    ]


if __name__ == "__main__":
    main()
