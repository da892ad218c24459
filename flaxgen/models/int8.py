"""Weights in int8: which tensors, their shapes, and the numbers themselves. numpy only, so that conversion can use it.

Kernels and the token embedding (the tied output head) become int8 with one float32 scale a row, at `kernel_scale` and `embedding_scale`
beside them. Positions, norms and biases stay as they are: together they are under 1 % of a model.
"""

import numpy as np

LARGEST = 127


def coded(path: str) -> bool:
    """Whether the tensor of this path is one that becomes int8."""
    return path.endswith("/kernel") or path.endswith("embed/token/embedding")


def shapes(config) -> dict[str, tuple[int, ...]]:
    """`config.shapes()` with the scales, each after what it scales."""
    tree = {}
    for path, shape in config.shapes().items():
        tree[path] = shape
        if coded(path):
            tree[f"{path}_scale"] = shape[:-1]
    return tree


def code(kernel_FD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(number_FD int8, scale_F float32) with kernel = number * scale to half a scale; scale = max|row| / 127, rounded to the nearest."""
    kernel_FD = np.asarray(kernel_FD, np.float32)
    largest_F = np.abs(kernel_FD).max(axis=-1)
    if not np.isfinite(largest_F).all():
        raise ValueError(
            f"{np.sum(~np.isfinite(largest_F))} rows hold numbers that are not finite; int8 cannot hold them, repair the model"
        )
    scale_F = largest_F / np.float32(LARGEST)
    # Divided by what is stored, so that decoding and coding again gives the same numbers; a scale that underflowed leaves a row of zeros.
    number_FD = np.rint(kernel_FD / np.where(scale_F > 0, scale_F, 1)[..., None]).clip(-LARGEST, LARGEST)
    return np.where(scale_F[..., None] > 0, number_FD, 0).astype(np.int8), scale_F


def decode(number_FD: np.ndarray, scale_F: np.ndarray) -> np.ndarray:
    """kernel_FD in float32."""
    return number_FD.astype(np.float32) * np.asarray(scale_F, np.float32)[..., None]
