"""Langevin dynamics: noise, and steps down an energy, until points are where the energy is low."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen.protocols import Array, Params

Kind = Literal["published", "true"]


@struct.dataclass
class Start:
    """What a chain starts from; every leaf begins with the rows.

    x_BYXC: images in [0, 1], or points x_BD. step_B, noise_B, clip_B: see Langevin. label_B: of a class-conditional model, or a tuple of
    labels for energies.Sum. kept_BYXC: bool, what never changes, as the known part of an image that is inpainted.
    """

    x_BYXC: Array
    step_B: Array
    noise_B: Array
    clip_B: Array
    label_B: Any = None
    kept_BYXC: Array | None = None


@struct.dataclass
class Memory:
    start: Start
    key_B: Array


@struct.dataclass
class State:
    x_BYXC: Array
    energy_B: Array  # of the point before the last move
    count_B: Array


@dataclasses.dataclass(frozen=True)
class Langevin:
    """`generate(Langevin(Single(model)), params, key, start(...), steps=60)` gives x_BYXC after so many moves.

    energy: a callable of flaxgen.energies. One move of a point x, alpha a standard normal draw, by the kind:
        "published"  x += noise alpha;  x -= step clip(grad U(x), ±clip);  clip to the bounds   (Du and Mordatch 2019; noise first, and not
                     linked with the step, so no sampler of exp(-U); clip 0: none)
        "true"       x += -step/2 clip(grad U(x), ±clip) + sqrt(step) noise alpha               (with noise 1 and clip 0 the discretised
                     Langevin equation: of U = x²/2 the stationary variance is 1 / (1 - step/4))
    bounds: of every number of a point, None for none.
    """

    energy: Callable[..., Array]
    kind: Kind = "published"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    compiled: ClassVar[bool] = True

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r}: wanted one of {', '.join(get_args(Kind))}")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds={self.bounds!r}: wanted a smaller and a larger number, or None")

    def check(self, params: Params, key_B: Array, given: Start, steps: int) -> None:
        if not isinstance(given, Start):
            raise ValueError(f"given is a {type(given).__name__}; wanted a langevin.Start, as langevin.start(x_BYXC) makes it")
        rows = len(key_B)
        for name in ("step_B", "noise_B", "clip_B"):
            value_B = np.asarray(getattr(given, name))
            if value_B.shape != (rows,) or not (np.isfinite(value_B) & (value_B >= 0)).all():
                raise ValueError(f"{name} is {value_B!r:.80}; wanted {rows} finite numbers of at least 0, one for each row")
        x_BYXC = np.asarray(given.x_BYXC)
        low, high = self.bounds or (-np.inf, np.inf)
        if not np.issubdtype(x_BYXC.dtype, np.floating) or not np.isfinite(x_BYXC).all() or (x_BYXC < low).any() or (x_BYXC > high).any():
            raise ValueError(f"x of {x_BYXC.dtype} {x_BYXC.shape}: wanted finite floating-point numbers from {low:g} to {high:g}")
        if given.kept_BYXC is not None:
            kept = np.asarray(given.kept_BYXC)
            if kept.dtype != bool or kept.shape != x_BYXC.shape:
                raise ValueError(f"kept is {kept.dtype} of shape {kept.shape}; wanted bool of the shape of x, {x_BYXC.shape}")
        self.energy.check(given.label_B, rows)

    def start(self, params: Params, key_B: Array, given: Start) -> tuple[Memory, State]:
        memory, state = self.begin(key_B, given)
        return memory, self.step(params, memory, state)

    def begin(self, key_B: Array, given: Start) -> tuple[Memory, State]:
        """Memory, and the state before the first move: who scans over all moves compiles a move once."""
        zero_B = jnp.zeros((len(key_B),))
        return Memory(given, key_B), State(given.x_BYXC, zero_B, zero_B.astype(jnp.int32))

    def step(self, params: Params, memory: Memory, state: State) -> State:
        given, x_BYXC = memory.start, state.x_BYXC
        # Noise is drawn by keys 0, 1, 2, ..., dropout by keys counted from the other end.
        key_B, drop_B = (jax.vmap(jax.random.fold_in)(memory.key_B, number_B) for number_B in (state.count_B, ~state.count_B))
        noise_BYXC = jax.vmap(lambda key: jax.random.normal(key, x_BYXC.shape[1:], x_BYXC.dtype))(key_B)
        step_BYXC, scale_BYXC, clip_BYXC = (_wide(value_B, x_BYXC) for value_B in (given.step_B, given.noise_B, given.clip_B))
        if self.kind == "published":
            x_BYXC = x_BYXC + scale_BYXC * noise_BYXC
        energy_B, slope_BYXC = self._slope(params, x_BYXC, given.label_B, drop_B)
        slope_BYXC = jnp.where(clip_BYXC > 0, jnp.clip(slope_BYXC, -clip_BYXC, clip_BYXC), slope_BYXC)
        if self.kind == "published":
            x_BYXC = x_BYXC - step_BYXC * slope_BYXC
        else:
            x_BYXC = x_BYXC - step_BYXC / 2 * slope_BYXC + jnp.sqrt(step_BYXC) * scale_BYXC * noise_BYXC
        if self.bounds is not None:
            x_BYXC = jnp.clip(x_BYXC, *self.bounds)
        if given.kept_BYXC is not None:
            x_BYXC = jnp.where(given.kept_BYXC, given.x_BYXC, x_BYXC)
        return State(x_BYXC, energy_B, state.count_B + 1)

    def done(self, state: State) -> Array:
        return jnp.zeros((len(state.count_B),), bool)

    def read(self, state: State) -> Array:
        return state.x_BYXC

    def _slope(self, params: Params, x_BYXC: Array, label_B: Any, key_B: Array) -> tuple[Array, Array]:
        def total(x_BYXC):
            energy_B = self.energy(params, x_BYXC, label_B, key_B)
            return energy_B.sum(), energy_B

        slope_BYXC, energy_B = jax.grad(total, has_aux=True)(x_BYXC)
        return energy_B, slope_BYXC


def start(x_BYXC, *, step: float, noise: float, clip: float = 0.0, label_B: Any = None, kept_BYXC=None) -> Start:
    """A Start with the same numbers for all rows."""
    x_BYXC = jnp.asarray(x_BYXC)
    step_B, noise_B, clip_B = (jnp.full((len(x_BYXC),), value, jnp.float32) for value in (step, noise, clip))
    return Start(x_BYXC, step_B, noise_B, clip_B, label_B, kept_BYXC)


def _wide(value_B: Array, x_BYXC: Array) -> Array:
    """The rows' numbers in the shape of x."""
    return jnp.broadcast_to(value_B.reshape(-1, *(1,) * (x_BYXC.ndim - 1)), x_BYXC.shape).astype(x_BYXC.dtype)
