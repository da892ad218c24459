"""Runs that learn an energy of images: the kind "energy" (see train.kinds)."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from flaxgen import features, gallery
from flaxgen.drawing import Sampling
from flaxgen.models import energy, energy_config
from flaxgen.painter import Painter
from flaxgen.tasks import contrast
from train import begin as beginning
from train import classifier_settings, hosts, images
from train.image_settings import Energy

Config = energy_config.Config
SHARDING = energy.SHARDING
CARRY = (("buffer/(image_NYXC|label_N)", PartitionSpec(("data", "fsdp"))), (".*", PartitionSpec()))
UNIT = "images"
LIMIT = 2048  # held-out images whose energy is measured
COMPARED = 1000  # images of the buffer that are compared with held-out ones


def limits(config: Config) -> tuple:
    return ()


def begin(s: Energy) -> beginning.Model:
    gallery.check()
    data = images.build(s.data, labels="classes" if s.condition == "class" else "unused", pad=s.pad)
    made = sizes(s, *images.square(s.data, data), data.classes)
    count = sum(map(math.prod, made.shapes().values()))
    return beginning.Model(made, None, None, f"a new energy of {count:,} parameters, of images of {made.size} × {made.size} pixels")


def sizes(s: Energy, size: int, channels: int, classes: int) -> Config:
    """Those of a new model."""
    if s.network == "own":
        blocks = classifier_settings.blocks(s.filters)
        words = {"squeeze": s.squeeze, "activation": s.activation, "norm": s.norm, "dropout": s.dropout}
        return Config(size, channels, s.stem, blocks, classes=classes, **words)
    if size != 32:
        raise ValueError(f"network={s.network} is for images of 32 pixels, these have {size}; give pad=, or network=own")
    return energy_config.published(s.network, classes=classes, filters=s.stem or None, channels=channels)


def task(s: Energy, sizes: Config):
    names = ("regulariser", "moves", "step", "noise", "buffer", "fresh", "augment", "labels")
    names += ("kl", "kl_weight", "entropy", "iterations", "largest")
    words = {name: getattr(s, name) for name in names}
    return contrast.Contrast(energy.Energy(sizes, jnp.dtype(s.dtype)), s.contrast, kind=s.chain, clip=s.bound, **words)


def given(s: Energy, model: beginning.Model):
    return model.params


def freeze(s: Energy, model: beginning.Model) -> tuple[str, str]:
    return s.freeze, "float32"


def rows(run, name: str, words: str, known: str | None) -> images.Images:
    s, config = run.settings, run.model.config
    labels = "classes" if config.classes else "unused"
    part, flips = ("train", s.flips) if name == "rows" else ("test", "none")
    return images.fitting(images.build(words, part, labels=labels, pad=s.pad, flips=flips, known=known), words, config)


def look(run, rows: images.Images, dev: images.Images | None):
    s, folder = run.settings, run.folder / "samples"
    gather = run.program.gatherer(lambda state: (run.export(state), newest(state.carry.buffer, max(s.shown, COMPARED))))
    measure = energies(run, dev) if dev else None
    compare = nearness(s, dev) if s.features else None

    def seen(step, state):
        params, (held_NYXC, count) = gather(state)
        held_NYXC = np.asarray(held_NYXC)[: int(count)]
        found = measure(state) if measure else {}
        if hosts.first():
            fresh_BYXC = Painter(run.module, params, sampling=sampling(s))(s.shown, seed=s.seed)
            gallery.save(gallery.grid(held_NYXC[: s.shown]), folder / f"{step:07}-buffer.png")
            gallery.save(gallery.grid(fresh_BYXC), folder / f"{step:07}-fresh.png")
        found |= compare(held_NYXC) if compare and len(held_NYXC) == COMPARED else {}
        return found, found.get("dev_distance")

    return seen


def newest(buffer, most: int):
    """(image_NYXC of the buffer that were added last, the last first; how many of them there are)."""
    size = len(buffer.image_NYXC)
    slot_N = (buffer.place - 1 - jnp.arange(min(most, size))) % size
    return buffer.image_NYXC[slot_N], jnp.minimum(buffer.count, len(slot_N))


def energies(run, dev: images.Images):
    """energies(state): the mean energy of held-out images, which lies near that of the data as long as nothing is learnt by heart."""

    def sums(state, batch):
        image_BYXC = (batch["image_BYXC"].astype(jnp.float32) + 0.5) / 256
        energy_B = run.module.apply(run.export(state), image_BYXC, batch.get("label_B"))
        return jnp.stack([(energy_B * batch["weight_B"]).sum(), batch["weight_B"].sum()])

    total = run.program.total(sums)

    def seen(state) -> dict[str, float]:
        value, weight = images.totals(run, total, state, dev, LIMIT)
        return {"dev_energy": value / weight}

    return seen


def nearness(s: Energy, dev: images.Images):
    """nearness(image_NYXC): how far COMPARED samples are from as many held-out images, in the features of a classifier."""
    classifier = features.load(s.features)
    held_out = features.gaussian(classifier, np.asarray(dev.image_NYXC[:COMPARED]))
    return lambda image_NYXC: {"dev_distance": round(float(features.compare(classifier, image_NYXC, held_out)[classifier.distance]), 4)}


def cost(s: Energy, sizes: Config, fixed: int) -> tuple[int, str]:
    """A kernel's product is 2 operations an element and pixel it is laid on; a move takes two of them, learning six."""
    side, shapes = sizes.size // sizes.squeeze, sizes.shapes()
    products = math.prod(shapes["stem/kernel"]) * side**2
    for layer, (_, change) in enumerate(sizes.blocks):
        kernels = (shape for path, shape in shapes.items() if path.startswith(f"{energy_config.block_name(layer)}/") and len(shape) == 4)
        products += sum(map(math.prod, kernels)) * side**2
        side = side // 2 if change == "down" else side
    forward = 2 * products
    count = {"none": 2 * s.moves + 6, "last": 2 * s.moves + 12, "chain": 6 * s.moves + 8}[s.kl] * forward
    words = f"{forward:.4g} forward, twice for each of {s.moves} moves, 6 times for the two losses"
    return count, f"FLOPs an image: {words}{', and for the sampler' if s.kl != 'none' else ''} = {count:.4g}"


def sampling(s: Energy) -> Sampling:
    """How images are drawn of what is trained."""
    return Sampling(s.drawn, s.stride or s.step, s.noise, s.bound, s.chain, classes=tuple(filter(None, s.names.split("|"))))


def saved(s: Energy, model: beginning.Model) -> dict:
    return {"sampling": dataclasses.asdict(sampling(s))}
