"""What a Painter shares with its door: images as people give them, masks, and rows cut into few sizes."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

Array = np.ndarray
Region = Literal["top", "bottom", "left", "right", "middle"]
GREY = 127  # what is to be painted, until it is
ROWS = (64, 16, 4, 1)  # images that are painted together: a block is more than half full


def images(name: str, given: Any, shape: tuple[int, int, int]) -> Array:
    """image_BYXC, uint8, of one image or several as a person gives them: YXC or BYXC, the channel left out where it is one."""
    image = np.asarray(given)
    height, width, channels = shape
    wanted = f"{height} by {width} with {channels} channel{'s' if channels > 1 else ''}"
    if image.dtype != np.uint8:
        raise ValueError(
            f"{name} holds {image.dtype}; wanted uint8, 0 to 255. Of numbers from 0 to 1, (image * 255).astype(np.uint8) makes that, of "
            "files flaxgen.gallery.read"
        )
    if channels == 1 and image.shape[-2:] == shape[:2] and image.ndim in (2, 3):
        image = image[..., None]
    if image.shape[-3:] != shape or image.ndim not in (3, 4) or not image.size:
        raise ValueError(f"{name} has shape {np.shape(given)}; this model paints {wanted}. Of files, flaxgen.gallery.read makes that")
    return image.reshape(-1, *shape)


def mask(given: Region | Any, rows: int, shape: tuple[int, int, int]) -> Array:
    """bool, painted_BYXC: what is to be painted, named as a half of the image ("middle": the half of both sides), or given as YX or BYX."""
    height, width, _ = shape
    if isinstance(given, str):
        if given not in get_args(Region):
            raise ValueError(f"mask={given!r}: wanted one of {', '.join(get_args(Region))}, or an array of {height} by {width} booleans")
        painted = np.zeros((height, width), bool)
        up, down, left, right = height // 2, -(-height // 2), width // 2, -(-width // 2)
        painted[
            {
                "top": np.s_[:up],
                "bottom": np.s_[down:],
                "left": np.s_[:, :left],
                "right": np.s_[:, right:],
                "middle": np.s_[height // 4 : height - height // 4, width // 4 : width - width // 4],
            }[given]
        ] = True
    else:
        painted = np.asarray(given)
        if painted.dtype != bool or painted.shape not in ((height, width), (rows, height, width)):
            raise ValueError(
                f"mask is {painted.dtype} of shape {painted.shape}; wanted booleans of shape {(height, width)}, true where to paint, or "
                f"one such mask for each of the {rows} images"
            )
    if not painted.any():
        raise ValueError("the mask is true nowhere, so there is nothing to paint; mark what is missing")
    return np.broadcast_to(painted[..., None], (rows, *shape))


def labels(given: Any, classes: Sequence[str] | int, samples: int) -> Array:
    """label_B of `samples` images: of one class for all, by name or number, of one each, or (None) of every class in turn.

    classes: their names, or how many there are. A name may be short, and in small letters, where only one class has it; a number may be
    written out.
    """
    names = [str(number) for number in range(classes)] if isinstance(classes, int) else list(classes)
    if given is None:
        return np.arange(samples, dtype=np.int32) % len(names)
    given = given.tolist() if hasattr(given, "tolist") else given  # of numpy's and jax's arrays
    several = given if isinstance(given, list | tuple) else [given] * samples
    if len(several) != samples:
        raise ValueError(f"{len(several)} labels for {samples} images; give one for all, or one for each")
    return np.array([_label(one, names) for one in several], np.int32)


def _label(given: Any, names: list[str]) -> int:
    if isinstance(given, int | np.integer) and not isinstance(given, bool) and 0 <= given < len(names):
        return int(given)
    if isinstance(given, str):
        small, wanted = [name.casefold() for name in names], given.strip().casefold()
        fits = [number for number, name in enumerate(small) if name == wanted] or [n for n, name in enumerate(small) if wanted in name]
        if wanted and len(fits) == 1:
            return fits[0]
        numbers = [str(number) for number in range(len(names))]
        if wanted in numbers:
            return numbers.index(wanted)
    raise ValueError(f"label={given!r}: wanted one of {', '.join(names)}, or a number from 0 to {len(names) - 1}")


def blocks(rows: int) -> Iterator[Array]:
    """The places of `rows` rows in blocks of the sizes ROWS; a place that is too large fills a block up, and is nobody's."""
    start = 0
    while start < rows:
        size = next(size for size in ROWS if 2 * (rows - start) > size)
        yield np.arange(start, start + size, dtype=np.int32)
        start += size


def middle(image_BYXC: Array) -> Array:
    """8-bit images as float32 in [0, 1], each number in the middle of what rounds down to it."""
    return (image_BYXC.astype(np.float32) + np.float32(0.5)) / 256


def pixels(x_BYXC: Array) -> Array:
    """The inverse of `middle`: uint8 of numbers in [0, 1]."""
    return np.minimum(x_BYXC * 256, 255).astype(np.uint8)
