"""A couplet as a picture: two scrolls of red paper, written from top to bottom, the upper line at the right."""

import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np

from flaxgen.text import antithesis

Ink = Literal["black", "gold"]
INKS = {"black": (24, 18, 16), "gold": (238, 192, 82)}
PAPER, EDGE, WALL, FLECK = (198, 32, 32), (148, 14, 20), (244, 238, 226), (214, 150, 60)
# What a scroll is written in, the best first: Kai is the hand of couplets, then Song, then what there is. Behind a collection's name, the
# place of its Simplified Chinese face.
FACES = (
    ("LXGWWenKai-Bold", 0),
    ("LXGWWenKai-Medium", 0),
    ("LXGWWenKai-Regular", 0),
    ("STKaiti", 0),
    ("simkai", 0),
    ("ukai", 0),
    ("NotoSerifCJK-Bold", 2),
    ("NotoSerifCJK-Regular", 2),
    ("NotoSerifSC", 0),
    ("SourceHanSerif", 0),
    ("Songti", 0),
    ("simsun", 0),
    ("uming", 0),
    ("wqy-microhei", 0),
    ("wqy-zenhei", 0),
    ("NotoSansCJK-Regular", 2),
    ("NotoSansSC", 0),
    ("PingFang", 0),
    ("msyh", 0),
)
FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
PACKAGE, IN_PACKAGE = "pylopdf_fonts_zh_cn", "NotoSerifSC-Regular.otf"
MISSING = "\U0010fffe"  # no character, so every font shows its empty box for it
COLUMN = 12  # characters of one column; a longer line takes several


def check(font: pathlib.Path | None) -> None:
    """ValueError or ImportError where no picture can be drawn, for want of pillow or of a font."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError('the picture needs pillow; install it with pip install "flaxgen[pictures]"') from None
    _face(font, size=96)


def draw(upper: str, lower: str, target: pathlib.Path, *, ink: Ink = "black", font: pathlib.Path | None = None, size: int = 96) -> None:
    """Writes a PNG of the couplet to `target`; punctuation is left out, as on paper.

    font: a font file with Chinese characters, by default the first of FACES that this machine has. size: of a character, in pixels.
    Lines of more than 12 characters take several columns, from the outer edge to the inner one on both scrolls (龙门对).
    """
    if ink not in get_args(Ink):
        raise ValueError(f"ink={ink!r}: wanted one of {', '.join(map(repr, get_args(Ink)))}")
    check(font)
    from PIL import Image

    face = _face(font, size)
    right, left = (_columns(line) for line in (upper, lower))
    _check_glyphs(face, "".join(right + left))
    scrolls = [_scroll(left, face, size, INKS[ink], 0), _scroll(right[::-1], face, size, INKS[ink], 1)]
    gap = size
    picture = Image.new("RGB", (sum(one.width for one in scrolls) + 3 * gap, scrolls[0].height + 2 * gap), WALL)
    picture.paste(scrolls[0], (gap, gap))
    picture.paste(scrolls[1], (picture.width - gap - scrolls[1].width, gap))
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target, format="PNG")


def _columns(line: str) -> list[str]:
    """The characters of a line in columns of equal length, at most 12; the last may be shorter."""
    written = "".join(filter(antithesis.is_open, line))
    if not written:
        raise ValueError(f"{line!r} holds no character to write; give both lines of a couplet")
    count = -(-len(written) // COLUMN)
    length = -(-len(written) // count)
    return [written[start : start + length] for start in range(0, len(written), length)]


def _scroll(columns: list[str], face: Any, size: int, colour: tuple[int, int, int], sheet: int):
    """The paper with columns from left to right."""
    from PIL import Image, ImageDraw

    pitch, margin = round(1.22 * size), round(0.55 * size)
    width, height = len(columns) * pitch + margin, len(max(columns, key=len)) * pitch + 2 * margin
    paper = Image.new("RGB", (width, height), PAPER)
    brush = ImageDraw.Draw(paper)
    _fleck(brush, width, height, size, sheet)
    for inset, line in ((0, size // 24 + 1), (size // 9, size // 48 + 1)):
        brush.rectangle((inset, inset, width - 1 - inset, height - 1 - inset), outline=EDGE, width=line)
    for number, column in enumerate(columns):
        x = margin / 2 + (number + 0.5) * pitch
        for row, character in enumerate(column):
            brush.text((x, margin + (row + 0.5) * pitch), character, fill=colour, font=face, anchor="mm", stroke_width=size // 96)
    return paper


def _fleck(brush: Any, width: int, height: int, size: int, sheet: int) -> None:
    """Gold dust on the paper (洒金), scattered by the number of the sheet."""
    low, high = (0, 0, size / 200), (width, height, size / 60)
    for x, y, radius in np.random.default_rng(sheet).uniform(low, high, (4 * width * height // size**2, 3)):
        brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=FLECK)


def _face(path: pathlib.Path | None, size: int):
    from PIL import ImageFont

    for file, index in [(path, 0)] if path is not None else found():
        try:
            return ImageFont.truetype(str(file), size, index=index)
        except (OSError, ValueError) as error:
            raise ValueError(f"the font {file} cannot be read ({error}); name a .ttf, .otf or .ttc file") from None
    raise ValueError(
        'no font with Chinese characters was found; pip install "flaxgen[pictures]" brings one, so does apt install fonts-lxgw-wenkai '
        "or fonts-noto-cjk; or name a font file (--font FILE)"
    )


def found() -> Iterator[tuple[pathlib.Path, int]]:
    """Fonts with Chinese characters on this machine, (file, place in a collection), the best first."""
    folders = [pathlib.Path(folder).expanduser() for folder in FOLDERS]
    files = sorted(path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.suffix in (".ttf", ".ttc", ".otf"))
    for name, index in FACES:
        yield from ((path, index if path.suffix == ".ttc" else 0) for path in files if path.stem.startswith(name))
    package = importlib.util.find_spec(PACKAGE)
    for folder in package.submodule_search_locations if package else ():
        yield pathlib.Path(folder) / IN_PACKAGE, 0


def _check_glyphs(face: Any, text: str) -> None:
    box = bytes(face.getmask(MISSING))
    missing = "".join(dict.fromkeys(one for one in text if bytes(face.getmask(one)) == box))
    if missing:
        raise ValueError(f"the font {face.path} has no {missing}; name another font file (--font FILE)")
