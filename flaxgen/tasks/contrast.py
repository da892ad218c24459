"""Energies learnt by contrast: low on data, high where the model's own Markov chains end."""

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import struct, traverse_util

from flaxgen import affine, energies, replay
from flaxgen.chains import langevin
from flaxgen.nn import spectral
from flaxgen.protocols import Array, Params

Loss = Literal["cd", "logsumexp", "softplus"]
KL = Literal["none", "chain", "last"]
Labels = Literal["data", "kept"]


@struct.dataclass
class Carry:
    """What an update hands to the next: the replay buffer, and where power iteration stands ({path: u_F}, empty without)."""

    buffer: replay.Buffer
    power: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Contrast:
    """loss(E(data), E(samples)) + regulariser (mean E(data)² + mean E(samples)²), the samples where chains of the buffer end.

    A batch holds image_BYXC uint8, row_B (a row's number in the whole batch; absent 0, 1, ...) and label_B where the model has classes.
    Facts besides the weight: energy_data, energy_sample, their means; move, the mean change of a number by
    the chain; fresh, the share of chains that began with noise.

    loss: "cd" mean E(data) - mean E(samples); "logsumexp" the same with samples weighed by exp(-E), the normaliser + 1e-4; "softplus" mean
        log(1 + exp(E(data) - E(samples))), row by row.
    moves, kind, step, noise, clip: of the chain, see langevin.Langevin. buffer: images it holds. fresh: share of chains begun with noise.
    augment: share of the chains that go on from the buffer whose image is transformed first (affine.transformed; the data augmentation of
        Du et al. 2020, arXiv 2012.01316): so they pass, and learn to shun, what lies far from the data and from noise.
    labels: of chains that go on from the buffer, of a class-conditional model: those of the batch's data, as published, or "kept": an
        image stays of the class that it began with.
    kl: the loss of the sampler, E(samples) with the parameters held and the samples not (loss_energy in ebm_code_release):
        "chain" through every move, "last" through the last one (Du et al. 2020); kl_weight times its mean.
    entropy: weight of minus the mean log distance from each sample to the nearest of the others in its batch, with kl only (Du et al. look
        among 100 images of the buffer).
    iterations: steps of power iteration an update. dropout of the model is drawn in the chain too, as published.
    largest: where |mean E| is more, or the gap between the means, the loss is NaN, so that the trainer takes the update for a bad one.
    """

    model: Any
    loss_kind: Loss = "cd"
    regulariser: float = 1.0
    moves: int = 60
    kind: langevin.Kind = "published"
    step: float = 10.0
    noise: float = 0.005
    clip: float = 0.01
    buffer: int = 10_000
    fresh: float = 0.05
    augment: float = 0.0
    labels: Labels = "data"
    kl: KL = "none"
    kl_weight: float = 1.0
    entropy: float = 0.0
    iterations: int = 1
    largest: float = 100.0

    def __post_init__(self):
        for name, choices in (("loss_kind", Loss), ("kl", KL), ("labels", Labels), ("kind", langevin.Kind)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted one of {', '.join(get_args(choices))}")
        for name, least in (("moves", 1), ("buffer", 1), ("iterations", 1)):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted a whole number of at least {least}")
        for name in ("regulariser", "step", "noise", "clip", "kl_weight", "entropy", "largest"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted a finite number of at least 0")
        for name in ("fresh", "augment"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted a share from 0 to 1")
        if self.entropy and self.kl == "none":
            raise ValueError(f"entropy={self.entropy} moves samples, which kl='none' holds; give kl='last' or 'chain'")

    @property
    def chain(self) -> langevin.Langevin:
        return langevin.Langevin(energies.Single(self.model, "drawn"), self.kind)

    def init(self, key):
        c = self.model.config
        image_BYXC = jnp.zeros((1, c.size, c.size, c.channels))
        return self.model.init(key, image_BYXC, jnp.zeros((1,), jnp.int32) if c.classes else None)

    def carry(self, key):
        c = self.model.config
        shapes = {path: jnp.zeros(c.shapes()[path]) for path in c.normalised()}
        kept = self.labels == "kept" and c.classes > 0
        return Carry(replay.empty(self.buffer, (c.size, c.size, c.channels), labels=kept), spectral.begin(shapes, key))

    def loss(self, params, carry, key, batch):
        rows = len(batch["image_BYXC"])
        row_B = batch.get("row_B", jnp.arange(rows))
        noise_B, draw_B, move_B, drop_B, augment_B = (_keys(jax.random.fold_in(key, number), row_B) for number in range(5))
        normal, power = self.normalised(params, carry.power)
        label_B = batch.get("label_B")
        begun_BYXC, chain_label_B, fresh_B = replay.draw(carry.buffer, draw_B, self.fresh, label_B)
        if self.augment:
            begun_BYXC = jnp.where(fresh_B[:, None, None, None], begun_BYXC, augmented(begun_BYXC, augment_B, self.augment))
        end_BYXC = self._run(normal, begun_BYXC, move_B, chain_label_B)
        held_BYXC = jax.lax.stop_gradient(end_BYXC)
        both_BYXC = jnp.concatenate([dequantised(batch["image_BYXC"], noise_B), held_BYXC])
        both_label_B = None if label_B is None else jnp.concatenate([label_B, chain_label_B])
        energy_B = self._energy(normal, both_BYXC, both_label_B, jnp.concatenate([drop_B, drop_B]))
        data_B, sample_B = energy_B[:rows], energy_B[rows:]
        value = contrast(data_B, sample_B, self.loss_kind) + self.regulariser * squares(data_B, sample_B)
        if self.kl != "none":
            sampler_B = self._energy(jax.lax.stop_gradient(normal), end_BYXC, chain_label_B, drop_B)
            value += self.kl_weight * sampler_B.mean() - self.entropy * spread(end_BYXC)
        data, sample = data_B.mean(), sample_B.mean()
        sane = jnp.maximum(jnp.maximum(jnp.abs(data), jnp.abs(sample)), jnp.abs(data - sample)) <= self.largest
        facts = {"weight": jnp.float32(rows), "energy_data": data, "energy_sample": sample}
        facts |= {"move": jnp.abs(held_BYXC - begun_BYXC).mean(), "fresh": fresh_B.mean()}
        return jnp.where(sane, value, jnp.nan), (Carry(replay.add(carry.buffer, held_BYXC, chain_label_B), power), facts)

    def export(self, params, carry):
        return self.normalised(params, carry.power)[0]

    def normalised(self, params: Params, power: dict[str, Array]) -> tuple[Params, dict[str, Array]]:
        """The parameters with the kernels' spectral norms divided out, and where power iteration stands now."""
        kinds = self.model.config.normalised()
        flat = traverse_util.flatten_dict(params["params"], sep="/")
        made, power = spectral.normalise({path: flat[path] for path in kinds}, power, kinds, iterations=self.iterations)
        return {"params": traverse_util.unflatten_dict(flat | made, sep="/")}, power

    def _run(self, params, begun_BYXC, key_B, label_B):
        """Where the chains end; in reverse mode a scan is passed, a while loop is not."""
        chain, held = self.chain, jax.lax.stop_gradient(params)
        given = langevin.start(begun_BYXC, step=self.step, noise=self.noise, clip=self.clip, label_B=label_B)
        memory, state = chain.begin(key_B, given)

        def move(state, _):
            return chain.step(params if self.kl == "chain" else held, memory, state), None

        state = jax.lax.scan(move, state, length=self.moves - (self.kl == "last"))[0]
        if self.kl == "last":
            state = chain.step(params, memory, jax.lax.stop_gradient(state))
        return chain.read(state)

    def _energy(self, params, x_BYXC, label_B, key_B):
        return self.model.apply(params, x_BYXC, label_B, key_B=key_B if self.model.config.dropout else None)


def contrast(data_B: Array, sample_B: Array, kind: Loss) -> Array:
    """The loss of energies of data and of samples, see Contrast."""
    if kind == "softplus":
        return jax.nn.softplus(data_B - sample_B).mean()
    if kind == "cd":
        return data_B.mean() - sample_B.mean()
    weight_B = jax.lax.stop_gradient(jnp.exp(sample_B.min() - sample_B))
    return data_B.mean() - (weight_B * sample_B).sum() / (weight_B.sum() + 1e-4)


def squares(data_B: Array, sample_B: Array) -> Array:
    """What holds energies near 0: with the same sign for both, unlike the formula that is printed in kexue.fm 6612."""
    return jnp.square(data_B).mean() + jnp.square(sample_B).mean()


def spread(x_BYXC: Array) -> Array:
    """The mean log distance from a sample to the nearest other one, a bound of the entropy up to a constant."""
    x_BD = x_BYXC.reshape(len(x_BYXC), -1)
    held_ND = held_BD = jax.lax.stop_gradient(x_BD)
    # Who is nearest is told by |n|² - 2 b·n, without B² D differences; how far that is, by the difference itself.
    square_BN = jnp.square(held_ND).sum(1)[None] - 2 * jnp.einsum("BD,ND->BN", held_BD, held_ND, precision="highest")
    nearest_B = jnp.where(jnp.eye(len(x_BD), dtype=bool), jnp.inf, square_BN).argmin(1)
    square_B = jnp.square(x_BD - x_BD[nearest_B]).sum(1)
    return jnp.log(jnp.maximum(square_B, 1e-12)).mean() / 2


def augmented(image_BYXC: Array, key_B: Array, share: float) -> Array:
    """Each image transformed with the chance `share`."""

    def one(image_YXC, key):
        chance, how = jax.random.split(key)
        return jnp.where(jax.random.bernoulli(chance, share), affine.transformed(image_YXC, how), image_YXC)

    return jax.vmap(one)(image_BYXC, key_B)


def dequantised(image_BYXC: Array, key_B: Array) -> Array:
    """Whole numbers 0 to 255 as x / 255 · 255/256 + U(0, 1/256), in [0, 1]."""
    noise_BYXC = jax.vmap(lambda key: jax.random.uniform(key, image_BYXC.shape[1:]))(key_B)
    return (image_BYXC.astype(jnp.float32) + noise_BYXC) / 256


def _keys(key: Array, row_B: Array) -> Array:
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(row_B)
