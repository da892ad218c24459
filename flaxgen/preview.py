"""Images on a terminal: two pixels a character, the upper half of a block in one colour on the other."""

import math

import numpy as np

SMALLEST = 12  # pixels a side, below which nothing is recognised
BLOCK = "▀"


def text(image_BYXC: np.ndarray, columns: int | None, width: int, height: int):
    """(text of `rich`, how many of the images it shows) in at most so many characters and lines.

    columns: side by side, by default about as many as lines, if there is room. Images are shrunk by a whole factor until all of them fit,
    to 12 pixels a side at least; then the first that fit are shown.
    """
    from rich.text import Text

    image_BYXC, columns, count = _fitted(image_BYXC, columns, width, height)
    made = Text(no_wrap=True, overflow="crop")
    for start in range(0, count, columns):
        beside = image_BYXC[start : min(start + columns, count)]
        for row in range(0, image_BYXC.shape[1], 2):
            for image_YXC in beside:
                for upper_C, lower_C in zip(image_YXC[row], image_YXC[row + 1], strict=True):
                    made.append(BLOCK, f"rgb({_colour(upper_C)}) on rgb({_colour(lower_C)})")
                made.append(" ")
            made.append("\n")
    return made, count


def _fitted(image_BYXC: np.ndarray, columns: int | None, width: int, height: int) -> tuple[np.ndarray, int, int]:
    """The images shrunk, how many go side by side, and how many there is room for."""
    count = len(image_BYXC)
    for factor in range(1, max(1, min(image_BYXC.shape[1:3]) // SMALLEST) + 1):
        shrunk_BYXC = _shrunk(image_BYXC, factor)
        across, down = width // (shrunk_BYXC.shape[2] + 1), height // (shrunk_BYXC.shape[1] // 2)
        wanted = columns or math.ceil(count**0.5)
        if wanted <= across and -(-count // wanted) <= down:
            return shrunk_BYXC, wanted, count
        if columns is None and across * down >= count:
            return shrunk_BYXC, across, count
    across = max(1, min(across, columns or across))
    return shrunk_BYXC, across, min(count, across * max(1, down))


def _shrunk(image_BYXC: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares; what is left over at the edges goes, and the last line of an odd number."""
    rows, height, width, channels = image_BYXC.shape
    lines, across = height // factor, width // factor
    part_BYXC = image_BYXC[:, : lines * factor, : across * factor].reshape(rows, lines, factor, across, factor, channels)
    return part_BYXC.mean(axis=(2, 4))[:, : max(2, lines - lines % 2)].astype(np.uint8)


def _colour(pixel_C: np.ndarray) -> str:
    return ",".join(map(str, pixel_C.tolist() * (3 // len(pixel_C))))
