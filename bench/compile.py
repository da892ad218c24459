"""Seconds to compile decoding and the first call of a fresh process: unrolled and dispatched, several depths, with and without the cache.

python bench/compile.py [--depths 4 12 24 48] [--width 256]
"""

import argparse
import json
import subprocess
import sys
import tempfile

import report

CHILD = """
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
print(json.dumps([first, time.perf_counter() - start]))
"""


def first_call(depth: int, width: int, layers: str, cache: str) -> float:
    """Seconds of the first call less those of the second."""
    command = [sys.executable, "-c", CHILD, str(depth), str(width), layers, cache]
    first, second = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return first - second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 12, 24, 48])
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    rows = []
    for depth in options.depths:
        for layers in ("unrolled", "dispatched"):
            with tempfile.TemporaryDirectory() as cache:
                seconds = [first_call(depth, options.width, layers, kept) for kept in ("none", cache, cache)]
            rows.append({"layers": depth, "loop": layers, "compile s": seconds[0], "from the cache s": seconds[2]})
    report.finish("compile", rows, ["jax", "jaxlib", "flax"], width=options.width)


if __name__ == "__main__":
    main()
