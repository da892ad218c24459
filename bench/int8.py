"""Float32, bfloat16, int8 weights and an int8 cache: bytes, greedy tokens a second of GPT-2 124M, perplexity of the bundled model.

    python -m bench int8 [--size gpt2] [--prompt 64] [--tokens 64] [--batches 1 8] [--rounds 5] [--texts heldout.jsonl]

Weights are random. A token's floor at batch 1 is the weights read once; the bandwidth is measured in the same run, by threads that sum a
large array. Perplexity is a character's, with the cache in use, of the texts in FILE (a field `text` a line) or of what the float32 model
itself writes. --products times single products instead, on kernels that no cache holds: the forms that flaxgen chooses from.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import report
import rounds
import subjects

import flaxgen
from flaxgen import loop, pipelines, sampling, weights
from flaxgen.chains import autoregressive
from flaxgen.models import int8
from flaxgen.nn import blocks, quantized

KINDS = {
    "float32": ("float32", "float"),
    "bfloat16": ("bfloat16", "float"),
    "int8 weights": ("int8", "float"),
    "int8 weights and cache": ("int8", "int8"),
}
KERNELS = ((768, 768), (3072, 768), (768, 3072), (50257, 768))
COLD = 160 << 20  # bytes of float32 kernels in a row, five times the last cache


def bandwidth() -> float:
    """Bytes a second at which as many threads as cores sum 1 GiB of float32, the best of five."""
    parts = np.array_split(np.ones(1 << 28, np.float32), os.cpu_count())
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(np.sum, parts))
            seconds.append(time.perf_counter() - start)
    return (4 << 28) / min(seconds)


def size(params) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def varied(model, params, dtype: str):
    """The model and its parameters in `dtype`, as flaxgen.load(folder, dtype=dtype) gives them on a CPU."""
    if dtype == "int8":
        return model, weights.quantize(params)
    return flaxgen.Transformer(model.config, np.dtype(dtype)), jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def speeds(options) -> list[dict]:
    """A row for each kind: bytes, tokens a second for each batch, and the share of the bandwidth."""
    base, speed = subjects.gpt2(options.size), bandwidth()
    made = {dtype: varied(*base, dtype) for dtype in {dtype for dtype, _ in KINDS.values()}}
    rows = {name: {"kind": name, "weights MB": size(made[dtype][1]) / 1e6} for name, (dtype, _) in KINDS.items()}
    for batch in options.batches:
        ids = np.random.default_rng(batch).integers(0, base[0].config.vocab, (batch, options.prompt))
        given = autoregressive.prompt(ids, np.full(batch, options.prompt), rule=flaxgen.Rule(temperature=0))

        def side(model, params, cache, given=given, count=batch * options.tokens):
            chain = autoregressive.Autoregressive(model, options.tokens, cache=cache)

            def run():
                start = time.perf_counter()
                loop.generate(chain, params, jax.random.key(0), given, steps=options.tokens)
                return count / (time.perf_counter() - start)

            return run

        figures = rounds.interleaved({name: side(*made[dtype], cache) for name, (dtype, cache) in KINDS.items()}, options.rounds)
        for name, row in rows.items():
            row[f"tokens/s at {batch}"] = statistics.median(figures[name])
            row[f"× float32 at {batch}"] = rounds.ratio(figures, name, "float32")["ratio"]
            row[f"of bandwidth at {batch}"] = row[f"tokens/s at {batch}"] / batch * row["weights MB"] * 1e6 / speed
    return list(rows.values())


def texts(options, model, params, text) -> list[list[int]]:
    """Token ids of the texts to score, at most 96 each."""
    if options.texts:
        lines = pathlib.Path(options.texts).read_text(encoding="utf-8").splitlines()
        rows = [[*text.encode(json.loads(line)["text"]), *text.end] for line in lines]
    else:
        written = pipelines.Writer(model, params, text, rule=flaxgen.Rule()).write(["春", "月", "山", "江"], samples=32, tokens=80)
        rows = [text.encode(one.text) for one in itertools.chain(*written)]
    return [row for row in rows if 2 <= len(row) <= 96][: options.scored]


def perplexity(model, params, cache: str, rows: list[list[int]]) -> float:
    """exp of the mean negative log-probability a token, every token read through a cache of this kind."""

    @jax.jit
    def score(params, token_BT, length_B):
        valid_BT = jnp.arange(token_BT.shape[1])[None] < length_B[:, None]
        logit_BTV, _ = model.apply(params, token_BT, valid_BT=valid_BT, caches=(model.cache(*token_BT.shape, cache),))
        log_prob_BT = jax.vmap(sampling.log_probability)(logit_BTV[:, :-1], token_BT[:, 1:])
        return jnp.where(valid_BT[:, 1:], log_prob_BT, 0).sum()

    total = 0.0
    for start in range(0, len(rows), 16):
        token_BT, length_B = np.zeros((16, 96), np.int32), np.zeros(16, np.int32)
        for place, row in enumerate(rows[start : start + 16]):
            token_BT[place, : len(row)], length_B[place] = row, len(row)
        total += float(score(params, token_BT, length_B))
    return float(np.exp(-total / sum(len(row) - 1 for row in rows)))


def products(options) -> list[dict]:
    """Milliseconds of one product, a chain of them on kernels that no cache holds, each waiting for the one before."""
    forms = {
        "float32": lambda x, kernel, scale: blocks.project(x, kernel, jnp.float32),
        "int8, digits": lambda x, kernel, scale: quantized.project(x, kernel, scale, jnp.float32),
        "int8, widened whole": lambda x, kernel, scale: blocks.project(x, kernel.astype(jnp.float32), jnp.float32) * scale[None, None],
        "int8, widened 64 rows at a time": _in_strips,
    }
    rows = []
    for (out, width), batch in itertools.product(KERNELS, options.batches):
        noise = np.random.default_rng(0)
        kernels = [noise.standard_normal((out, width), np.float32) for _ in range(max(COLD // (4 * out * width), 2))]
        coded = [tuple(map(jnp.asarray, int8.code(kernel))) for kernel in kernels]
        x_BTD = jnp.asarray(noise.standard_normal((batch, 1, width)), jnp.float32)

        def side(form, pairs, x_BTD=x_BTD):
            def chain(x_BTD, pairs):
                for kernel, scale in pairs:
                    x_BTD = x_BTD + jnp.minimum(form(x_BTD, kernel, scale)[..., :1] * 0, 0)
                return x_BTD

            compiled = jax.jit(chain)

            def run():
                start = time.perf_counter()
                compiled(x_BTD, pairs).block_until_ready()
                return (time.perf_counter() - start) / len(pairs) * 1e3

            return run

        plain = [(jnp.asarray(kernel), None) for kernel in kernels]
        sides = {name: side(form, plain if name == "float32" else coded) for name, form in forms.items()}
        figures = rounds.interleaved(sides, options.rounds)
        rows.append({"kernel": f"{width} to {out}", "batch": batch} | {f"{n}, ms": statistics.median(ms) for n, ms in figures.items()})
    return rows


def _in_strips(x_BTD, kernel_FD, scale_F):
    strips = len(kernel_FD) // 64
    part = lambda kernel_FD: blocks.einsum("FD,BTD->FBT", kernel_FD.astype(jnp.float32), x_BTD)  # noqa: E731
    y_SFBT = jax.lax.map(part, kernel_FD[: strips * 64].reshape(strips, 64, -1))
    y_FBT = jnp.concatenate([y_SFBT.reshape(strips * 64, *y_SFBT.shape[2:]), part(kernel_FD[strips * 64 :])])
    return (y_FBT * scale_F[:, None, None]).transpose(1, 2, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", metavar="FILE")
    parser.add_argument("--scored", type=int, default=640, help="texts to score at most")
    parser.add_argument("--products", action="store_true", help="time single products instead")
    options = parser.parse_args()
    packages = ["jax", "jaxlib", "flax"]
    if options.products:
        report.finish("int8-products", products(options), packages)
        return
    rows = speeds(options)
    model, params, text = flaxgen.load(pipelines.bundled())
    scored = texts(options, model, params, text)
    for row in rows:
        dtype, cache = KINDS[row["kind"]]
        row["perplexity"] = perplexity(*varied(model, params, dtype), cache, scored)
    facts = {"size": options.size, "prompt": options.prompt, "tokens": options.tokens, "texts": options.texts is not None}
    report.finish("int8", rows, packages, scored=len(scored), **facts)


if __name__ == "__main__":
    main()
