"""What a run would take on a mesh that need not be here: memory of a device, operations of an update, and whether it compiles."""

import dataclasses
import math
import pathlib
import time

import jax
import jax.numpy as jnp

from flaxgen import weights
from train import begin, flops, parallel, run
from train.settings import Language, Settings

GIB = 1 << 30


def show(settings: Settings) -> str:
    """The plan as text. Devices are simulated: nothing of the model is allocated, and the update is compiled, not run."""
    if settings.kind != "language":
        raise ValueError(f"--plan is for language models; this recipe is of the kind {settings.kind}: start it")
    if settings.parallel == "pmap":
        raise ValueError(
            "--plan is for parallel=mesh; under pmap each device holds what --plan mesh=data=1 shows for its share of the batch"
        )
    axes = parallel.sizes(settings.mesh, math.prod(parallel.read(settings.mesh).values()))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", math.prod(axes.values()))
    planned = run.Run(pathlib.Path(), settings, model(settings))
    began = time.monotonic()
    planned.program.lower(batch(settings)).compile()
    seconds = time.monotonic() - began
    return "\n".join(
        [
            planned.model.note,
            flops.formula(planned.model.config, settings.length),
            "",
            *memory(planned, axes),
            "",
            *work(planned, axes),
            compiled(axes, seconds),
        ]
    )


def model(s: Language) -> begin.Model:
    """The sizes to plan for: those of the folder that start= names where it is there, else those of the settings."""
    if s.start and (pathlib.Path(s.start) / "config.json").is_file():
        config, note = dataclasses.replace(weights.describe(s.start)["config"], dropout=s.dropout), f"the model of {s.start}"
        if s.length > config.positions:
            raise ValueError(f"length={s.length}: the model in {s.start} has {config.positions} positions; give a smaller length=")
    else:
        config = begin.sizes(s, s.vocab)
        note = f"vocab={s.vocab} length={s.length} width={s.width} layers={s.layers} heads={s.heads}"
    return begin.Model(config, None, None, f"{note}: {flops.parameters(config):,} parameters")


def batch(s: Language) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch as data.Data gives it."""
    shape = (s.batch, s.length)
    names = {"token_BT": jnp.int32, "target_BT": jnp.int32, "weight_BT": jnp.float32}
    names |= {"floor_BT": jnp.int32} if s.neighbours == "hidden" else {}
    found = {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype in names.items()}
    return found | {"row_B": jax.ShapeDtypeStruct((s.batch,), jnp.int32)}


def memory(planned: run.Run, axes: dict[str, int]) -> list[str]:
    """Lines of bytes on one device, counted from shapes: a simulated device would have XLA count bfloat16 widened to float32."""
    s, like = planned.settings, planned.program.like
    trees = {"masters": like.params, "optimizer": like.opt, "frozen": like.frozen}
    trees = {name: (tree, jax.tree.map(lambda leaf: leaf.sharding.spec, tree)) for name, tree in trees.items()}
    found = flops.memory(
        planned.model.config, trees, axes,
        batch=s.batch, length=s.length, dtype=s.dtype, remat=s.remat, chunks=s.chunks, accumulate=s.accumulate,
    )  # fmt: skip
    lines = [f"{'bytes on a device':<28}{'GiB':>10}"]
    return lines + [f"  {name:<26}{size / GIB:>10.3f}" for name, size in found.items() if size]


def work(planned: run.Run, axes: dict[str, int]) -> list[str]:
    """Lines of operations of an update, and how long some devices would take."""
    s, sizes, count = planned.settings, planned.model.config, math.prod(axes.values())
    tokens = s.batch * s.length
    needed = tokens * flops.a_token(sizes, s.length, frozen=planned.fixed)
    done = tokens * flops.executed(sizes, s.length, s.remat, chunks=s.chunks, frozen=planned.fixed)
    lines = [f"an update of {s.batch} × {s.length} = {tokens:,} tokens: {needed:.4g} FLOPs, {done:.4g} with what is computed again"]
    for kind in ("NVIDIA H100", "NVIDIA A100", "TPU v4", "TPU v5e"):
        seconds = needed / (0.5 * flops.peak(kind, s.dtype) * count)
        lines.append(f"  {count} × {kind} at half their peak: {seconds:.3g} s, {seconds * s.steps / 3600:.3g} h for {s.steps:,} updates")
    return lines


def compiled(axes: dict[str, int], seconds: float) -> str:
    shown = ",".join(f"{axis}={size}" for axis, size in axes.items())
    return f"compiled for mesh={shown}, {math.prod(axes.values())} simulated devices, in {seconds:.0f} s"
