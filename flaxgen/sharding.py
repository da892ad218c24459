"""How a mesh holds a tree: (pattern, PartitionSpec) rules to a tree of PartitionSpecs, and every problem told at once."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

Rules = Sequence[tuple[str, PartitionSpec]]
SHOWN = 20  # problems listed in one error


class Limit(NamedTuple):
    """A number that the product of these axes of a mesh must divide."""

    name: str
    size: int
    axes: tuple[str, ...]


def specs(shapes: Any, rules: Rules, sizes: Mapping[str, int], *, limits: Sequence[Limit] = ()) -> Any:
    """The PartitionSpec of every leaf of `shapes`, by the first rule whose pattern takes its whole path, as "block_07/attend/q/kernel".

    A path that begins with "block/" is a stacked leaf: the layer axis stands before those of the rule and is not split. Axes that a mesh
    lacks are left out. sizes: the axes of the mesh, as {"data": 4, "fsdp": 2}. limits: what must divide beside the leaves.
    ValueError: leaves that no rule takes, sizes that do not divide, all of them, and the nearest mesh of as many devices that would do.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    names = [_name(path).removeprefix("params/") for path, _ in leaves]
    found = [_match(name, rules, sizes) for name in names]
    problems = [f"{name}: no rule takes it" for name, spec in zip(names, found, strict=True) if spec is None]
    found = [PartitionSpec() if spec is None else spec for spec in found]
    wanted = [*limits]
    for name, (_, leaf), spec in zip(names, leaves, found, strict=True):
        if len(spec) > len(leaf.shape):
            problems.append(f"{name}: {spec} for the shape {leaf.shape}")
        else:
            wanted += [Limit(f"{name} axis {axis}", leaf.shape[axis], _axes(part)) for axis, part in enumerate(spec) if part]
    problems += [
        f"{limit.name}: {limit.size} does not divide by {_mesh({axis: sizes[axis] for axis in limit.axes if axis in sizes})}"
        for limit in wanted
        if not _divides(limit, sizes)
    ]
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        lines = "\n  ".join([*problems[:SHOWN], *more])
        raise ValueError(f"the mesh {_mesh(sizes)} does not fit:\n  {lines}\n{_advice(wanted, sizes)}")
    return jax.tree_util.tree_unflatten(tree, found)


def follow(shapes: Any, like: Any, specs: Any) -> Any:
    """PartitionSpecs for an optimizer's state: a leaf is laid out as the parameter whose path its own path ends with.

    shapes: the state's. like, specs: the parameters' shapes and PartitionSpecs. A factored moment, the shape of the parameter without one
    axis, gets its spec without that axis; everything else is whole on every device.
    """
    flat = jax.tree_util.tree_flatten_with_path(like)[0]
    parts = jax.tree.leaves(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
    known = {_name(path): (leaf.shape, spec) for (path, leaf), spec in zip(flat, parts, strict=True)}

    def spec_of(path, leaf):
        for start in range(len(path)):
            if (name := _name(path[start:])) in known:
                return _fit(leaf.shape, *known[name])
        return PartitionSpec()

    return jax.tree_util.tree_map_with_path(spec_of, shapes)


def _fit(shape, whole, spec) -> PartitionSpec:
    if shape == whole:
        return spec
    full = (*spec, *[None] * (len(whole) - len(spec)))
    for axis in reversed(range(len(whole))):
        if shape == whole[:axis] + whole[axis + 1 :]:
            return PartitionSpec(*full[:axis], *full[axis + 1 :])
    return PartitionSpec()


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _match(name: str, rules: Rules, sizes: Mapping[str, int]) -> PartitionSpec | None:
    for pattern, spec in rules:
        if re.fullmatch(pattern, name):
            parts = [tuple(axis for axis in _axes(part) if axis in sizes) for part in spec]
            parts = [part[0] if len(part) == 1 else part or None for part in parts]
            return PartitionSpec(*[None] * name.startswith("block/"), *parts)
    return None


def _axes(part) -> tuple[str, ...]:
    return () if part is None else (part,) if isinstance(part, str) else tuple(part)


def _divides(limit: Limit, sizes: Mapping[str, int]) -> bool:
    return limit.size % math.prod(sizes.get(axis, 1) for axis in limit.axes) == 0


def _mesh(sizes: Mapping[str, int]) -> str:
    return ",".join(f"{axis}={size}" for axis, size in sizes.items())


def _advice(wanted: Sequence[Limit], sizes: Mapping[str, int]) -> str:
    """The mesh of as many devices that fits and is nearest: the fewest doublings away, and of these the largest last axes."""
    count = math.prod(sizes.values())
    divisors = [size for size in range(1, count + 1) if count % size == 0]
    meshes = (dict(zip(sizes, mesh, strict=True)) for mesh in itertools.product(divisors, repeat=len(sizes)) if math.prod(mesh) == count)
    fitting = [mesh for mesh in meshes if all(_divides(limit, mesh) for limit in wanted)]
    if not fitting:
        return f"no mesh of {count} devices over {', '.join(sizes)} fits; use another number of devices"

    def distance(mesh):
        return sum(abs(math.log2(mesh[axis] / sizes[axis])) for axis in sizes), [-size for size in reversed(mesh.values())]

    return f"try mesh={_mesh(min(fitting, key=distance))}"
