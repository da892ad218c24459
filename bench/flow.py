"""Matrix-exponential against affine couplings: flows of equal parameters on the same images, bits per dimension over several seeds.

    python bench/flow.py [--data digits | FOLDER of idx files] [--bits 4] [--flows 4 2 2] [--hidden 16] [--blocks 1] [--steps 1500]
                         [--rates 0.01 0.1] [--seeds 3] [--batch 64] [--name flow]

As in section 6.2 of Xiao & Liu 2020: Adamax, the affine flow so much wider that it has as many parameters. Bits are those of held-out
images under averaged weights at the end; a spike is an update whose loss lies a bit or more over the mean of the fifty before. Both see the
same batches and noise. Writes bench/results/NAME.json, NAME.png with the curves, and NAME-samples.png: held-out images, images of the
exponential flow, of the affine one.
"""

import argparse
import dataclasses
import math
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import report

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # `train` is the trainer, not bench/train.py

from flaxgen import gallery, loop
from flaxgen.chains import inverse
from flaxgen.models import flow, flow_config
from flaxgen.tasks import likelihood
from train import image_files

FIRST, HELD, AVERAGE, WINDOW = 512, 1024, 0.99, 50


def parameters(config: flow_config.Config) -> int:
    return sum(map(math.prod, config.shapes().values()))


def widened(config: flow_config.Config, wanted: int) -> flow_config.Config:
    """The config with the hidden width at which it has about `wanted` parameters."""
    widths = range(1, 4 * config.hidden)
    return min((dataclasses.replace(config, hidden=width) for width in widths), key=lambda each: abs(parameters(each) - wanted))


class Side:
    """A flow, and an update that is compiled once for all seeds and rates."""

    def __init__(self, config: flow_config.Config, steps: int):
        self.task = likelihood.Likelihood(flow.Flow(config))
        self.steps = steps
        self.begin = jax.jit(self.task.init)
        self.update = jax.jit(self._update, donate_argnums=(0, 1, 2))
        self.held = jax.jit(lambda params, image: self.task.bits(params, jax.random.key(0), {"image_BYXC": image}).mean())

    def optimizer(self, rate):
        warmup, fall = self.steps // 20, self.steps // 3
        parts = [optax.linear_schedule(0, 1, warmup), optax.constant_schedule(1.0), optax.linear_schedule(1, 0, fall)]
        return optax.chain(optax.adamax(optax.join_schedules(parts, [warmup, self.steps - fall])), optax.scale(rate))

    def _update(self, params, moments, average, rate, key, image_BYXC):
        (loss, _), slopes = jax.value_and_grad(lambda params: self.task.loss(params, (), key, {"image_BYXC": image_BYXC}), has_aux=True)(
            params
        )
        moves, moments = self.optimizer(rate).update(slopes, moments, params)
        params = optax.apply_updates(params, moves)
        return params, moments, jax.tree.map(lambda old, new: AVERAGE * old + (1 - AVERAGE) * new, average, params), loss

    def run(self, given, rate: float, seed: int, batch: int):
        """(averaged parameters, losses, [(step, held-out bits)], seconds)."""
        images, held = given
        order, key = np.random.default_rng(seed), jax.random.key(seed)
        params = self.task.begin(self.begin(key), jax.random.fold_in(key, 1), images[order.permutation(len(images))[:FIRST]])
        moments, average = self.optimizer(rate).init(params), jax.tree.map(jnp.copy, params)
        losses, curve, begun = [], [], time.perf_counter()
        for step in range(1, self.steps + 1):
            image_BYXC = images[order.integers(0, len(images), batch)]
            params, moments, average, loss = self.update(params, moments, average, rate, jax.random.fold_in(key, step + 1), image_BYXC)
            losses.append(loss)
            if step % (self.steps // 20) == 0:
                curve.append((step, float(self.held(average, held))))
        return average, np.array(jax.device_get(losses), np.float64), curve, time.perf_counter() - begun


def spikes(losses) -> int:
    return sum(not losses[at] < losses[at - WINDOW : at].mean() + 1 for at in range(WINDOW, len(losses)))


def draw(path: pathlib.Path, curves: dict) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for (coupling, rate), found in curves.items():
        colour = None
        for index, curve in enumerate(found):
            (line,) = axes.plot(*zip(*curve, strict=True), color=colour, label=None if index else f"{coupling}, rate {rate:g}", alpha=0.8)
            colour = line.get_color()
    axes.set(xlabel="updates", ylabel="bits per dimension, held out")
    low = min(bits for found in curves.values() for curve in found for _, bits in curve)
    axes.set_ylim(low - 0.05, low + 1)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--flows", type=int, nargs="+", default=[4, 2, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01])
    parser.add_argument("--name", default="flow")
    for name, value in (("bits", 4), ("hidden", 16), ("blocks", 1), ("steps", 1500), ("seeds", 3), ("batch", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    images, held = (image_files.read(given.data, part)[0] for part in ("train", "test"))
    size, channels = images.shape[2:]
    exponential = flow_config.Config(size, channels, tuple(given.flows), given.hidden, given.blocks, bits=given.bits)
    affine = widened(dataclasses.replace(exponential, coupling="affine"), parameters(exponential))
    rows, curves, drawn = [], {}, []
    for config in (exponential, affine):
        side = Side(config, given.steps)
        for rate in given.rates:
            runs = [side.run((images, held[:HELD]), rate, seed, given.batch) for seed in range(given.seeds)]
            finals = [curve[-1][1] for _, _, curve, _ in runs]
            row = {"coupling": config.coupling, "rate": rate, "hidden": config.hidden, "parameters": parameters(config)}
            row |= {f"seed {seed}": round(bits, 4) for seed, bits in enumerate(finals)} | {"mean": statistics.fmean(finals)}
            row |= {"spikes": sum(spikes(losses) for _, losses, _, _ in runs)}
            row |= {"not finite": sum(int((~np.isfinite(losses)).sum()) for _, losses, _, _ in runs)}
            row |= {"ms an update": 1e3 * statistics.median(seconds for *_, seconds in runs) / given.steps}
            rows.append(row)
            print(report.table([row]), flush=True)
            curves[config.coupling, rate] = [curve for _, _, curve, _ in runs]
            drawn += [(side.task.model, runs[0][0])] if rate == given.rates[0] else []
    report.finish(given.name, rows, ["jax", "flax", "optax"], **{name: value for name, value in vars(given).items() if name != "name"})
    draw(report.RESULTS / f"{given.name}.png", curves)
    key_B = jax.random.split(jax.random.key(0), 24)
    sampled = [loop.generate(inverse.Inverse(model), params, key_B, inverse.draw(model, key_B), steps=1) for model, params in drawn]
    grid = gallery.grid(np.concatenate([np.asarray(each) for each in (held[:24], *sampled)]), columns=24)
    gallery.save(grid, report.RESULTS / f"{given.name}-samples.png")


if __name__ == "__main__":
    main()
