"""A Langevin move of an energy model against the same network in torch eager: the same weights and images, interleaved rounds, medians.

    python bench/langevin.py [--networks fashion published] [--rounds 7] [--moves 10] [--sides torch torch-channels-last flaxgen]

Needs torch. A move is noise, the energy, its gradient to the image, and the clipped step. Every side is a process of its own with two
threads that waits while the others run; the energies of the first images must agree, or the sides do not do the same. Beside the time by
the clock stands the time of the processor. Measure on a quiet machine: where others compute too, torch's threads wait for each other in
circles, and both times of torch grow tenfold. "fashion" is the network of the recipe energy-fashion without labels, "wide" one of 64
filters at 14 by 14 pixels, "published" ResNet32 of 128 filters.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial

import numpy as np
import report
import rounds

from flaxgen.models import config, energy_config

THREADS = 2
SIDES = ["torch", "torch-channels-last", "flaxgen"]
STEP, NOISE, CLIP, SLOPE = 10.0, 0.005, 0.01, 0.2
NETWORKS = {
    "fashion": (energy_config.Config(28, 1, 32, ((32, "down"), (64, "same"), (64, "down"), (64, "same")), squeeze=2), 64),
    "wide": (energy_config.Config(28, 1, 64, ((64, "same"), (64, "down"), (64, "same")), squeeze=2), 64),
    "published": (energy_config.published("32"), 8),
}


def weights(c: energy_config.Config) -> dict[str, np.ndarray]:
    """Random parameters by path; of a kernel such that numbers keep their size."""
    rng = np.random.default_rng(0)
    drawn = {path: rng.standard_normal(shape, np.float32) for path, shape in c.shapes().items()}
    return {path: x / np.sqrt(np.prod(x.shape[:-1])).astype(np.float32) if path.endswith("kernel") else x / 10 for path, x in drawn.items()}


def ours(c: energy_config.Config, image_BYXC: np.ndarray):
    """moves(count) -> None and the energies of the images."""
    import jax

    from flaxgen import energies, loop
    from flaxgen import weights as folders
    from flaxgen.chains import langevin
    from flaxgen.models import energy

    model = energy.Energy(c)
    params = jax.tree.map(jax.numpy.asarray, folders.nest(weights(c)))
    chain = langevin.Langevin(energies.Single(model))
    given = langevin.start(image_BYXC, step=STEP, noise=NOISE, clip=CLIP)

    def moves(count: int) -> None:
        jax.block_until_ready(loop.generate(chain, params, jax.random.key(1), given, steps=count))

    return moves, np.asarray(model.apply(params, image_BYXC))


def torches(c: energy_config.Config, image_BYXC: np.ndarray, layout: str):
    """The same by torch eager."""
    import torch

    torch.set_num_threads(THREADS)
    order = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    tree = {path: _torch(x, order) for path, x in weights(c).items()}
    start_BCYX = torch.from_numpy(image_BYXC.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=order)

    def moves(count: int) -> None:
        x_BCYX = start_BCYX
        for _ in range(count):
            x_BCYX = (x_BCYX + NOISE * torch.randn_like(x_BCYX)).requires_grad_()
            (slope_BCYX,) = torch.autograd.grad(energy_of(c, tree, x_BCYX).sum(), x_BCYX)
            x_BCYX = (x_BCYX.detach() - STEP * slope_BCYX.clamp(-CLIP, CLIP)).clamp(0, 1)

    with torch.no_grad():
        return moves, energy_of(c, tree, start_BCYX).numpy()


def _torch(x: np.ndarray, order):
    """A kernel as (out, in, height, width), anything else to be broadcast over pixels."""
    import torch

    if x.ndim == 4:
        return torch.from_numpy(x.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=order)
    return torch.from_numpy(x[:, None, None] if x.ndim == 1 and len(x) > 1 else x)


def energy_of(c: energy_config.Config, tree: dict, x_BCYX):
    """The network as one would write it in torch; see flaxgen.models.energy."""
    from torch.nn import functional

    def conv(x_BCYX, path: str):
        return functional.conv2d(x_BCYX, tree[f"{path}/kernel"], padding=1)

    x_BCYX = functional.pixel_unshuffle(x_BCYX, c.squeeze) if c.squeeze > 1 else x_BCYX
    x_BCYX = functional.leaky_relu(conv(x_BCYX, "stem"), SLOPE)
    for number, (_, change) in enumerate(c.blocks):
        path = config.block_name(number)
        h_BCYX = functional.leaky_relu(conv(x_BCYX + tree[f"{path}/bias_0"], f"{path}/conv_0"), SLOPE)
        h_BCYX = conv(h_BCYX + tree[f"{path}/bias_1"], f"{path}/conv_1") * tree[f"{path}/gain"]
        x_BCYX = h_BCYX + (conv(x_BCYX, f"{path}/bypass") if f"{path}/bypass/kernel" in tree else x_BCYX)
        x_BCYX = functional.leaky_relu(functional.avg_pool2d(x_BCYX, 2) if change == "down" else x_BCYX, SLOPE)
    return (functional.relu(x_BCYX).sum((2, 3)) @ tree["out/kernel"][0, :, None] + tree["out/bias"])[:, 0]


def work(side: str, network: str, rows: int) -> None:
    """A side's process: for each number that comes in, so many moves; seconds by the clock and of the processor go out."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    c = NETWORKS[network][0]
    image_BYXC = np.random.default_rng(1).random((rows, c.size, c.size, c.channels), np.float32)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints does not come between
    moves, energy_B = ours(c, image_BYXC) if side == "flaxgen" else torches(c, image_BYXC, side.partition("-")[2])
    for line in sys.stdin:
        clock, used = time.perf_counter(), time.process_time()
        moves(int(line))
        seconds = {"clock": time.perf_counter() - clock, "processor": time.process_time() - used}
        print(json.dumps(seconds | {"energy": energy_B.tolist()}), file=out, flush=True)


