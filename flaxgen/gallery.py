"""Images as files for people to look at: grids and film strips as PNG, chains as animated GIF; and files of images as arrays."""

import io
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flaxgen import disk

Array = np.ndarray
PAPER = 255  # between images, and where a grid has no more of them
EDGE = 96  # pixels: images are enlarged, by whole factors, to at most that
MOMENTS = 12  # of a film strip
FRAMES = 60  # of an animation
SHORTEST, LONGEST = 20, 655_350  # milliseconds of a frame: what browsers still keep to, and what fits into 16 bits of hundredths
PIXELS = 100_000_000  # of a picture that is read or written, or of all pictures of an animation
SIDE = 65_535  # pixels of an animation, which has 16 bits for its width and for its height
BYTES = 500_000_000  # of a file that is read


def check() -> None:
    """ImportError where pillow, which writes and reads the files, is not there."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError('pictures need pillow; install it with pip install "flaxgen[pictures]"') from None


def grid(image_BYXC: Array, *, columns: int | None = None, scale: int | None = None, gap: int = 4) -> Array:
    """picture_YXC of the images row by row, white between them.

    image_BYXC: uint8 with 1 or 3 channels. columns: by default so many that the grid is about square. scale: whole factor of enlargement,
    by default the largest at which images have at most 96 pixels a side. gap: pixels between images and around them.
    """
    _check(image_BYXC)
    rows, height, width, channels = image_BYXC.shape
    size, columns, scale = planned(rows, (height, width), columns=columns, scale=scale, gap=gap)
    step_y, step_x = height * scale + gap, width * scale + gap
    picture_YXC = np.full((*size, channels), PAPER, np.uint8)
    for number, image_YXC in enumerate(image_BYXC):
        y, x = gap + number // columns * step_y, gap + number % columns * step_x
        picture_YXC[y : y + height * scale, x : x + width * scale] = image_YXC.repeat(scale, axis=0).repeat(scale, axis=1)
    return picture_YXC


def planned(
    count: int, size: tuple[int, int], *, columns: int | None = None, scale: int | None = None, gap: int = 4
) -> tuple[tuple[int, int], int, int]:
    """((height, width) of the `grid` of so many images of this size, its columns, its scale); ValueError where that is too large."""
    height, width = size
    columns = min(count, _whole("columns", columns if columns is not None else math.ceil(count**0.5), 1))
    scale = _whole("scale", scale if scale is not None else max(1, EDGE // max(size)), 1)
    gap = _whole("gap", gap, 0)
    whole = -(-count // columns) * (height * scale + gap) + gap, columns * (width * scale + gap) + gap
    if math.prod(whole) > PIXELS:
        raise ValueError(
            f"a grid of {count:,} at scale {scale} has {whole[1]:,} by {whole[0]:,} pixels; at most {PIXELS:,} are drawn, so take fewer "
            "images or a smaller scale"
        )
    return whole, columns, scale


def strip(frames: Sequence[Array], *, moments: int = MOMENTS, scale: int | None = None, gap: int = 4) -> Array:
    """picture_YXC with a line for every image and its life from left to right.

    frames: image_BYXC at one time after another, of which `moments` at equal distances are shown, the first and the last among them.
    """
    shown = [frames[place] for place in spread(len(frames), _whole("moments", moments, 1))]
    _check_alike(shown)
    image_BNYXC = np.stack(shown, axis=1)
    return grid(image_BNYXC.reshape(-1, *image_BNYXC.shape[2:]), columns=len(shown), scale=scale, gap=gap)


def spread(length: int, most: int) -> list[int]:
    """At most `most` places of a sequence of that length at equal distances, the last one always and with it the first."""
    if length < 1:
        raise ValueError("there are no frames; give at least one")
    if most == 1:
        return [length - 1]
    return np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(int)).tolist()


def save(picture_YXC: Array, target: pathlib.Path) -> None:
    """Writes a PNG whole or not at all; missing folders are made."""
    check()
    if np.ndim(picture_YXC) != 3:
        raise ValueError(f"a picture of shape {np.shape(picture_YXC)}; wanted (height, width, channels). Of several images, grid makes one")
    _check(picture_YXC[None])
    _write(target, lambda file: _image(picture_YXC).save(file, format="PNG", optimize=True))


def animate(pictures: Sequence[Array], target: pathlib.Path, *, milliseconds: int | None = None, hold: int = 1500) -> None:
    """Writes an animated GIF that plays for ever, whole or not at all; greys are exact, colours become 256 of their own a picture.

    pictures: picture_YXC one after another, of which at most 60 at equal distances are kept. milliseconds: of each, at least 20, rounded to
    tens as the format has them; by default 60, of few pictures up to 200. hold: of the last one.
    """
    check()
    shown = [pictures[place] for place in spread(len(pictures), FRAMES)]
    milliseconds = (
        min(200, max(60, 2000 // len(shown))) if milliseconds is None else _whole("milliseconds", milliseconds, SHORTEST, LONGEST)
    )
    hold = _whole("hold", hold, SHORTEST, LONGEST)
    _check_alike([picture_YXC[None] for picture_YXC in shown])
    check_animation(len(shown), shown[0].shape[:2])
    first, *rest = map(_image, shown)
    durations = [milliseconds] * len(rest) + [hold]
    _write(target, lambda file: first.save(file, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0))


def check_animation(count: int, size: tuple[int, int]) -> None:
    """ValueError where so many pictures of this (height, width) are too large for an animation."""
    if max(size) > SIDE or count * math.prod(size) > PIXELS:
        raise ValueError(
            f"{count} pictures of {size[1]:,} by {size[0]:,} pixels are too large for an animation, which may be {SIDE:,} a side and have "
            f"{PIXELS:,} in all; take fewer images or a smaller scale"
        )


def read(path: pathlib.Path, shape: tuple[int, int, int]) -> Array:
    """image_YXC of this shape from a file of any format that pillow reads, of an animation the first picture.

    Turned as its EXIF says; transparent parts become white; made grey where the shape has 1 channel; what has other proportions loses what
    stands out at both ends; then it is resized (Lanczos). A file that has this shape already comes out as it is.
    """
    check()
    from PIL import Image, ImageOps

    if len(shape) != 3 or min(shape) < 1 or shape[2] not in (1, 3):
        raise ValueError(f"shape={shape}: wanted (height, width, 1 or 3 channels)")
    height, width, channels = shape
    turned = _opened(pathlib.Path(path))
    flat = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned).convert("L" if channels == 1 else "RGB")
    if flat.size != (width, height):
        flat = ImageOps.fit(flat, (width, height), method=Image.Resampling.LANCZOS)
    return np.asarray(flat).reshape(shape)


def _opened(path: pathlib.Path) -> Any:
    """The picture of a file, upright, as RGBA."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with disk.opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pillow's own about large pictures and odd files: what is too large is refused below
        try:
            if os.fstat(file).st_size > BYTES:
                raise ValueError(f"{os.fstat(file).st_size:,} bytes; at most {BYTES:,} are read")
            with open(file, "rb", closefd=False) as stream, Image.open(io.BytesIO(stream.read())) as found:
                if found.width * found.height > PIXELS:
                    raise ValueError(f"{found.width} by {found.height} pixels; at most {PIXELS:,} are read, so make it smaller first")
                if found.mode.startswith(("I", "F")):
                    raise ValueError(f"pixels of mode {found.mode}, wanted 8 bits a channel; save it so first")
                return ImageOps.exif_transpose(found).convert("RGBA")
        except Exception as error:  # pillow's decoders raise of all kinds on damaged files
            why = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"{path} cannot be read as an image ({why}); wanted a PNG, JPEG or another file that pillow reads") from error


