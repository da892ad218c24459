"""The folder of the classifier that comes with flaxgen: weights, scores and card, from one run."""

import datetime
import json
import math
import pathlib
import tempfile

import jax
import numpy as np

from flaxgen import features, weights
from flaxgen.models import classifier_config
from flaxgen.tasks import classification
from train import card, images, run

CARD = """# features: a small classifier, for numbers about pictures

It came with flaxgen to measure samples where no Inception weights are at hand: `flaxgen.features.bundled()`. What is computed with it is
called classifier distance and classifier score, never FID or Inception score; its numbers compare with each other alone.

- **Architecture**: {layers} convolutions of three by three ({filters} filters; a minus: halved after it), a mean over the image
  ({features} features), a softmax of {classes} classes; {parameters:,} parameters, stored in bfloat16; {size} by {size} pixels.
- **Data**: Fashion-MNIST (Xiao et al. 2017, MIT licence), {train:,} images to learn from, {held_out:,} held out. Debian has it as
  the package dataset-fashion-mnist.
- **Training**: `python -m train classifier {command}`:
  {steps:,} updates of {batch} images, Adam, seed {seed}, {minutes:.0f} minutes of wall time on {machine}, shared with
  other work. jax {jax}, {date}.
- **Licence**: flaxgen's Apache-2.0.

## Scores

Accuracy on the held-out images: {accuracy:.1%}.

| {count:,} images against {count:,} learnt from | classifier distance | classifier score |
|---|---|---|
{rows}
`python -m train publish-features` makes this folder; the numbers are in scores.json.
"""


def publish(folder: pathlib.Path, data: str, target: pathlib.Path, *, force: bool) -> dict:
    """Exports the run in `folder`, scores what was exported on the images of `data`, and writes `target` with card and scores."""
    with tempfile.TemporaryDirectory() as work:
        model = pathlib.Path(work) / "model"
        run.export(folder, model)
        scores = score(model, data)
        exported = json.loads((model / "config.json").read_text(encoding="utf-8"))
    run.export(folder, target, readme=text(exported, scores), force=force)
    (target / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores


def score(folder: pathlib.Path, data: str) -> dict:
    """Accuracy, and distance and score of what lies at different distances from the images learnt from."""
    learnt, held_out = (images.build(data, part, labels="classes") for part in ("train", "test"))
    measured = features.load(folder)
    count = min(len(held_out), len(learnt))
    reference = features.gaussian(measured, learnt.image_NYXC[:count])
    image_NYXC, noise = held_out.image_NYXC[:count], np.random.default_rng(0)
    drawn = np.clip(image_NYXC + noise.normal(0, 32, image_NYXC.shape), 0, 255).astype(np.uint8)
    sides = {
        "held-out images": image_NYXC,
        "the same, mirrored": image_NYXC[:, :, ::-1],
        "the same, with Gaussian noise of 32 of 255": drawn,
        "uniform noise": noise.integers(0, 256, image_NYXC.shape, np.uint8),
    }
    numbers = {name: features.compare(measured, side, reference) for name, side in sides.items()}
    return {"train": len(learnt), "held_out": len(held_out), "accuracy": accuracy(folder, held_out), "count": count, "numbers": numbers}


def accuracy(folder: pathlib.Path, data: images.Images, size: int = 500) -> float:
    """The share of the images whose likeliest label is their own."""
    model, params, _ = weights.load(folder)
    task = classification.Classification(model)
    right = jax.jit(lambda params, batch: (task.right(params, batch) * batch["weight_B"]).sum())
    return sum(float(right(params, batch)) for batch in data.parts(size, len(data))) / len(data)


def text(exported: dict, scores: dict) -> str:
    """The card: config.json of the export, scores."""
    source, sizes = exported["source"], classifier_config.Config(**exported["config"])
    settings, told = source["settings"], ("steps", "batch", "rate", "schedule", "warmup", "dropout")
    rows = "".join(
        f"| {name} | {found['classifier distance']:.3f} | {found['classifier score']:.2f} |\n" for name, found in scores["numbers"].items()
    )
    return CARD.format(
        layers=sizes.layers,
        filters=settings["filters"],
        features=sizes.features,
        classes=sizes.classes,
        parameters=sum(map(math.prod, sizes.shapes().values())),
        size=sizes.size,
        command=" ".join(f"{name}={settings[name]}" for name in told),
        steps=source["step"],
        batch=settings["batch"],
        seed=settings["seed"],
        minutes=source["seconds"] / 60,
        machine=card.machine(),
        jax=source["starts"][-1]["jax"],
        date=datetime.date.today().isoformat(),
        rows=rows,
        **{name: scores[name] for name in ("train", "held_out", "accuracy", "count")},
    )
