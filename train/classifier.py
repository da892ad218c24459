"""Runs that learn the label of each image: the kind "classifier" (see train.kinds)."""

import jax.numpy as jnp

from flaxgen.models import classifier, classifier_config
from flaxgen.tasks import classification
from train import begin as beginning
from train import classifier_settings, images
from train.classifier_settings import Classifier

Config = classifier_config.Config
SHARDING = classifier.SHARDING
CARRY = ()
UNIT = "images"
LIMIT = 10_000  # held-out images that are measured


def limits(config: Config) -> tuple:
    return ()


def begin(s: Classifier) -> beginning.Model:
    data = images.build(s.data, labels="classes")
    sizes = Config(*images.square(s.data, data), data.classes, classifier_settings.blocks(s.filters), s.dropout)
    return beginning.Model(sizes, None, None, f"a new classifier of {data.classes} kinds of image")


def task(s: Classifier, sizes: Config):
    return classification.Classification(classifier.Classifier(sizes), dtype=s.dtype)


def given(s: Classifier, model: beginning.Model):
    return model.params


def freeze(s: Classifier, model: beginning.Model) -> tuple[str, str]:
    return s.freeze, "float32"


def rows(run, name: str, words: str, known: str | None) -> images.Images:
    part = "train" if name == "rows" else "test"
    return images.fitting(images.build(words, part, labels="classes", known=known), words, run.model.config)


def look(run, rows: images.Images, dev: images.Images | None):
    if not dev:
        return lambda step, state: ({}, None)

    def sums(state, batch):
        params, weight_B = run.export(state), batch["weight_B"]
        parts = (run.task.nats(params, batch), run.task.right(params, batch), jnp.ones_like(weight_B))
        return jnp.stack([(value_B * weight_B).sum() for value_B in parts])

    total = run.program.total(sums)

    def seen(step, state):
        nats, right, weight = images.totals(run, total, state, dev, LIMIT)
        return {"dev_nats": round(nats / weight, 5), "dev_accuracy": round(right / weight, 5)}, nats / weight

    return seen


def cost(s: Classifier, sizes: Config, fixed: int) -> tuple[int, str]:
    """A kernel's product is 2 operations an element and pixel that it is laid on, and has two more such in its gradient."""
    products, side = sizes.classes * sizes.features, sizes.size
    for (filters, change), before in zip(sizes.blocks, (sizes.channels, *(filters for filters, _ in sizes.blocks)), strict=False):
        products += 9 * before * filters * side**2
        side = side // 2 if change == "down" else side
    return 6 * products, f"FLOPs an image, forward and backward: 6 × {products:,} products of kernels and pixels = {6 * products:.4g}"


def saved(s: Classifier, model: beginning.Model) -> dict:
    return {}