def _image(picture_YXC: Array) -> Any:
    from PIL import Image

    return Image.fromarray(picture_YXC[:, :, 0] if picture_YXC.shape[2] == 1 else picture_YXC)


def _write(target: pathlib.Path, save: Callable[[io.BytesIO], None]) -> None:
    target = pathlib.Path(target)
    file = io.BytesIO()
    save(file)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(target, file.getvalue())
    except OSError as error:
        raise OSError(f"{target} cannot be written ({error.strerror}); name another file, or make room") from error


def _check(image_BYXC: Array) -> None:
    shape, dtype = np.shape(image_BYXC), getattr(image_BYXC, "dtype", type(image_BYXC).__name__)
    if len(shape) != 4 or dtype != np.uint8 or 0 in shape or shape[3] not in (1, 3):
        raise ValueError(f"images of {dtype} and shape {shape}: wanted uint8, at least one image, (height, width, 1 or 3 channels) each")


def _check_alike(frames: Sequence[Array]) -> None:
    for frame in frames:
        _check(frame)
        if np.shape(frame) != np.shape(frames[0]):
            raise ValueError(f"frames of shapes {np.shape(frames[0])[1:]} and {np.shape(frame)[1:]}: wanted all of one shape")


def _whole(name: str, value: int, least: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least or (most is not None and value > most):
        raise ValueError(f"{name}={value!r}: wanted a whole number {f'of at least {least}' if most is None else f'from {least} to {most}'}")
    return int(value)
