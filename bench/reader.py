"""Reading with the prefix kept against reading everything again for every token, as bert4keras does: one code path, interleaved rounds.

    python bench/reader.py [--passages 10] [--passage 256] [--question 16] [--answer 8] [--beams 1] [--rounds 3] [--size bert-base-chinese]

One question, random float32 weights, extractive; [SEP] is made unlikely, so that every answer has all its tokens. Both sides must give the
same answer. `keep` is that of flaxgen.chains.reading.Reading.
"""

import argparse
import statistics
import time

import jax
import numpy as np
import report
import rounds

from flaxgen import asking, loop, weights
from flaxgen.chains import reading
from flaxgen.models import config as sizes
from flaxgen.models import transformer
from flaxgen.text import passages, wordpiece

SIZES = {
    "bert-base-chinese": {"vocab": 21_128, "width": 768, "layers": 12, "heads": 12, "hidden": 3072},
    "small": {"vocab": 2_000, "width": 96, "layers": 2, "heads": 4, "hidden": 384},
}
CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def subject(size: str):
    """A UniLM of this size that never ends an answer, and a vocabulary of ideographs for it."""
    made = SIZES[size] | {"positions": 512, "wiring": "post", "activation": "gelu", "segments": 2}
    config = sizes.Config(**made, epsilon=1e-12, outputs=("mlm",), application="unilm")
    noise, flat = np.random.default_rng(0), {}
    for path, shape in config.shapes().items():
        plain = path.endswith(("bias", "scale"))
        flat[path] = np.full(shape, path.endswith("scale"), np.float32) if plain else 0.02 * noise.standard_normal(shape, np.float32)
    flat["mlm/bias"][CONTROL.index("[SEP]")] = -100
    # More ideographs than the block holds would only repeat: the rest of the rows has no text.
    text = wordpiece.WordPiece((*CONTROL, *map(chr, range(0x4E00, 0x4E00 + min(20_000, config.vocab - len(CONTROL))))))
    return transformer.Transformer(config), weights.nest(jax.tree.map(jax.device_put, flat)), text


def asked(text, count: int, passage: int, question: int, answer: int) -> tuple[asking.Asked, passages.Lengths]:
    """A question with passages of so many tokens each, control tokens counted, of a few hundred different characters."""
    noise, lengths = np.random.default_rng(1), passages.Lengths(passage, question, answer)

    def words(number: int) -> str:
        return text.decode(noise.integers(len(CONTROL), 600, number).tolist())

    given = [words(passage - 2) for _ in range(count)]
    return asking.ask(text, words(question - 1), given, "causal", lengths, "refuse"), lengths


def timed(chain: reading.Reading, params, start: reading.Prompt, tokens: list) -> float:
    """Seconds of one answer, whose tokens are put into the list."""
    begun = time.perf_counter()
    found = loop.generate(chain, params, jax.random.key(0), start, steps=chain.room)
    seconds = time.perf_counter() - begun
    tokens[:] = found.rows()[0]
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("passages", 10), ("passage", 256), ("question", 16), ("answer", 8), ("beams", 1), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--size", choices=SIZES, default="bert-base-chinese")
    given = parser.parse_args()
    model, params, text = subject(given.size)
    one, lengths = asked(text, given.passages, given.passage, given.question, given.answer)
    size = asking.Size(1, given.passages, lengths.passage + lengths.question)
    room = passages.room("causal", lengths)
    start = asking.prompt([one], size, mode="extractive", limit=given.answer, room=room, vocab=model.config.vocab)
    chains = {
        keep: reading.Reading(model, CONTROL.index("[SEP]"), "extractive", given.beams, given.answer, keep)
        for keep in ("caches", "nothing")
    }
    tokens: dict[str, list] = {keep: [] for keep in chains}
    sides = {keep: lambda keep=keep, chain=chain: timed(chain, params, start, tokens[keep]) for keep, chain in chains.items()}
    figures = rounds.interleaved(sides, given.rounds)
    if tokens["caches"] != tokens["nothing"] or len(tokens["caches"]) != given.answer:
        raise SystemExit(f"the sides differ, or ended early: {tokens}")
    rows = [
        {"keep": keep, "seconds": statistics.median(each), "fastest": min(each), "slowest": max(each)} for keep, each in figures.items()
    ]
    ratio = rounds.ratio(figures, "nothing", "caches")
    print({name: round(value, 2) for name, value in ratio.items()})
    report.finish("reader", rows, ("jax", "jaxlib", "numpy"), **vars(given), **ratio, device=str(jax.devices()[0]))


if __name__ == "__main__":
    main()
