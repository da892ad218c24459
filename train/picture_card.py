"""The folder of a model of images that comes with flaxgen: weights, scores, curve, samples and card, from one run."""

import datetime
import json
import math
import pathlib
import tempfile
from typing import Any, Literal

import jax
import numpy as np

from flaxgen import features, gallery, painter, weights
from flaxgen.tasks import likelihood
from train import card, images, plot, run

COUNT = 1000  # images that are painted and compared
SHOWN = 40  # of them that samples.png shows
ROWS = 50  # of a batch

CARD = """# {title}

It came with flaxgen to be there from the first minute: {call}

- **Architecture**: {architecture}; {parameters:,} parameters, stored in {dtype}; images of {size} × {size} pixels, {channels} channel(s).
- **Data**: {data}, {train:,} images to learn from, {held_out:,} held out.
- **Training**: `python -m train {recipe} {command}`:
  {steps:,} updates of {batch} images, {images:,} in all, {optimizer}, seed {seed}, {minutes:.0f} minutes of wall time on {machine}, shared
  with other work. jax {jax}, {date}.
- **Licence**: flaxgen's Apache-2.0; Fashion-MNIST (Xiao et al. 2017) is under the MIT licence.

![curves of the training](curve.png)

## Samples

{drawn}

![samples](samples.png)

## Scores

{scores}
`python -m train {command_name}` makes this folder; the numbers are in scores.json.
"""
TITLES = {"energy": "energy: pictures of clothes by Langevin dynamics", "flow": "flow: a density of pictures of clothes"}
CALLS = {
    "energy": "`flaxgen paint`, or `flaxgen.Painter()` in Python.",
    "flow": '`flaxgen paint --flow`, or `flaxgen.Painter.load(flaxgen.painter.bundled("flow"))` in Python.',
}
UNTOLD = {"data", "dev", "every", "look", "keep", "note", "shown", "features", "names", "drawn", "temperature", "steps", "seed"}


