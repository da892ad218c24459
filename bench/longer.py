"""Perplexity by place in texts longer than the context, read hierarchically and sliding: where does a model break?

    python -m bench longer TEXTS.jsonl [--model FOLDER] [--tokens 768] [--rows 120] [--png longer.png]

TEXTS.jsonl holds texts in a field `text`; they are put one after the other and cut into rows of --tokens. No speed is measured here.
"""

import argparse
import json
import pathlib

import report

from flaxgen import longer, pipelines
from flaxgen.measure import by_position


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default=None, help="a flaxgen folder; by default the bundled model")
    parser.add_argument("--tokens", type=int, default=768)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--png", type=pathlib.Path, default=report.RESULTS / "longer.png")
    options = parser.parse_args()
    writer = pipelines.Writer.load(options.model or pipelines.bundled())
    lines = options.texts.read_text(encoding="utf-8").splitlines()
    ids = [token for line in lines for token in (*writer.text.encode(json.loads(line)["text"]), *writer.text.end[:1])]
    rows = [ids[start : start + options.tokens] for start in range(0, len(ids) - options.tokens + 1, options.tokens)][: options.rows]
    if not rows:
        raise SystemExit(f"{options.texts} has {len(ids)} tokens, fewer than a row of {options.tokens}; give more text or fewer --tokens")
    curves = longer.curves(writer.model, writer.params, rows)
    trained = writer.model.config.positions
    by_position.draw(curves, options.png, trained=trained)
    print(f"{len(rows)} rows of {options.tokens} tokens; the model has {trained} positions; wrote {options.png}")
    print(by_position.table(curves) + "\n")
    table = [
        {
            "way": way,
            "nats within": float(curve.nats_E[:4].mean()),
            "nats beyond": float(curve.nats_E[4:].mean()),
        }
        for way, curve in curves.items()
    ]
    nats = {way: curve.nats_E.tolist() for way, curve in curves.items()}
    report.finish("longer", table, ["jax", "jaxlib", "flax"], rows_read=len(rows), trained=trained, nats=nats)


if __name__ == "__main__":
    main()
