"""Draws the pictures of the guide's pages that no bench draws: `python docs/pictures/draw.py` (extras log and pictures)."""

import pathlib

import matplotlib
import numpy as np
from matplotlib import font_manager, pyplot
from PIL import Image

import flaxgen
from flaxgen import picture
from flaxgen.nn.exponential import expm, logdet

matplotlib.use("Agg")
HERE = pathlib.Path(__file__).parent
RED, GREY, BLUE = "#b3261e", "#9a9a9a", "#2a5d8f"


def surprise() -> None:
    """−log p of each character of two lines, the first left out, which nothing precedes."""
    lines = ["床前明月光，疑是地上霜。", "床前明月光，疑是地下铁。"]
    face = _chinese()
    figure, axes = pyplot.subplots(2, 1, figsize=(6, 3.6), sharey=True, layout="constrained")
    for axis, line, score in zip(axes, lines, flaxgen.Writer().score(lines), strict=True):
        other = lines[0] if line is lines[1] else lines[1]
        colours = [BLUE if here == there else RED for here, there in zip(line[1:], other[1:], strict=True)]
        axis.bar(range(1, len(line)), -np.array(score.log_probs), color=colours)
        axis.set_xticks(range(len(line)), list(line), fontproperties=face, fontsize=14)
        axis.set_ylabel("nats")
        axis.set_title(f"perplexity {score.perplexity:.0f}", fontsize=10, loc="right")
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, "write-surprise.png")


def scrolls() -> None:
    (answer,) = flaxgen.Couplets()("晚风摇树树还挺")
    picture.draw(answer.upper, answer.text, HERE / "couplet-scrolls.png", size=40)


def alternatives() -> None:
    """The likeliest characters of every place."""
    upper, face = "晚风摇树树还挺", _chinese()
    (answer,) = flaxgen.Couplets()(upper, alternatives=6)
    chance_ET = np.array([[chance for _, chance in place] for place in answer.alternatives]).T
    figure, axis = pyplot.subplots(figsize=(5, 3.6), layout="constrained")
    axis.imshow(np.sqrt(chance_ET), cmap="Reds", vmin=0, vmax=1)
    for place, several in enumerate(answer.alternatives):
        for rank, (character, chance) in enumerate(several):
            text = f"{chance:.2f}".lstrip("0")
            axis.text(place, rank - 0.12, character, ha="center", va="center", fontproperties=face, fontsize=15)
            axis.text(place, rank + 0.3, text, ha="center", va="center", fontsize=7)
    axis.set_xticks(range(len(upper)), list(upper), fontproperties=face, fontsize=15)
    axis.xaxis.tick_top()
    axis.set_yticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    _save(figure, "couplet-alternatives.png")


def sight() -> None:
    """Who sees whom when a passage is read and an answer written."""
    tokens = ["[CLS]", "passage", "[SEP]", "question", "[SEP]", "answer", "answer", "answer"]
    rank_T = 1 + np.cumsum([0] * 5 + [1] * 3)
    figure, axis = pyplot.subplots(figsize=(3.9, 3.6), layout="constrained")
    axis.imshow(rank_T[None] <= rank_T[:, None], cmap="Blues", vmin=0, vmax=1.6)
    names = [f"{name} {number - 4}" if name == "answer" else name for number, name in enumerate(tokens)]
    axis.set_xticks(range(len(names)), names, rotation=55, ha="left", rotation_mode="anchor", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xticks(np.arange(0.5, len(names) - 1), minor=True)
    axis.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    axis.grid(which="minor", color="white")
    axis.tick_params(which="both", length=0)
    axis.xaxis.tick_top()
    axis.set_ylabel("a token here …")
    axis.set_title("… sees what is dark", fontsize=10)
    _save(figure, "reading-sight.png")


def carried() -> None:
    """A square carried by x' = Ax, and its area."""
    a_DD = np.array([[0.5, -1.6], [0.9, -0.1]])
    corner_ND = np.array([[0.6, 0.2], [1.6, 0.2], [1.6, 1.2], [0.6, 1.2]])
    figure, axis = pyplot.subplots(figsize=(5, 4), layout="constrained")
    for t in (0.0, 0.5, 1.0, 1.5, 2.0):
        moved_ND = corner_ND @ np.asarray(expm(t * a_DD)).T
        axis.fill(*moved_ND.T, color=BLUE, alpha=0.25 + 0.25 * t / 2, linewidth=0)
        area = float(np.exp(logdet(t * a_DD)))
        axis.text(*moved_ND.mean(axis=0), f"t = {t:g}\narea {area:.2f}", ha="center", va="center", fontsize=8)
    axis.set_aspect("equal")
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.axvline(0, color=GREY, linewidth=0.5)
    axis.spines[:].set_visible(False)
    _save(figure, "determinant-area.png")


def _chinese() -> font_manager.FontProperties:
    """The first font with Chinese characters that matplotlib can read: it takes the first face of a collection alone."""
    return font_manager.FontProperties(fname=next(str(path) for path, place in picture.found() if place == 0))


def _save(figure, name: str) -> None:
    figure.savefig(HERE / name, dpi=130)
    pyplot.close(figure)
    Image.open(HERE / name).convert("RGB").quantize(64).save(HERE / name, optimize=True)


if __name__ == "__main__":
    for draw in (surprise, scrolls, alternatives, sight, carried):
        draw()
