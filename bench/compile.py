"""Seconds to compile what Writer.warm compiles, program by program, with an empty cache and in a second process; --depths: by layers.

python -m bench compile [--size bundled|gpt2] [--batches 1 8] [--lengths 64] [--tokens 128] [--families plain full constrained]
                        [--tables 1] [--exact] [--slots 8]
python -m bench compile --depths 4 12 24 48 [--width 256]        # unrolled and dispatched, the first call of a fresh process
"""

import argparse
import json
import subprocess
import sys
import tempfile

import report

WARM = """
import json, sys, time
import jax
import subjects
import flaxgen
size, settings, cache = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
writer = flaxgen.Writer(*(() if size == "bundled" else (*subjects.gpt2(size), subjects.text())))
start = time.perf_counter()
seconds = writer.warm(**settings)
print(json.dumps(seconds | {"all": time.perf_counter() - start}))
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


def child(code: str, *words: str):
    """What a fresh process that runs `code` prints last."""
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}", *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def warm(size: str, settings: dict) -> list[dict]:
    """A row a program, with its short run, and all of them last."""
    with tempfile.TemporaryDirectory() as cache:
        cold, kept = (child(WARM, size, json.dumps(settings), cache) for _ in range(2))
    return [{"program": name, "empty cache s": seconds, "second process s": kept[name]} for name, seconds in cold.items()]


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
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--lengths", type=int, nargs="+", default=[64])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128])
    parser.add_argument("--families", nargs="+", default=["plain", "full", "constrained"])
    parser.add_argument("--tables", type=int, default=1)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--slots", type=int, default=None)
    parser.add_argument("--depths", type=int, nargs="*", help="compare depths instead")
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    packages = ["jax", "jaxlib", "flax"]
    if options.depths is not None:
        report.finish("compile", depths(options.depths or [4, 12, 24, 48], options.width), packages, width=options.width)
        return
    settings = {name: getattr(options, name) for name in ("batches", "lengths", "tokens", "families", "tables", "exact", "slots")}
    report.finish(f"warm-{options.size}", warm(options.size, settings), packages, size=options.size, **settings)


if __name__ == "__main__":
    main()
