"""Greedy decoding of GPT-2 against transformers with torch, and ctranslate2: the same weights and prompts, interleaved rounds, medians.

    python bench/decode.py [--size gpt2] [--prompt 64] [--tokens 128] [--batches 1 8] [--rounds 5]

Needs torch and transformers; ctranslate2 joins where it is installed. Both we and it decode in float32 and with int8 weights. Weights are
random, made by transformers and brought over by `python -m convert` and by ctranslate2's own converter. The floor of a token at batch 1 is
the parameters read once: bytes / bandwidth. The bandwidth is measured in the same run by summing a large array.
"""

import argparse
import importlib.util
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
import report
import rounds
import subjects
import torch
import transformers

import flaxgen
from flaxgen import loop, weights
from flaxgen.chains import autoregressive
from flaxgen.models import presets

ROOT = pathlib.Path(__file__).resolve().parents[1]
THREADS = 2


def both(size: str, folder: pathlib.Path):
    """A random GPT-2 of transformers, and the same weights as a flaxgen model."""
    c = presets.PRESETS[size]
    config = transformers.GPT2Config(vocab_size=c.vocab, n_positions=c.positions, n_embd=c.width, n_layer=c.layers, n_head=c.heads)
    torch.manual_seed(0)
    peer = transformers.GPT2LMHeadModel(config).eval()
    peer.save_pretrained(folder / "peer")
    subprocess.run([sys.executable, "-m", "convert", folder / "peer", folder / "ours"], cwd=ROOT, check=True, capture_output=True)
    return peer, *flaxgen.load(folder / "ours")[:2]


def translators(folder: pathlib.Path) -> dict[str, Callable]:
    """Functions of (token_BT, tokens) -> token_BN by ctranslate2, float32 and int8, from the model that transformers saved in `folder`."""
    if importlib.util.find_spec("ctranslate2") is None:
        return {}
    import ctranslate2

    text = subjects.text()
    text.save(folder)  # the converter wants a vocabulary; ids are what counts here
    transformers.GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    made = {}
    for kind, quantization in (("float32", None), ("int8", "int8")):
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(folder / kind), quantization=quantization)
        generator = ctranslate2.Generator(str(folder / kind), compute_type=kind, intra_threads=THREADS)
        made[f"ctranslate2 {kind}"] = translate(generator, text.tokens)
    return made


def translate(generator, words: tuple[str, ...]) -> Callable:
    def run(token_BT: np.ndarray, tokens: int) -> np.ndarray:
        rows = [[words[i] for i in row] for row in token_BT]
        settings = {"max_length": tokens, "min_length": tokens, "include_prompt_in_result": False, "end_token": []}
        return np.array([one.sequences_ids[0] for one in generator.generate_batch(rows, **settings)])

    return run


def bandwidth() -> float:
    """Bytes a second at which this machine sums 1 GiB of float32, the best of five."""
    array = torch.ones(1 << 28)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        array.sum()
        seconds.append(time.perf_counter() - start)
    return array.nbytes / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2", choices=presets.PRESETS)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", default="unrolled", choices=["unrolled", "dispatched"])
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        peer, model, params = both(options.size, pathlib.Path(folder))
        others = translators(pathlib.Path(folder) / "peer")
    speed = bandwidth()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    rows = [row for batch in options.batches for row in measure(peer, others, model, params, batch, options)]
    for row in rows:
        float32 = "int8" not in row["side"]
        row["share of bandwidth"] = row["tokens/s"] / row["batch"] * size / speed if float32 else None
    print(
        f"{options.size}, prompt {options.prompt} + {options.tokens} tokens, float32, {speed / 1e9:.1f} GB/s, {size / 1e6:.0f} MB weights"
    )
    packages = ["jax", "jaxlib", "flax", "torch", "transformers", *(["ctranslate2"] if others else [])]
    report.finish("decode", rows, packages, size=options.size, bytes_per_second=speed, layers=options.layers)


def measure(peer, others: dict[str, Callable], model, params, batch: int, options) -> list[dict]:
    """Medians of interleaved rounds, after a warm-up that shows which of the others give the same tokens."""
    ids = np.random.default_rng(batch).integers(0, model.config.vocab, (batch, options.prompt))
    chain = autoregressive.Autoregressive(model, options.tokens, options.layers)
    given = autoregressive.prompt(ids, np.full(batch, options.prompt), rule=flaxgen.Rule(temperature=0))

    def ours(params=params):
        return loop.generate(chain, params, jax.random.key(0), given, steps=options.tokens).token_BN

    coded = weights.quantize(params)

    def theirs():
        settings = {"max_new_tokens": options.tokens, "min_new_tokens": options.tokens, "do_sample": False, "pad_token_id": 0}
        with torch.inference_mode():
            whole = peer.generate(torch.from_numpy(ids), attention_mask=torch.ones_like(torch.from_numpy(ids)), **settings)
        return whole[:, options.prompt :].numpy()

    runs = {"flaxgen": ours, "flaxgen int8": lambda: ours(coded), "transformers": theirs} | {
        name: (lambda run=run: run(ids, options.tokens)) for name, run in others.items()
    }
    start = time.perf_counter()
    drawn = {"flaxgen": ours()}
    first = time.perf_counter() - start
    drawn |= {name: run() for name, run in runs.items() if name != "flaxgen"}
    if short := [name for name, token_BN in drawn.items() if token_BN.shape != (batch, options.tokens)]:
        raise RuntimeError(f"{', '.join(short)} drew another number of tokens than {options.tokens}")

    def timed(run):
        def side() -> float:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start

        return side

    seconds = rounds.interleaved({name: timed(run) for name, run in runs.items()}, options.rounds, warm=0)
    rows = []
    for name, values in seconds.items():
        same = float((drawn["flaxgen"] == drawn[name]).mean())
        speed = {"batch": batch, "side": name, "tokens/s": batch * options.tokens / statistics.median(values)}
        # Its seconds over ours: how many times as fast we are.
        rows.append(
            {**speed, **rounds.ratio(seconds, name, "flaxgen"), "same tokens": same, "first call s": first if name == "flaxgen" else None}
        )
    return rows


if __name__ == "__main__":
    main()
