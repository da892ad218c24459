"""Low-rank adaptation: small matrices that are trained beside kernels that are not."""

import dataclasses
import re

import jax
import jax.numpy as jnp
from flax import traverse_util

from flaxgen import protocols
from flaxgen.models import config
from flaxgen.protocols import Array, Params

FROZEN = r"^(?!.*/kernel_[ab]$)"  # what the trainer freezes by: every path but those of kernel_a and kernel_b


@dataclasses.dataclass(frozen=True)
class Lora:
    """A task whose kernels W become W + alpha / rank B A, with A [rank, in] and B [out, rank] (Hu et al. 2021, arXiv 2106.09685).

    A lies beside "kernel" as "kernel_a" and B as "kernel_b", stacked where the kernel is; flaxgen.nn.blocks.Dense adds their product.
    B holds no scale: `loss` gives the wrapped task alpha / rank B. A begins uniform within 1 / sqrt(in) as in the authors' loralib, B at 0,
    so the first loss is the base's. Wrapping freezes nothing: that is for FROZEN to do.
    pattern: a regex found in the paths of kernels, as "block_07/attend/q/kernel"; by default attention's query and value, as in the paper.
    """

    task: protocols.Task
    rank: int
    alpha: float
    pattern: str = r"attend/[qv]/kernel"

    def __post_init__(self):
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"rank={self.rank}, alpha={self.alpha}: wanted a whole number from 1 up and a number over 0, as 8 and 16")

    def init(self, key: Array) -> Params:
        base_key, added_key = jax.random.split(key)
        return self.adapt(self.task.init(base_key), added_key)

    def adapt(self, params: Params, key: Array) -> Params:
        """The base's parameters with kernel_a and kernel_b in float32; stacked and unrolled layers get the same numbers."""
        leaves = traverse_util.flatten_dict(params, sep="/")
        kinds = {}
        for path in self._chosen(leaves):
            layer, kind = _place(path)
            kinds.setdefault(kind, {})[layer] = path
        for number, (_, paths) in enumerate(sorted(kinds.items())):
            *stack, out, width = leaves[paths[min(paths)]].shape
            layers = jnp.arange(stack[0]) if stack else jnp.asarray(sorted(paths))
            a_LRD = self._draw(jax.random.fold_in(key, number), layers, width)
            for index, layer in enumerate(sorted(paths)):
                leaves[f"{paths[layer]}_a"] = a_LRD if stack else a_LRD[index]
                leaves[f"{paths[layer]}_b"] = jnp.zeros((*stack, out, self.rank), jnp.float32)
        return traverse_util.unflatten_dict(leaves, sep="/")

    def _draw(self, key: Array, layers: Array, width: int) -> Array:
        """kernel_a of these layers by one compiled draw, since each takes about a second to compile on a CPU."""
        bound = width**-0.5
        draw = lambda layer: jax.random.uniform(jax.random.fold_in(key, layer), (self.rank, width), jnp.float32, -bound, bound)  # noqa: E731
        return jax.vmap(draw)(layers)

    def carry(self, key: Array):
        return self.task.carry(key)

    def loss(self, params: Params, carry, key: Array, batch):
        leaves = traverse_util.flatten_dict(params, sep="/")
        scaled = {path: leaf * (self.alpha / self.rank) for path, leaf in leaves.items() if path.endswith("/kernel_b")}
        if not scaled:
            raise ValueError("these parameters hold no kernel_a and kernel_b; make them by Lora.init, or from a base's by Lora.adapt")
        return self.task.loss(traverse_util.unflatten_dict(leaves | scaled, sep="/"), carry, key, batch)

    def export(self, params: Params, carry) -> Params:
        return self.task.export(self.merge(params), carry)

    def merge(self, params: Params) -> Params:
        """The base's tree with W + alpha / rank B A for each adapted W, in float32 whatever W was kept in."""
        leaves = traverse_util.flatten_dict(params, sep="/")
        for path in [path for path in leaves if path.endswith("/kernel_b")]:
            kernel = path.removesuffix("_b")
            delta = jnp.matmul(leaves.pop(path), leaves.pop(f"{kernel}_a"), precision="highest")
            leaves[kernel] = leaves[kernel] + self.alpha / self.rank * delta
        return traverse_util.unflatten_dict(leaves, sep="/")

    def _chosen(self, leaves: dict[str, Array]) -> list[str]:
        kernels = {path: _names(path, leaf) for path, leaf in leaves.items() if path.endswith("/kernel")}
        hits = {path: [name for name in names if re.search(self.pattern, name)] for path, names in kernels.items()}
        for path, found in hits.items():
            if 0 < len(found) < len(kernels[path]):
                raise ValueError(
                    f"{self.pattern!r} takes {', '.join(found)} but not all of the {len(kernels[path])} layers that are stacked with it;"
                    ' take all of them, or keep layers apart with loop="unroll"'
                )
        chosen = sorted(path for path, found in hits.items() if found)
        if not chosen:
            some = ", ".join(sorted(names[0] for names in kernels.values())[:8])
            raise ValueError(f"{self.pattern!r} takes no kernel; the paths are {some}, ...")
        return chosen


def _names(path: str, leaf: Array) -> list[str]:
    """The paths that a pattern sees: one, or one a layer."""
    kind = _place(path)[1]
    stacked = path.removeprefix("params/").startswith("block/")
    return [f"{config.block_name(i)}/{kind}" for i in range(leaf.shape[0])] if stacked else [path.removeprefix("params/")]


def _place(path: str) -> tuple[int, str]:
    """The layer of a path (0 for a stacked one, or outside the layers) and the rest, alike in all layers."""
    found = re.fullmatch(r"(?:params/)?(?:block(?:_(\d+))?/)?(.*)", path)
    return int(found[1] or 0), found[2]