def ask(process: subprocess.Popen, moves: int) -> dict:
    with contextlib.suppress(BrokenPipeError):  # it has ended, and its error is shown
        process.stdin.write(f"{moves}\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"a side ended with code {process.wait()}; its error stands above")
    return json.loads(answer)


def measure(network: str, rows: int, options) -> list[dict]:
    """A row a side, after one warm-up."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(THREADS)) | {"JAX_PLATFORMS": "cpu"}
    words = ["--networks", network, "--rows", str(rows), "--work"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    started = {side: subprocess.Popen([sys.executable, __file__, *words, side], **pipes) for side in options.sides}
    try:
        first = {side: ask(process, options.moves) for side, process in started.items()}
        runs = {side: partial(ask, process, options.moves) for side, process in started.items()}
        answers = rounds.interleaved(runs, options.rounds)
    finally:
        for process in started.values():
            process.kill()
            process.communicate()
    for side in started:
        np.testing.assert_allclose(first[side]["energy"], first[options.sides[0]]["energy"], rtol=1e-3, err_msg=side)
    figures = {kind: {side: [answer[kind] for answer in answers[side]] for side in started} for kind in ("clock", "processor")}
    return [
        {"network": network, "rows": rows, "side": side}
        | {f"{kind} ms a move": 1e3 * statistics.median(figures[kind][side]) / options.moves for kind in figures}
        | {"least ms": 1e3 * min(figures["clock"][side]) / options.moves, "first call s": first[side]["clock"]}
        | {f"{base} / it, {kind}": rounds.ratio(figures[kind], base, side)["ratio"] for base in options.sides[:1] for kind in figures}
        for side in started
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["fashion", "published"], choices=NETWORKS)
    for name, default in (("rows", 0), ("rounds", 7), ("moves", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--name", default="langevin")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.networks[0], options.rows)
    table = [row for network in options.networks for row in measure(network, options.rows or NETWORKS[network][1], options)]
    load = os.getloadavg()[0]
    print(f"float32, {THREADS} threads, {options.rounds} rounds of {options.moves} moves; load of the machine {load:.1f}")
    report.finish(options.name, table, ["jax", "jaxlib", "flax", "torch"], moves=options.moves, rounds=options.rounds, load=load)


if __name__ == "__main__":
    main()
