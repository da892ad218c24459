"""The bundled model's folder: weights, scores, curve and card, from one run."""

import datetime
import json
import os
import pathlib
import platform
import tempfile

import numpy as np

from train import language, run, score

CARD = """# poetry: a small GPT2_ML model of Chinese verse

It came with flaxgen to be there from the first minute: `flaxgen write 床前明月光`, or `flaxgen.Writer()` in Python. It writes lines that
scan; what they mean is another matter.

- **Architecture**: GPT2_ML (wiring `between`, erf gelu), {layers} layers of width {width}, {heads} heads, {positions} positions,
  {vocab:,} tokens (characters, signs and letters), {parameters:,} parameters, stored in bfloat16.
- **Prompts**: a line of verse (`床前明月光`), a title (`《春江花月夜》`), or a form and a title (`七绝《秋思》`).
  The forms are 五绝 七绝 五律 七律 五言 七言 词 曲. Half of the poems it learnt from began with their first line.
  Titles stand in 《》, there are no line breaks, and a poem ends with the token [SEP].
- **Data**: {source}, (c) 2016 JackeyGao. Traditional characters converted to Simplified with OpenCC;
  {train:,} poems of at most 112 characters to learn from ({tokens_epoch:,} tokens), {dev:,} to tune the trigram, {heldout:,} held out,
  none of which shares two lines with a poem learnt from. Made by `npm pack chinese-poetry@2.0.1` and
  `python -m train prepare-poetry package runs/verse` (seed {data_seed}).
- **Training**: `python -m train poetry {command}`:
  {steps:,} updates of {batch} rows of {positions} tokens, {tokens:,} tokens in all ({epochs:.2f} epochs), AdamW, seed {seed},
  {minutes:.0f} minutes of wall time on {machine}, shared with other work. jax {jax}, {date}.{planned}
- **Licence**: the poems are in the public domain, their collection is under the MIT licence, the weights under flaxgen's Apache-2.0.

![loss and held-out perplexity over the updates](curve.png)

## Scores

{scores}
The first two rows count every character after the first of {held_out_texts:,} held-out texts ({held_out_tokens:,}, stops and ends
included). The trigram is interpolated with weights by EM (`flaxgen/measure/trigram.py`). For the others the model continued the first lines
of {poems_written} held-out poems at temperature {temperature} and top-p {top_p}; the last column says the same of the poets' own poems. The
numbers are in scores.json, and `python -m train publish-poetry` makes this folder.

## What it writes

Temperature {temperature}, top-p {top_p}, seeds 0, 1, 2, nothing picked:

{samples}"""


def publish(folder: pathlib.Path, verses: pathlib.Path, target: pathlib.Path, *, force: bool = False) -> dict:
    """Exports the run in `folder`, scores what was exported on `verses`, and writes `target` with card, curve and scores."""
    with tempfile.TemporaryDirectory() as work:
        run.export(folder, pathlib.Path(work) / "model")
        scores = score.score(pathlib.Path(work) / "model", verses)
        exported = json.loads((pathlib.Path(work) / "model" / "config.json").read_text(encoding="utf-8"))
    facts = json.loads((verses / "facts.json").read_text(encoding="utf-8"))
    run.export(folder, target, readme=text(exported, facts, scores, language.epoch_tokens(folder)), force=force)
    (target / "scores.json").write_text(json.dumps(scores, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    curve(folder / "log.jsonl", target / "curve.png")
    return scores


def text(exported: dict, facts: dict, scores: dict, tokens_epoch: int) -> str:
    """The card: config.json of the export, facts.json of the data, scores."""
    source, sizes = exported["source"], exported["config"]
    settings, counts, plans = source["settings"], facts["counts"], [start["steps"] for start in source["starts"]]
    changed = [(start["step"], start["steps"]) for start, old in zip(source["starts"][1:], plans, strict=False) if start["steps"] != old]
    listed = "".join(f", from update {step:,} on for {steps:,}" for step, steps in changed)
    planned = f"\n  The cosine was planned for {plans[0]:,} updates{listed}." if changed else ""
    return CARD.format(
        **{key: sizes[key] for key in ("layers", "width", "heads", "positions", "vocab")},
        **{key: scores[key] for key in ("held_out_texts", "held_out_tokens", "poems_written")},
        **{key: counts[key] for key in ("train", "dev", "heldout")},
        **scores["rule"],
        steps=source["step"],
        tokens=source["tokens"],
        parameters=parameters(sizes),
        source=facts["source"],
        data_seed=facts["seed"],
        tokens_epoch=tokens_epoch,
        epochs=source["tokens"] / tokens_epoch,
        command=f"steps={source['step']} rate={settings['rate']} data=runs/verse/train.jsonl dev=runs/verse/dev.jsonl",
        batch=settings["batch"],
        seed=settings["seed"],
        minutes=source["seconds"] / 60,
        machine=machine(),
        jax=source["starts"][-1]["jax"],
        date=datetime.date.today().isoformat(),
        planned=planned,
        scores=score.describe(scores),
        samples="".join(f"- {line}\n" for several in scores["samples"].values() for line in several),
    )


def parameters(sizes: dict) -> int:
    from flaxgen.models import config

    return sum(int(np.prod(shape)) for shape in config.shapes(config.Config(**sizes)).values())


def machine() -> str:
    """Cores and model of this machine's processor."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores ({names[0] if names else platform.machine()})"


def curve(log: pathlib.Path, target: pathlib.Path, *, held_out: str = "poems not learnt from") -> None:
    """Loss and held-out perplexity over the updates, as a PNG."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError("the curve needs matplotlib: pip install 'flaxgen[poetry]'") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    loss = np.asarray([(line["step"], line["loss"]) for line in lines if "loss" in line])
    dev = np.asarray([(line["step"], np.log(line["dev_perplexity"])) for line in lines if "dev_perplexity" in line])
    window = max(1, len(loss) // 30)
    smooth = np.convolve(loss[:, 1], np.ones(window) / window, mode="valid")
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(loss[:, 0], loss[:, 1], color="#c9d6e4", linewidth=0.8, label="batch")
    axes.plot(loss[window - 1 :, 0], smooth, color="#2a5d8f", linewidth=1.6, label=f"batch, mean of {window}")
    if len(dev):
        axes.plot(dev[:, 0], dev[:, 1], "o-", color="#b5442d", markersize=3.5, linewidth=1.2, label=held_out)
    ticks = [40, 60, 100, 200, 400, 1000, 3000]
    right = axes.secondary_yaxis("right", functions=(np.exp, lambda value: np.log(np.maximum(value, 1e-9))))
    right.set_yticks(ticks, [str(tick) for tick in ticks])
    right.set_ylabel("perplexity a character")
    axes.set_xlabel("updates")
    axes.set_ylabel("nats a character")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
