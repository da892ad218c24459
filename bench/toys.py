"""Energies of points on a plane: learnt density against the truth, and the sum of two energies against the product of two densities.

    python -m bench toys [--updates 4000] [--png docs/pictures/toys.png]

Divergences are KL(truth ‖ learnt) in nats, integrated over a grid of 161 by 161 places.
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import report

from flaxgen import energies, loop
from flaxgen.chains import langevin
from flaxgen.measure import density
from flaxgen.models import field, field_config
from flaxgen.tasks import points

SIDE = 3.6  # the grid goes from -SIDE to SIDE
PLACES = 161
AROUND = np.arange(8) * np.pi / 4
TRUTHS = {  # of each: the centres of its Gaussians, and their deviations along both axes
    "ring of eight": (1.8 * np.stack([np.cos(AROUND), np.sin(AROUND)], axis=1), (0.3, 0.3)),
    "upright bars": (np.array([[-1.2, 0.0], [1.2, 0.0]]), (0.35, 1.0)),
    "level bars": (np.array([[0.0, -1.2], [0.0, 1.2]]), (1.0, 0.35)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=512, help="points an update, and chains")
    parser.add_argument("--moves", type=int, default=10, help="of the chains, an update")
    parser.add_argument("--step", type=float, default=0.03, help="of Langevin dynamics")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--png", type=pathlib.Path, default=pathlib.Path("docs/pictures/toys.png"))
    given = parser.parse_args()
    model = field.Field(field_config.Config(bowl=1.5))
    task = points.Points(model, given.batch, given.moves, given.step)
    rows, panels, trees = [], {}, {}
    for name, truth in TRUTHS.items():
        begun = time.perf_counter()
        trees[name] = learnt(task, truth, given.updates, given.seed)
        seconds = time.perf_counter() - begun
        panels[name] = (energy(truth), drawn(model.apply, trees[name]), sampled(energies.Single(model), trees[name], given.step))
        rows.append({"density": name, "KL": divergence(panels[name]), "seconds": seconds})
    pair = ("upright bars", "level bars")
    both, tree = energies.total(model, model), tuple(trees[name] for name in pair)
    summed = drawn(lambda params, x_BD: both(params, x_BD, None, None), tree)
    panels["their product"] = (sum(energy(TRUTHS[name]) for name in pair), summed, sampled(both, tree, given.step))
    rows.append({"density": "their product, by the sum of the two", "KL": divergence(panels["their product"]), "seconds": None})
    draw(panels, given.png)
    report.finish("toys", rows, ("jax", "jaxlib", "numpy", "optax"), **{name: v for name, v in vars(given).items() if name != "png"})


def learnt(task: points.Points, truth, updates: int, seed: int):
    """The parameters of an energy after so many updates by Adam, each on new draws of the truth."""
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, updates), 0.5, 0.99)
    init_key, carry_key, run_key = jax.random.split(jax.random.key(seed), 3)

    def update(state, number):
        params, moments, carry = state
        data_key, loss_key = jax.random.split(jax.random.fold_in(run_key, number))
        batch = {"x_BD": points_of(truth, data_key, task.chains)}
        slope, (carry, _) = jax.grad(task.loss, has_aux=True)(params, carry, loss_key, batch)
        change, moments = optimizer.update(slope, moments)
        return (optax.apply_updates(params, change), moments, carry), None

    params = task.init(init_key)
    begun = (params, optimizer.init(params), task.carry(carry_key))
    state, _ = jax.jit(lambda state: jax.lax.scan(update, state, jnp.arange(updates)))(begun)
    return jax.block_until_ready(state[0])


def points_of(truth, key, count: int):
    centre_ND, deviation_D = (jnp.asarray(part, jnp.float32) for part in truth)
    which_key, where_key = jax.random.split(key)
    which_B = jax.random.randint(which_key, (count,), 0, len(centre_ND))
    return centre_ND[which_B] + deviation_D[None] * jax.random.normal(where_key, (count, 2))


def grid() -> np.ndarray:
    """x_BD of all places, row by row from below."""
    line = np.linspace(-SIDE, SIDE, PLACES)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def energy(truth) -> np.ndarray:
    """-log density of a mixture over the grid, up to a constant."""
    centre_ND, deviation_D = truth
    away_BND = (grid()[:, None] - centre_ND) / np.asarray(deviation_D)
    return -np.logaddexp.reduce(-np.square(away_BND).sum(axis=2) / 2, axis=1).reshape(PLACES, PLACES)


def drawn(apply, params) -> np.ndarray:
    """What a model gives over the grid."""
    return np.asarray(jax.jit(apply)(params, jnp.asarray(grid(), jnp.float32))).reshape(PLACES, PLACES)


def sampled(summed, params, step: float, count: int = 1500, moves: int = 1000) -> np.ndarray:
    """Where chains of true Langevin dynamics end that begin at draws of a wide Gaussian."""
    begun = langevin.start(2 * jax.random.normal(jax.random.key(1), (count, 2)), step=step, noise=1.0)
    return np.asarray(loop.generate(langevin.Langevin(summed, "true", None), params, jax.random.key(2), begun, steps=moves))


def divergence(panel) -> float:
    return density.kl(*(density.log_probs(each) for each in panel[:2]))


def draw(panels: dict, target: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(panels), 4, figsize=(9.2, 2.35 * len(panels)), layout="constrained")
    extent = (-SIDE, SIDE, -SIDE, SIDE)
    for row, (name, (truth, found, x_BD)) in zip(axes, panels.items(), strict=True):
        top = np.exp(density.log_probs(truth)).max()
        for place, each in enumerate((truth, found)):
            row[place].imshow(np.exp(density.log_probs(each)), origin="lower", extent=extent, cmap="magma", vmin=0, vmax=top)
        row[2].imshow(np.minimum(found - found.min(), 12), origin="lower", extent=extent, cmap="viridis")
        row[3].plot(*x_BD.T, ".", markersize=1.5, color="black", alpha=0.6)
        row[3].set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
        row[0].set_ylabel(name)
        row[1].set_xlabel(f"KL {divergence((truth, found)):.4f} nats", fontsize=9)
    for axis, title in zip(axes[0], ("truth", "learnt density", "learnt energy, up to 12", "Langevin samples"), strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
