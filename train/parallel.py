"""Where a run's arrays lie: a named mesh under jit, or whole copies under pmap. The numbers are the same.

A mesh has the axes data (copies), fsdp (rows of the batch like data, and parameters cut along one axis) and tensor (parameters cut along
the other, as in Megatron-LM, Shoeybi et al. 2019). Any of them may be 1.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flaxgen import sharding
from train import optimizers, partition
from train import step as steps

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")


def read(words: str) -> dict[str, int]:
    """ "data=4,fsdp=2" as axis sizes, the axes left out being 1."""
    found, named = dict.fromkeys(AXES, 1), []
    for word in filter(None, words.split(",")):
        axis, _, size = word.partition("=")
        if axis not in AXES or not size.isdecimal() or int(size) < 1:
            raise ValueError(
                f"mesh={words}: {word!r} is not AXIS=SIZE with an axis of {', '.join(AXES)}; write for example mesh=data=4,fsdp=2"
            )
        named.append(axis)
        found[axis] = int(size)
    if len(named) > len(set(named)):
        raise ValueError(f"mesh={words}: an axis stands twice; keep one of them")
    return found


def sizes(words: str, devices: int) -> dict[str, int]:
    """The axis sizes of a mesh of so many devices, or of some of them in a run of one process; empty words: all on data."""
    if not words:
        return {"data": devices, "fsdp": 1, "tensor": 1}
    found = read(words)
    wanted = math.prod(found.values())
    if wanted > devices or (wanted < devices and jax.process_count() > 1):
        raise ValueError(f"mesh={words} is for {wanted} devices, there are {devices}; try {propose(found, devices)}, or leave mesh= out")
    return found


def propose(wanted: dict[str, int], devices: int) -> str:
    """A mesh of that many devices, with tensor and fsdp as near to what was wanted as they divide."""
    tensor = math.gcd(wanted["tensor"], devices)
    fsdp = math.gcd(wanted["fsdp"], devices // tensor)
    return f"mesh=data={devices // tensor // fsdp},fsdp={fsdp},tensor={tensor}"


def check(axes: dict[str, int], *, batch: int, accumulate: int, kind: str) -> None:
    """Refuses a batch that does not divide over a mesh, with one that does."""
    rows, devices = axes["data"] * axes["fsdp"], math.prod(axes.values())
    if kind == "pmap" and (rows != axes["data"] or axes["tensor"] > 1 or jax.process_count() > 1):
        raise ValueError(f"parallel=pmap keeps a whole copy on each device of one process; give mesh=data={devices}, or parallel=mesh")
    if batch % (rows * accumulate):
        fit = -(-batch // (rows * accumulate)) * rows * accumulate
        parts = f" in {accumulate} parts" if accumulate > 1 else ""
        other = propose(axes | {"tensor": devices}, devices)
        raise ValueError(f"batch={batch} does not divide over {rows} devices{parts}; give batch={fit}, or {other}")


def mesh(axes: dict[str, int]) -> jax.sharding.Mesh:
    return jax.make_mesh(
        tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes), devices=jax.devices()[: math.prod(axes.values())]
    )


@dataclasses.dataclass(frozen=True)
class Program:
    """One task and optimizer compiled for a mesh: state goes in and comes out in the layout that `like` describes.

    rate: the learning rate by step, for the log. rules: (regex, PartitionSpec) pairs of the model.
    accumulate: parts of a batch that are differentiated one after the other.
    freeze, frozen_dtype: see steps.start. seed: of parameters, carry and dropout. limits: what the mesh must divide besides.
    carry_rules: (regex, PartitionSpec) pairs of what the task carries, by paths such as "0/image_NYXC". steep: see steps.update.
    """

    task: Any
    optimizer: Any
    rate: Callable[[jax.Array], jax.Array]
    rules: tuple
    mesh: jax.sharding.Mesh
    seed: int = 0
    accumulate: int = 1
    freeze: str = ""
    frozen_dtype: str = "float32"
    limits: tuple[sharding.Limit, ...] = ()
    carry_rules: tuple = ()
    steep: float = 0.0

    @property
    def ways(self) -> int:
        """Over how many devices the rows of a batch are spread."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @functools.cached_property
    def like(self) -> steps.State:
        """Shapes, dtypes and shardings of the state; a parameter that does not fit the mesh is a ValueError."""
        shapes = jax.eval_shape(self._start)
        axes = dict(self.mesh.shape)
        specs = {
            name: sharding.specs(getattr(shapes, name), self.rules, axes, limits=self.limits)
            for name in ("params", "frozen")
            if getattr(shapes, name)
        }
        whole = jax.tree.map(lambda _: PartitionSpec(), shapes)
        carried = sharding.specs(shapes.carry, self.carry_rules, axes)
        layout = whole.replace(**specs, carry=carried, opt=sharding.follow(shapes.opt, shapes.params, specs["params"]))
        return jax.tree.map(lambda leaf, spec: self._struct(leaf, spec), shapes, layout)

    def start(self, params: Any = None) -> steps.State:
        """The state before the first update, each device making its own part; params: a tree of numpy arrays to begin from."""
        if params is None:
            return self._run(jax.jit(self._start, out_shardings=self._layout))
        trained, frozen = partition.split(params, self.freeze)
        placed = jax.tree.map(self._put, (trained, frozen), (self.like.params, self.like.frozen))
        return self._run(jax.jit(self._start, out_shardings=self._layout, donate_argnums=0), placed)

    def place(self, make: Callable[[slice], dict[str, np.ndarray]], size: int) -> dict[str, jax.Array]:
        """A batch of `size` rows over the mesh; make(rows) is asked for the rows of this process's devices alone."""
        rows = NamedSharding(self.mesh, PartitionSpec(ROWS))
        cuts = {device: index[0].indices(size)[:2] for device, index in rows.addressable_devices_indices_map((size,)).items()}
        made = {cut: make(slice(*cut)) for cut in sorted(set(cuts.values()))}
        shapes = {name: (size, *array.shape[1:]) for name, array in next(iter(made.values())).items()}
        return {
            name: jax.make_array_from_single_device_arrays(
                shape, rows, [jax.device_put(made[cut][name], device) for device, cut in cuts.items()]
            )
            for name, shape in shapes.items()
        }

    def update(self, state: steps.State, batch, stop: int = 0) -> tuple[steps.State, dict[str, jax.Array]]:
        """steps.update, and as facts["stop"] the largest `stop` that any process gave; the state given is donated."""
        return self._run(self._update, state, batch, self._flag(stop))

    def total(self, function: Callable) -> Callable:
        """function(state, batch), sums over the rows of a batch, compiled; the same on every process."""
        compiled = jax.jit(function, in_shardings=(self._layout, self._rows), out_shardings=self._everywhere)
        return lambda state, batch: self._run(compiled, state, batch)

    def gatherer(self, function: Callable[[steps.State], Any]) -> Callable[[steps.State], Any]:
        """function(state) compiled, whole on one device of each process, as sampling wants it."""
        compiled = jax.jit(function, in_shardings=(self._layout,), out_shardings=self._everywhere)
        return lambda state: jax.tree.map(lambda leaf: leaf.addressable_data(0), self._run(compiled, state))

    def lower(self, batch: dict[str, jax.ShapeDtypeStruct]):
        """The update lowered for shapes alone: nothing is allocated."""
        batch = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._rows) for name, leaf in batch.items()}
        flag = jax.ShapeDtypeStruct((self.mesh.size,), jnp.int32, sharding=self._each)
        with jax.set_mesh(self.mesh):
            return self._update.lower(self.like, batch, flag)

    def saved(self, state: steps.State) -> steps.State:
        """What a checkpoint holds."""
        return state

    def done(self, state: steps.State) -> int:
        """Updates so far."""
        return int(state.step)

    def restored(self, state: steps.State) -> steps.State:
        """The inverse of `saved`."""
        return state

    def _start(self, given: Any = None) -> steps.State:
        settings = {"freeze": self.freeze, "frozen_dtype": self.frozen_dtype}
        return steps.start(self.task, self.optimizer, jax.random.key(self.seed), given, **settings)

    @functools.cached_property
    def _update(self):
        def update(state, batch, flag):
            key = jax.random.key(self.seed + 1)
            settings = {"accumulate": self.accumulate, "freeze": self.freeze, "steep": self.steep}
            state, facts = steps.update(self.task, self.optimizer, state, key, batch, **settings)
            return state, facts | {"stop": flag.max(), "rate": self.rate(state.step - 1) * optimizers.share(state.opt)}

        laid = {"in_shardings": (self._layout, self._rows, self._each), "out_shardings": (self._layout, self._everywhere)}
        return jax.jit(update, donate_argnums=0, **laid)

    def _run(self, compiled, *given):
        with jax.set_mesh(self.mesh):  # what the model's own constraints name
            return compiled(*given)

    @functools.lru_cache(maxsize=4)  # noqa: B019 a program lives as long as its process
    def _flag(self, stop: int) -> jax.Array:
        return jax.make_array_from_callback((self.mesh.size,), self._each, lambda _: np.full(1, stop, np.int32))

    @property
    def _layout(self):
        return jax.tree.map(lambda leaf: leaf.sharding, self.like)

    @property
    def _rows(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(ROWS))

    @property
    def _each(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(AXES))

    @property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def _struct(self, leaf, spec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(self.mesh, spec))

    def _put(self, leaf: np.ndarray, like: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, like.sharding, lambda index: np.asarray(leaf[index], like.dtype))


