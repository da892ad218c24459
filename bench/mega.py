"""GPT2_ML at its full 1.37 B parameters, random weights in bfloat16 on disk: load it on a CPU and continue 32 tokens.

    python bench/mega.py [--preset gpt2-ml-mega] [--tokens 32] [--folder SCRATCH]

Prints seconds to load, to the first token and a token after it, and the peak resident memory of a fresh process that does just that.
"""

import argparse
import dataclasses
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import ml_dtypes
import numpy as np
import report

from flaxgen import tensors
from flaxgen.models import config as sizes
from flaxgen.models import presets

PROMPT = 16


def fabricate(preset: str, folder: pathlib.Path) -> None:
    """A flaxgen folder of random weights, one tensor in memory at a time."""
    config = presets.PRESETS[preset]
    card = {
        "format": "flaxgen-1",
        "architecture": "transformer",
        "config": dataclasses.asdict(config),
        "text": None,
        "end": None,
        "source": None,
    }
    (folder / "config.json").write_text(json.dumps(card))
    wanted = [(name, np.dtype(ml_dtypes.bfloat16), shape) for name, shape in sizes.shapes(config).items()]
    noise = np.random.default_rng(0)

    def arrays():
        for name, dtype, shape in wanted:
            yield (noise.standard_normal(shape, np.float32) * 0.014 + name.endswith("scale")).astype(dtype)

    tensors.write(folder / "model.safetensors", wanted, arrays(), {"format": "flaxgen-1"})


def child(folder: str, tokens: int) -> dict:
    """What the fresh process does; jax is imported here."""
    import jax

    import flaxgen
    from flaxgen import loop
    from flaxgen.chains import autoregressive

    start = time.perf_counter()
    model, params, _ = flaxgen.load(folder)
    jax.block_until_ready(params)
    loaded = time.perf_counter()
    chain = autoregressive.Autoregressive(model, tokens, "dispatched")
    ids = np.random.default_rng(0).integers(1, model.config.vocab, (1, PROMPT))
    given = autoregressive.prompt(ids, np.array([PROMPT]), rule=flaxgen.Rule(top_p=0.95))
    moments = [time.perf_counter() for _ in loop.stream(chain, params, jax.random.key(0), given, steps=tokens)]
    return {
        "load s": loaded - start,
        "first token s": moments[0] - loaded,
        "tokens/s after": (tokens - 2) / (moments[-1] - moments[1]),
        "tokens": len(moments),
        "peak resident GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gpt2-ml-mega", choices=presets.PRESETS)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.tokens)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        fabricate(options.preset, pathlib.Path(folder))
        command = [sys.executable, __file__, "--child", folder, "--tokens", str(options.tokens)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    report.finish("mega", [json.loads(done.stdout.splitlines()[-1])], ["jax", "jaxlib", "flax"], preset=options.preset)


if __name__ == "__main__":
    main()
