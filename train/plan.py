"""What a run would take on a mesh that need not be here: memory of a device, operations of an update, and whether it compiles."""

import math
import pathlib
import time

import jax
import jax.numpy as jnp

from flaxgen import weights
from flaxgen.models import config
from train import flops, parallel, recipes, run

GIB = 1 << 30


def show(settings: recipes.Settings) -> str:
    """The plan as text. Devices are simulated: nothing of the model is allocated, and the update is compiled, not run."""
    axes = parallel.sizes(settings.mesh, math.prod(parallel.read(settings.mesh).values()))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", math.prod(axes.values()))
    sizes, note = model(settings)
    planned = run.Run(pathlib.Path(), settings, run.Model(sizes, None, None, note))
    began = time.monotonic()
    planned.program.lower(batch(settings)).compile()
    seconds = time.monotonic() - began
    return "\n".join(
        [note, flops.formula(sizes, settings.length), "", *memory(planned, axes), "", *work(planned, axes), compiled(axes, seconds)]
    )


def model(s: recipes.Settings) -> tuple[config.Config, str]:
    """The sizes to plan for: those of the folder that start= names where it is there, else those of the settings."""
    if s.start and (pathlib.Path(s.start) / "config.json").is_file():
        return weights.describe(s.start)["config"], f"the model of {s.start}"
    made = config.Config(s.vocab, s.length, s.width, s.layers, s.heads, 4 * s.width, s.wiring, run.ACTIVATION[s.wiring], dropout=s.dropout)
    return (
        made,
        f"vocab={s.vocab} length={s.length} width={s.width} layers={s.layers} heads={s.heads}: {flops.parameters(made):,} parameters",
    )


def batch(s: recipes.Settings) -> dict[str, jax.ShapeDtypeStruct]:
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
    frozen = sum(leaf.size for leaf in jax.tree.leaves(planned.program.like.frozen))
    needed = tokens * flops.a_token(sizes, s.length, frozen=frozen)
    done = tokens * flops.executed(sizes, s.length, s.remat, chunks=s.chunks, frozen=frozen)
    lines = [f"an update of {s.batch} × {s.length} = {tokens:,} tokens: {needed:.4g} FLOPs, {done:.4g} with what is computed again"]
    for kind in ("NVIDIA H100", "NVIDIA A100", "TPU v4", "TPU v5e"):
        seconds = needed / (0.5 * flops.peak(kind, s.dtype) * count)
        lines.append(f"  {count} × {kind} at half their peak: {seconds:.3g} s, {seconds * s.steps / 3600:.3g} h for {s.steps:,} updates")
    return lines


def compiled(axes: dict[str, int], seconds: float) -> str:
    shown = ",".join(f"{axis}={size}" for axis, size in axes.items())
    return f"compiled for mesh={shown}, {math.prod(axes.values())} simulated devices, in {seconds:.0f} s"
