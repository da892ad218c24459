"""Runs that learn a density of images: the kind "flow" (see train.kinds)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen import gallery
from flaxgen.drawing import Sampling
from flaxgen.flow_painter import FlowPainter
from flaxgen.models import flow, flow_config
from flaxgen.tasks import likelihood
from train import begin as beginning
from train import hosts, images
from train.image_settings import Flow, levels

Config = flow_config.Config
SHARDING = flow.SHARDING
CARRY = ()
UNIT = "images"
LIMIT = 2048  # held-out images that are measured


def limits(config: Config) -> tuple:
    return ()


def begin(s: Flow) -> beginning.Model:
    """A new model whose scales and shifts are fitted to the first images."""
    gallery.check()
    data = images.build(s.data, pad=s.pad)
    sizes = Config(*images.square(s.data, data), levels(s.flows), s.hidden, s.blocks, s.coupling, s.mixing, s.rank, s.bits, s.least)
    learnt, key = task(s, sizes), jax.random.key(s.seed)
    params = learnt.begin(jax.jit(learnt.init)(key), jax.random.fold_in(key, 1), np.asarray(data.batch(s.seed, 0, s.first)["image_BYXC"]))
    count = sum(map(math.prod, sizes.shapes().values()))
    note = f"a new flow of {count:,} parameters, of images of {sizes.size} × {sizes.size} pixels, fitted to {s.first} of them"
    return beginning.Model(sizes, None, jax.device_get(params), note)


def task(s: Flow, sizes: Config):
    return likelihood.Likelihood(flow.Flow(sizes))


def given(s: Flow, model: beginning.Model):
    return model.params


def freeze(s: Flow, model: beginning.Model) -> tuple[str, str]:
    return s.freeze, "float32"


def rows(run, name: str, words: str, known: str | None) -> images.Images:
    s = run.settings
    part, flips = ("train", s.flips) if name == "rows" else ("test", "none")
    return images.fitting(images.build(words, part, pad=s.pad, flips=flips, known=known), words, run.model.config)


def look(run, rows: images.Images, dev: images.Images | None):
    s, folder = run.settings, run.folder / "samples"
    whole = run.program.gatherer(run.export)
    measure = score(run, dev) if dev else None

    def seen(step, state):
        params = whole(state)
        if hosts.first():
            drawn_BYXC = FlowPainter(run.module, params, sampling=sampling(s))(s.shown, seed=s.seed)
            gallery.save(gallery.grid(drawn_BYXC), folder / f"{step:07}.png")
        found = measure(state) if measure else {}
        return found, found.get("dev_bits")

    return seen


def score(run, dev: images.Images):
    """score(state): {"dev_bits": bits per dimension of at most LIMIT held-out images}."""
    key = jax.random.key(0)

    def sums(state, batch):
        bits_B = run.task.bits(run.export(state), key, batch)
        return jnp.stack([(bits_B * batch["weight_B"]).sum(), batch["weight_B"].sum()])

    total = run.program.total(sums)

    def seen(state) -> dict[str, float]:
        bits, weight = images.totals(run, total, state, dev, LIMIT)
        return {"dev_bits": round(bits / weight, 5)}

    return seen


def cost(s: Flow, sizes: Config, fixed: int) -> tuple[int, str]:
    """A kernel's product is 2 operations an element and pixel, and has two more such in its gradient; exponentials are left out."""
    places = [size for (size, _), count in zip(sizes.levels(), sizes.flows, strict=True) for _ in range(count)]
    kernels = [(path, shape) for path, shape in sizes.shapes().items() if path.endswith("/kernel")]
    products = sum(places[int(path[len("block_") : path.index("/")])] ** 2 * math.prod(shape) for path, shape in kernels)
    return 6 * products, f"FLOPs an image, forward and backward: 6 × {products:,} products of kernels and pixels = {6 * products:.4g}"


def sampling(s: Flow) -> Sampling:
    """How images are drawn of what is trained."""
    return Sampling(temperature=s.temperature)


def saved(s: Flow, model: beginning.Model) -> dict:
    return {"sampling": dataclasses.asdict(sampling(s)), "dtype": "float32"}  # what is inverted is not rounded
