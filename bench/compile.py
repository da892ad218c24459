"""Seconds to compile what Writer.warm compiles, program by program, with an empty cache and in a second process; --depths: by layers.

python -m bench compile [--size bundled|gpt2] [--prompt-tokens 64] [--tokens 128]
python -m bench compile --depths 4 12 24 48 [--width 256]        # unrolled and dispatched, the first call of a fresh process
"""

import argparse
import json
import subprocess
import sys
import tempfile

import report

WARM = """
import collections, json, sys, time
import jax
import subjects
import flaxgen
size, settings, cache = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
programs = collections.defaultdict(lambda: [0, 0.0])

def heard(event, seconds, fun_name="", **_):
    if event.startswith("/jax/core/compile/"):
        entry = programs[fun_name.removeprefix("jit(").removesuffix(")")]
        entry[0] += event.endswith("backend_compile_duration")
        entry[1] += seconds

writer = flaxgen.Writer(*(() if size == "bundled" else (*subjects.gpt2(size), subjects.text())))
jax.monitoring.register_event_duration_secs_listener(heard)
start = time.perf_counter()
writer.warm(**settings)
whole = time.perf_counter() - start
# What was only traced, inside another, is counted there.
print(json.dumps({"whole": whole, "programs": {name: entry for name, entry in programs.items() if entry[0]}}))
"""

DEPTH = """
import json, sys, time
import jax, numpy as np
import flaxgen
from flaxgen import loop, weights
from flaxgen.chains import autoregressive
from flaxgen.models import config as sizes
depth, width, layers, cache = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if cache != "none":
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
config = sizes.Config(8021, 256, width, depth, width // 64, 4 * width, "between", "gelu")
params = weights.nest({name: np.full(shape, 0.01, np.float32) for name, shape in sizes.shapes(config).items()})
chain = autoregressive.Autoregressive(flaxgen.Transformer(config), 64, layers)
given = autoregressive.prompt(np.ones((1, 16)), np.array([9]))
start = time.perf_counter()
loop.generate(chain, params, jax.random.key(0), given, steps=2)
first = time.perf_counter() - start
start = time.perf_counter()
loop.generate(chain, params, jax.random.key(0), given, steps=2)
print(json.dumps(first - time.perf_counter() + start))
"""
SMALL = 0.1  # seconds; programs that take less are put together


def child(code: str, *words: str):
    """What a fresh process that runs `code` prints last."""
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}", *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def warm(size: str, settings: dict) -> list[dict]:
    """A row a program, the whole of `warm` last; tracing, lowering and compiling together, and the whole with its short runs."""
    with tempfile.TemporaryDirectory() as cache:
        cold, kept = (child(WARM, size, json.dumps(settings), cache) for _ in range(2))
    rows, few = [], {"program": "smaller ones", "count": 0, "empty cache s": 0.0, "second process s": 0.0}
    for name, (count, seconds) in sorted(cold["programs"].items(), key=lambda item: -item[1][1]):
        row = {"program": name, "count": count, "empty cache s": seconds, "second process s": kept["programs"].get(name, (0, 0.0))[1]}
        if seconds >= SMALL:
            rows.append(row)
        else:
            few = {key: value if key == "program" else value + row[key] for key, value in few.items()}
    whole = {"program": "warm", "count": sum(row["count"] for row in [*rows, few])}
    return [*rows, few, whole | {"empty cache s": cold["whole"], "second process s": kept["whole"]}]


def depths(depths: list[int], width: int) -> list[dict]:
    rows = []
    for depth in depths:
        for layers in ("unrolled", "dispatched"):
            with tempfile.TemporaryDirectory() as cache:
                seconds = [child(DEPTH, str(depth), str(width), layers, kept) for kept in ("none", cache, cache)]
            rows.append({"layers": depth, "loop": layers, "compile s": seconds[0], "from the cache s": seconds[2]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="bundled")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--depths", type=int, nargs="*", help="compare depths instead")
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    packages = ["jax", "jaxlib", "flax"]
    if options.depths is not None:
        report.finish("compile", depths(options.depths or [4, 12, 24, 48], options.width), packages, width=options.width)
        return
    settings = {"prompt_tokens": options.prompt_tokens, "tokens": options.tokens}
    report.finish(f"warm-{options.size}", warm(options.size, settings), packages, size=options.size, **settings)


if __name__ == "__main__":
    main()
