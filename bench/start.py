"""Seconds from the shell to help, to the first text of the bundled model and to its end, with an empty and a filled compilation cache.

python bench/start.py [--rounds 3]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import report

PROMPT = "今天天气不错"
WRITE = ("write", PROMPT, "--tokens", "48")


def run(cache: str, *words: str) -> tuple[float, float]:
    """Seconds to the first byte after the prompt, and to the end of the process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | {"XDG_CACHE_HOME": cache}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "flaxgen.cli", *words], stdout=subprocess.PIPE, env=environment)
    process.stdout.read(len(PROMPT.encode()) + 1)
    first = time.perf_counter() - start
    process.stdout.read()
    process.wait()
    return first, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[str, list[tuple[float, float]]] = {"help": [], "write, empty cache": [], "write, filled cache": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            seconds["help"].append(run(cache, "--help"))
            seconds["write, empty cache"].append(run(cache, *WRITE))
            seconds["write, filled cache"].append(run(cache, *WRITE))
    rows = []
    for name, runs in seconds.items():
        first, whole = (statistics.median(column) for column in zip(*runs, strict=True))
        rows.append({"command": name, "first text s": first, "whole s": whole})
    report.finish("start", rows, ["jax", "jaxlib", "flax", "tyro"])


if __name__ == "__main__":
    main()
