"""Converts a full-size GPT2_ML, fabricated to the index of the released one, and back: time against a plain copy, peak memory, bits.

    python bench/convert.py INDEX [--folder SCRATCH] [--rounds 5] [--layers 48]

INDEX is the released model.ckpt-100000.index (tests/golden/gpt2_ml_real_index holds it). Needs about 17 GB under SCRATCH at full size.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import google_crc32c
import numpy as np
import report

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from convert.bundle import messages, sorted_table  # noqa: E402
from convert.bundle import read as bundle  # noqa: E402

RESULT = ROOT / "bench" / "results" / "convert.json"
PIECE = 1 << 22


def fabricate(index: pathlib.Path, folder: pathlib.Path, layers: int) -> pathlib.Path:
    """A bundle with the names, shapes and order of `index`, its first `layers` layers; random float32 between 2^-8 and 2."""
    random = np.random.default_rng(0)
    prefix = folder / index.name.removesuffix(".index")
    items, offset = dict(sorted_table.items(index.read_bytes())), 0
    with open(prefix.with_name(prefix.name + ".data-00000-of-00001"), "wb") as data:
        for key, value in items.items():
            layer = re.search(rb"/layer(\d\d)/", key)
            record = messages.record(value) if key else None
            if record is None or (layer and int(layer[1]) >= layers):
                continue
            crc = 0
            for start in range(0, record.size, PIECE):
                piece = _numbers(random, min(PIECE, record.size - start))
                crc = google_crc32c.extend(crc, piece)
                data.write(piece)
            items[key] = messages.pack_record(messages.DTYPES[record.dtype], record.shape, offset, record.size, sorted_table.masked(crc))
            offset += record.size
        data.flush()
        os.fsync(data.fileno())
    kept = {key: value for key, value in items.items() if not (m := re.search(rb"/layer(\d\d)/", key)) or int(m[1]) < layers}
    prefix.with_name(prefix.name + ".index").write_bytes(sorted_table.table(kept.items()))
    shapes = bundle.index(prefix)
    word = shapes["newslm/embeddings/word_embed"].shape
    card = {"vocab_size": word[0], "hidden_size": word[1], "hidden_act": "gelu", "num_hidden_layers": layers, "num_attention_heads": 24,
            "intermediate_size": 4 * word[1], "max_position_embeddings": 1024}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(card))
    return prefix


def _numbers(random: np.random.Generator, size: int) -> bytes:
    bits = random.integers(0, 1 << 32, size=-(-size // 4), dtype=np.uint32)
    exponent = (bits >> 23 & 7) + 120
    return (bits & 0x807FFFFF | exponent.astype(np.uint32) << 23).tobytes()[:size]


def copy(source: pathlib.Path, target: pathlib.Path) -> float:
    """Seconds that `cp` and an fsync take."""
    start = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    with open(target, "rb") as file:
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


CHILD = """
import json, sys, time
from convert import command, describe, formats, matching, plan, source, target
import flaxgen.text
from rich import console, progress
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
before, start = status("VmRSS"), time.perf_counter()
code = command.main(sys.argv[1:])
print(json.dumps({"code": code, "seconds": time.perf_counter() - start, "over_imports": status("VmHWM") - before}))
"""


def converted(*arguments) -> dict:
    """The program's own report: seconds after its imports, and its peak resident memory over that after imports."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True, text=True)
    report = json.loads(done.stdout.splitlines()[-1])
    if report["code"]:
        raise SystemExit(done.stderr)
    return report | {"process": time.perf_counter() - start}


def differing(one: pathlib.Path, other: pathlib.Path) -> tuple[int, int]:
    """How many tensors of `other` there are, and how many of them are not bitwise those of `one`."""
    source, back = bundle.index(one), bundle.index(other)
    wrong = 0
    for name, variable in back.items():
        pairs = zip(bundle.chunks(source[name]), bundle.chunks(variable), strict=True)
        same = source[name].shape == variable.shape and source[name].dtype == variable.dtype
        wrong += not (same and all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in pairs))
    return len(back), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="convert-", dir=options.folder))
    try:
        measured = measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured, indent=1) + "\n")


def measure(options, folder: pathlib.Path) -> dict:
    (folder / "source").mkdir()
    prefix = fabricate(options.index, folder / "source", options.layers)
    data = prefix.with_name(prefix.name + ".data-00000-of-00001")
    copies, forth = [], []
    for _ in range(options.rounds):
        copies.append(copy(data, folder / "copy"))
        shutil.rmtree(folder / "flaxgen", ignore_errors=True)  # beside the clock, as the copy's is
        forth.append(converted(prefix, folder / "flaxgen"))
    halved = [converted(prefix, folder / "half", "--dtype", "bfloat16")]
    shutil.rmtree(folder / "half")
    back = [converted(folder / "flaxgen", folder / "back", "--to", "gpt2-ml")]
    tensors, wrong = differing(prefix, folder / "back" / "model.ckpt")
    plain = statistics.median(copies)
    rows = {"copy and fsync": {"seconds": plain, "all": copies}}
    kinds = {"bundle to flaxgen, float32": forth, "bundle to flaxgen, bfloat16": halved, "flaxgen to bundle, float32": back}
    for name, runs in kinds.items():
        seconds = [run["process"] for run in runs]
        rows[name] = {"seconds": statistics.median(seconds), "times_copy": statistics.median(seconds) / plain, "all": seconds,
                      "peak_over_imports_MB": max(run["over_imports"] for run in runs) / 1e6}  # fmt: skip
    print(f"{data.stat().st_size:,} bytes, {options.rounds} interleaved rounds, medians; seconds are of the whole process")
    print(f"{'':30}{'seconds':>9}{'× copy':>9}{'peak MB over imports':>23}")
    for name, row in rows.items():
        print(f"{name:30}{row['seconds']:9.1f}{row.get('times_copy', 1):9.2f}{row.get('peak_over_imports_MB', 0):23.0f}")
    print(f"the way back: {tensors} tensors, {wrong} differ in a bit")
    return {
        "bytes": data.stat().st_size,
        "layers": options.layers,
        "rows": rows,
        "back": {"tensors": tensors, "differing": wrong},
        "machine": report.machine(),
        "versions": report.versions(["numpy", "google-crc32c", "ml_dtypes"]),
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
