"""The density of points by maximum likelihood: an energy low on data, high where Langevin chains that never end have come to."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from flaxgen import energies
from flaxgen.chains import langevin
from flaxgen.protocols import Array


@struct.dataclass
class Carry:
    """Where the chains stand, x_ND."""

    x_ND: Array


@dataclasses.dataclass(frozen=True)
class Points:
    """mean E(data) - mean E(chains), whose slope is that of the negative log-likelihood where the chains follow exp(-E).

    A batch holds x_BD. The chains (Tieleman 2008) go on from update to update by `moves` moves of true Langevin dynamics, whose density is
    that of exp(-E) up to the order of `step`; a share `fresh` of them begins anew each time, at draws of a Gaussian of deviation `spread`.
    Facts besides the weight: energy_data and energy_sample, the two means.
    """

    model: Any
    chains: int = 512
    moves: int = 20
    step: float = 0.02
    fresh: float = 0.02
    spread: float = 2.0

    def __post_init__(self):
        for name in ("chains", "moves"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted a whole number of at least 1")
        for name in ("step", "spread"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted a positive number")
        if not 0 <= self.fresh <= 1:
            raise ValueError(f"fresh={self.fresh!r}: wanted a share from 0 to 1")

    @property
    def chain(self) -> langevin.Langevin:
        return langevin.Langevin(energies.Single(self.model), "true", None)

    def init(self, key):
        return self.model.init(key, jnp.zeros((1, self.model.config.width)))

    def carry(self, key):
        return Carry(self.spread * jax.random.normal(key, (self.chains, self.model.config.width)))

    def loss(self, params, carry, key, batch):
        place_key, chance_key, move_key = jax.random.split(key, 3)
        begun_ND = self.spread * jax.random.normal(place_key, carry.x_ND.shape)
        fresh_ND = jnp.broadcast_to(jax.random.uniform(chance_key, (self.chains, 1)) < self.fresh, carry.x_ND.shape)
        end_ND = self._run(
            jax.lax.stop_gradient(params), jnp.where(fresh_ND, begun_ND, carry.x_ND), jax.random.split(move_key, self.chains)
        )
        data, sample = (self.model.apply(params, x_BD).mean() for x_BD in (batch["x_BD"], end_ND))
        facts = {"weight": jnp.float32(len(batch["x_BD"])), "energy_data": data, "energy_sample": sample}
        return data - sample, (Carry(end_ND), facts)

    def export(self, params, carry):
        return params

    def _run(self, params, x_ND, key_N):
        chain = self.chain
        memory, state = chain.begin(key_N, langevin.start(x_ND, step=self.step, noise=1.0))
        return chain.read(jax.lax.scan(lambda state, _: (chain.step(params, memory, state), None), state, length=self.moves)[0])
