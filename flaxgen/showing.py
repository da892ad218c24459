"""Images as they come into being, shown on the terminal or kept as files."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import tyro

from flaxgen import gallery, preview, terminal

File = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")]
Whole = Annotated[int | None, tyro.conf.arg(metavar="INT")]
ENDS = {"png": ".png", "strip": ".png", "gif": ".gif"}
LINES = 8  # of a film strip
GIF_EDGE = 64  # pixels an image in an animation, whose noise can hardly be packed
REDRAWN = 10  # times a second

Frame = np.ndarray  # image_BYXC
Arrange = Callable[[Frame], Frame]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where the images go.

    Attributes:
        png: Write a grid of the images.
        strip: Write a film strip of the first 8 images, from noise on, a line each.
        gif: Write an animation of the chain, or of --between.
        columns: Of the grid, by default about as many as lines.
        scale: Pixels of a pixel, by default so many that images are about 90 wide.
    """

    png: File = None
    strip: File = None
    gif: File = None
    columns: Whole = None
    scale: Whole = None

    @property
    def files(self) -> dict[str, pathlib.Path]:
        return {name: getattr(self, name) for name in ENDS if getattr(self, name) is not None}

    def check(self) -> None:
        """ValueError or ImportError where something cannot be written."""
        for name, value in (("columns", self.columns), ("scale", self.scale)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value}: wanted a whole number of at least 1")
        for name, path in self.files.items():
            if path.suffix.lower() != ENDS[name]:
                raise ValueError(f"--{name} {path}: wanted a name that ends in {ENDS[name]}")
            terminal.check_target(f"--{name}", path)
        if len({path.resolve() for path in self.files.values()}) != len(self.files):
            raise ValueError("--png and --strip name one file; give each its own")
        if self.files or not on_terminal():
            gallery.check()
        if not self.files and not on_terminal():
            terminal.check_target("--png", _free())

    def check_size(self, count: int, columns: int | None, shape: tuple[int, int, int], frames: int) -> None:
        """ValueError where the files would be too large, of `count` images side by side and so many frames of a chain."""
        columns = self.columns or columns
        if self.png is not None or not self.files:
            gallery.planned(count, shape[:2], columns=columns, scale=self.scale)
        if self.strip is not None:
            moments = min(frames, gallery.MOMENTS)
            gallery.planned(min(count, LINES) * moments, shape[:2], columns=moments, scale=self.scale)
        if self.gif is not None:
            size, *_ = gallery.planned(count, shape[:2], columns=columns, scale=self._scale(shape))
            gallery.check_animation(min(frames, gallery.FRAMES), size)

    def _scale(self, shape: tuple[int, int, int]) -> int:
        """Of an animation."""
        return self.scale or max(1, GIF_EDGE // max(shape[:2]))

    def write(self, film: list[Frame], arrange: Arrange, columns: int | None) -> None:
        """The files that are asked for; where there is neither any nor a terminal, the next free paint.png, whose name is printed."""
        columns = self.columns or columns
        if self.png is not None or not (self.files or on_terminal()):
            target = self.png or _free()
            gallery.save(gallery.grid(arrange(film[-1]), columns=columns, scale=self.scale), target)
            if self.png is None:
                terminal.show(f"{target}\n")
        if self.strip is not None:
            gallery.save(gallery.strip([frame[:LINES] for frame in film], scale=self.scale), self.strip)
        if self.gif is not None:
            scale = self._scale(film[-1].shape[1:])
            gallery.animate([gallery.grid(arrange(frame), columns=columns, scale=scale) for frame in film], self.gif)


def on_terminal() -> bool:
    """Whether images can be shown on standard output: on a terminal that has colours and all characters."""
    from rich import console

    where = console.Console()
    return where.is_terminal and where.color_system is not None and not where.no_color and where.encoding.startswith("utf")


def watched(frames: Iterator[Frame], counts: list[int], kept: int, arrange: Arrange, columns: int | None, *, shown: bool) -> list[Frame]:
    """The frames; while they come a person sees how many moves are done and, where `shown`, the images.

    counts: the moves that are done when each frame comes. kept: how many frames are given back at most, at equal distances.
    """
    from rich import console, live, progress

    where = console.Console(stderr=not shown)
    bar = progress.Progress("painting", progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn(), console=where)
    task, film, places = bar.add_task("painting", total=counts[-1]), [], {*gallery.spread(len(counts), kept)}
    screen = live.Live(bar, console=where, refresh_per_second=REDRAWN, transient=True)
    with screen if where.is_terminal else contextlib.nullcontext():
        for place, (frame, done) in enumerate(zip(frames, counts, strict=True)):
            if place in places:
                film.append(frame)
            bar.update(task, completed=done)
            if shown:
                text, _ = preview.text(arrange(frame), columns, where.width, where.height - 2)
                screen.update(console.Group(text, bar))
    if shown:
        show(arrange(film[-1]), columns)
    return film


def show(image_BYXC: Frame, columns: int | None) -> None:
    """The images on the terminal, and how to keep them."""
    from rich import console

    where = console.Console(highlight=False)
    text, count = preview.text(image_BYXC, columns, where.width, where.height - 2)
    where.print(text, end="")
    if count < len(image_BYXC):
        where.print(f"{count} of {len(image_BYXC)} images; --png FILE keeps all of them", style="dim")


def _free() -> pathlib.Path:
    names = (pathlib.Path(f"paint{'' if number == 1 else f'-{number}'}.png") for number in range(1, sys.maxsize))
    return next(path for path in names if not path.exists())
