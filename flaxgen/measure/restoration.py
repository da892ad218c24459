"""How near a restored picture is to the one it comes from."""

import numpy as np


def psnr(image_NYXC: np.ndarray, truth_NYXC: np.ndarray, where_NYX: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures, 10 log10(255² / mean squared error over all of them); inf where they are equal.

    where_NYX: bool, the pixels that count, such as those that were missing.
    """
    image, truth = np.asarray(image_NYXC), np.asarray(truth_NYXC)
    if image.shape != truth.shape or image.ndim != 4 or not (image.dtype == truth.dtype == np.uint8):
        raise ValueError(f"{image.dtype} {image.shape} against {truth.dtype} {truth.shape}; wanted uint8 of one shape (N, Y, X, C)")
    square_NYXC = (image.astype(np.float64) - truth.astype(np.float64)) ** 2
    if where_NYX is not None:
        if np.shape(where_NYX) != image.shape[:3] or np.asarray(where_NYX).dtype != bool:
            raise ValueError(f"where is {np.asarray(where_NYX).dtype} {np.shape(where_NYX)}; wanted bool of shape {image.shape[:3]}")
        square_NYXC = square_NYXC[np.asarray(where_NYX)]
    if not square_NYXC.size:
        raise ValueError("no pixel to compare; wanted at least one")
    error = square_NYXC.mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def salted(image_NYXC: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The pictures with this share of their pixels black or white, evenly (salt and pepper); every picture has its own."""
    image_NYXC = np.asarray(image_NYXC)
    if image_NYXC.ndim != 4 or image_NYXC.dtype != np.uint8:
        raise ValueError(f"pictures of {image_NYXC.dtype} {image_NYXC.shape}; wanted uint8 of shape (N, Y, X, C)")
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: wanted a share of the pixels from 0 to 1")
    noise = np.random.default_rng(seed)
    drawn_NYX = noise.random(image_NYXC.shape[:3])
    grain_NYX = np.where(noise.random(image_NYXC.shape[:3]) < 0.5, 0, 255).astype(np.uint8)
    return np.where((drawn_NYX < share)[..., None], grain_NYX[..., None], image_NYXC)
