"""Greedy decoding of GPT-2 in float32 against transformers with torch: the same weights and prompts, interleaved rounds, medians.

    python bench/decode.py [--size gpt2] [--prompt 64] [--tokens 128] [--batches 1 8] [--rounds 5]

Needs torch and transformers. Weights are random, made by transformers and brought over by `python -m convert`. The floor of a token at
batch 1 is the parameters read once: bytes / bandwidth. The bandwidth is measured in the same run by summing a large array.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import report
import torch
import transformers

import flaxgen
from flaxgen import loop
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
    speed = bandwidth()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    rows = [measure(peer, model, params, batch, options) for batch in options.batches]
    for row in rows:
        row["share of bandwidth"] = row["flaxgen tokens/s"] / row["batch"] * size / speed
    print(
        f"{options.size}, prompt {options.prompt} + {options.tokens} tokens, float32, {speed / 1e9:.1f} GB/s, {size / 1e6:.0f} MB weights"
    )
    report.finish(
        "decode", rows, ["jax", "jaxlib", "flax", "torch", "transformers"], size=options.size, bytes_per_second=speed, layers=options.layers
    )


def measure(peer, model, params, batch: int, options) -> dict:
    """Medians of interleaved rounds, after a warm-up in which both must give the same tokens."""
    ids = np.random.default_rng(batch).integers(0, model.config.vocab, (batch, options.prompt))
    chain = autoregressive.Autoregressive(model, options.tokens, options.layers)
    given = autoregressive.prompt(ids, np.full(batch, options.prompt), rule=flaxgen.Rule(temperature=0))

    def ours():
        return loop.generate(chain, params, jax.random.key(0), given, steps=options.tokens).token_BN

    def theirs():
        settings = {"max_new_tokens": options.tokens, "min_new_tokens": options.tokens, "do_sample": False, "pad_token_id": 0}
        with torch.inference_mode():
            whole = peer.generate(torch.from_numpy(ids), attention_mask=torch.ones_like(torch.from_numpy(ids)), **settings)
        return whole[:, options.prompt :].numpy()

    start = time.perf_counter()
    same = float((ours() == theirs()).mean())
    first = time.perf_counter() - start
    seconds = {"flaxgen": [], "transformers": []}
    for _ in range(options.rounds):
        for name, run in (("flaxgen", ours), ("transformers", theirs)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    ratios = [theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    count = batch * options.tokens
    return {
        "batch": batch,
        "flaxgen tokens/s": count / medians["flaxgen"],
        "transformers tokens/s": count / medians["transformers"],
        "ratio": statistics.median(ratios),
        "ratio from": min(ratios),
        "ratio to": max(ratios),
        "same tokens": same,
        "first call s": first,
    }


if __name__ == "__main__":
    main()