@dataclasses.dataclass(frozen=True)
class Copies(Program):
    """The same program by `jax.pmap`: every device of one process holds a whole copy of the state and its share of the rows."""

    def start(self, params: Any = None) -> steps.State:
        return self.restored(jax.jit(self._start)(None if params is None else partition.split(params, self.freeze)))

    def update(self, state, batch, stop: int = 0):
        state, facts = self._update(state, batch)
        return state, {name: value[0] for name, value in facts.items()} | {"stop": np.int32(stop)}

    def place(self, make, size: int):
        count = self.mesh.size
        return {name: array.reshape(count, size // count, *array.shape[1:]) for name, array in make(slice(0, size)).items()}

    def total(self, function):
        compiled = jax.pmap(function, devices=self._devices)
        return lambda state, batch: jax.tree.map(lambda leaf: leaf.sum(axis=0), compiled(state, batch))

    def gatherer(self, function):
        compiled = jax.jit(function)
        return lambda state: compiled(self.saved(state))

    def saved(self, state):
        return jax.tree.map(lambda leaf: leaf[0], state)

    def done(self, state):
        return int(state.step[0])

    def restored(self, state):
        copies = NamedSharding(jax.sharding.Mesh(np.asarray(self._devices), ("rows",)), PartitionSpec("rows"))

        def copied(leaf):
            each = [jax.device_put(leaf[None], device) for device in self._devices]
            return jax.make_array_from_single_device_arrays((len(each), *leaf.shape), copies, each)

        return jax.tree.map(copied, state)

    @property
    def _devices(self) -> list:
        return list(self.mesh.devices.reshape(-1))

    @functools.cached_property
    def _update(self):
        def update(state, batch):
            settings = {"freeze": self.freeze, "accumulate": self.accumulate, "steep": self.steep, "axis": "rows"}
            state, facts = steps.update(self.task, self.optimizer, state, jax.random.key(self.seed + 1), batch, **settings)
            return state, facts | {"rate": self.rate(state.step - 1) * optimizers.share(state.opt)}

        return jax.pmap(update, axis_name="rows", donate_argnums=0, devices=self._devices)