def publish(
    kind: Literal["energy", "flow"],
    folder: pathlib.Path,
    data: str,
    target: pathlib.Path,
    *,
    step: int | Literal["best"] | None = None,
    force: bool = False,
) -> dict:
    """Exports the run in `folder`, scores what was exported on the images of `data`, and writes `target` with card, curve and samples."""
    settings = run.of_card(run.read_card(folder))
    if settings.kind != kind:
        raise ValueError(f"{folder} holds a run of the kind {settings.kind}; publish-{kind} wants one of the kind {kind}")
    learnt, held_out = (images.build(data, part, labels=labels(settings), pad=settings.pad) for part in ("train", "test"))
    with tempfile.TemporaryDirectory() as work:
        run.export(folder, pathlib.Path(work) / "model", step=step)
        model = painter.Painter.load(pathlib.Path(work) / "model")
        exported = weights.describe(pathlib.Path(work) / "model")
    drawn_NYXC = model(min(COUNT, len(held_out)), seed=0)
    scores = score(kind, model, drawn_NYXC, learnt, held_out)
    run.export(folder, target, step=step, readme=text(kind, exported, scores), force=force)
    (target / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    gallery.save(gallery.grid(drawn_NYXC[:SHOWN], columns=10), target / "samples.png")
    plot.draw([folder], target / "curve.png")
    return scores


def labels(settings) -> Literal["unused", "classes"]:
    return "classes" if getattr(settings, "condition", "none") == "class" else "unused"


def score(kind: str, model: Any, drawn_NYXC: np.ndarray, learnt: images.Images, held_out: images.Images) -> dict:
    """How probable images are to the model, and how far its samples are from held-out images in the features of a classifier."""
    count = len(drawn_NYXC)
    scores = {"train": len(learnt), "held_out": len(held_out), "samples": count, "means": {}, "distances": {}}
    noise_NYXC = np.random.default_rng(0).integers(0, 256, drawn_NYXC.shape, np.uint8)
    told = (("images learnt from", learnt), ("held-out images", held_out))
    sides = {name: (part.image_NYXC[:count], None if part.label_N is None else part.label_N[:count]) for name, part in told}
    for name, (image_NYXC, label_N) in (sides | {"uniform noise": (noise_NYXC, None)}).items():
        scores["means"][name] = round(float(mean(kind, model, image_NYXC, label_N)), 4)
    measured = features.bundled()
    sizes = measured.model.config
    if drawn_NYXC.shape[1:] != (sizes.size, sizes.size, sizes.channels):  # which the bundled classifier does not read
        return scores
    reference = features.gaussian(measured, held_out.image_NYXC[:count])
    for name, image_NYXC in {
        "images learnt from": sides["images learnt from"][0],
        "samples": drawn_NYXC,
        "uniform noise": noise_NYXC,
    }.items():
        found = features.compare(measured, image_NYXC, reference)
        scores["distances"][name] = {measured.distance: round(found[measured.distance], 3), measured.score: round(found[measured.score], 3)}
    return scores


def mean(kind: str, model: Any, image_NYXC: np.ndarray, label_N: np.ndarray | None) -> float:
    """The mean energy of images, with their labels where they have some; of a flow their bits per dimension, with noise in their levels."""
    if kind == "energy":
        return model.energy(image_NYXC, label=None if label_N is None else label_N.tolist()).mean()
    task = likelihood.Likelihood(model.model)
    bits = jax.jit(lambda params, key, batch: (task.bits(params, key, batch) * batch["weight_B"]).sum())
    parts = images.Images(image_NYXC, None, "").parts(ROWS, len(image_NYXC))
    return sum(float(bits(model.params, jax.random.key(0), batch)) for batch in parts) / len(image_NYXC)


def text(kind: str, exported: dict, scores: dict) -> str:
    """The card: config.json of the export, scores."""
    source, sizes, said = exported["source"], exported["config"], exported["sampling"]
    settings = source["settings"]
    plain = run.recipes.RECIPES[source["recipe"]]()
    told = [f"{name}={quoted(value)}" for name, value in settings.items() if name not in UNTOLD and value != getattr(plain, name)]
    way = f"a temperature of {said['temperature']:g}"
    if kind == "energy":
        numbers = f"step {said['step']:g}, noise {said['noise']:g}, slopes up to {said['clip']:g}"
        way = f"chains of {said['moves']} moves from uniform noise ({numbers})"
    return CARD.format(
        title=TITLES[kind],
        call=CALLS[kind],
        architecture=architecture(kind, settings),
        parameters=sum(map(math.prod, sizes.shapes().values())),
        dtype="bfloat16" if kind == "energy" else "float32",
        size=sizes.size,
        channels=sizes.channels,
        data=settings["data"],
        recipe=source["recipe"],
        command=" ".join([f"steps={settings['steps']}", *told]),
        steps=source["step"],
        images=source["images"],
        minutes=source["seconds"] / 60,
        machine=card.machine(),
        jax=source["starts"][-1]["jax"],
        date=datetime.date.today().isoformat(),
        drawn=f"By {way}, seed 0, nothing picked" + (f"; the columns are {', '.join(said['classes'])}." if said["classes"] else "."),
        scores=describe(kind, scores),
        command_name=f"publish-{kind}",
        **{name: settings[name] for name in ("batch", "optimizer", "seed")},
        **{name: scores[name] for name in ("train", "held_out")},
    )


def quoted(value: Any) -> str:
    return f"'{value}'" if " " in str(value) else str(value)


def architecture(kind: str, s: dict) -> str:
    if kind == "flow":
        return f"levels of {s['flows']} steps, couplings {s['coupling']}, {s['blocks']} residual blocks of width {s['hidden']}"
    if s["network"] != "own":
        return f"the residual network {s['network']} of the paper"
    blocks = f"a stem of {s['stem']} filters, blocks of {s['filters']} (a minus: halved after it)"
    return f"a residual network ({blocks}), squares of {s['squeeze']} pixels as one"


def describe(kind: str, scores: dict) -> str:
    """The scores as Markdown tables."""
    what = "mean energy" if kind == "energy" else "bits per dimension"
    lines = [
        f"| of {scores['samples']:,} each | {what} |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in scores["means"].items()),
    ]
    if scores["distances"]:
        columns = list(next(iter(scores["distances"].values())))
        lines += ["", f"| against {scores['samples']:,} held-out images | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        lines += [f"| {name} | {' | '.join(f'{value:.2f}' for value in found.values())} |" for name, found in scores["distances"].items()]
    return "\n".join(lines) + "\n"
