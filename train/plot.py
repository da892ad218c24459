"""Curves of one or several runs as a picture: loss, held-out perplexity, learning rate, speed."""

import itertools
import pathlib
import warnings
from typing import Any

import numpy as np

from train import watch

# Okabe and Ito's colours without the yellow: they stay apart for the colour-blind and in print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#333333")
PANELS = {
    "loss": "loss",
    "dev_perplexity": "held-out perplexity",
    "dev_bits": "held-out bits per dimension",
    "dev_distance": "samples' distance from held-out images",
    "energy_data": "mean energy of data",
    "energy_sample": "mean energy of samples",
    "rate": "learning rate",
    "tokens_per_s": "tokens a second",
    "images_per_s": "images a second",
}
MEASURED = ("dev_perplexity", "dev_bits", "dev_distance")  # once a look
FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei")  # for names in Chinese
EVENTS = {"rollback": ("v", "#b00020"), "skipped": ("x", "#b00020"), "damaged": ("s", "#b00020")}
PARTS = 40  # the smoothed loss is a mean over a fortieth of the run


def draw(folders: list[pathlib.Path], target: pathlib.Path) -> None:
    """Writes a PNG of the runs in `folders` to `target`; wants matplotlib."""
    try:
        import matplotlib.figure
        from matplotlib import font_manager
    except ImportError:
        raise ImportError('curves need matplotlib; install it with pip install -e ".[log]"') from None
    runs = dict(zip(names(folders), map(read, folders), strict=True))
    shown = [panel for panel in PANELS if any(panel in curves for curves, _ in runs.values())]
    fonts = ["DejaVu Sans", *(font for font in FONTS if font in font_manager.get_font_names())]
    target.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name that no font here can write shows as boxes
        figure = matplotlib.figure.Figure(figsize=(6.2 * min(len(shown), 2), 3.6 * -(-len(shown) // 2) + 0.4), layout="constrained")
        fill(figure, shown, runs)
        figure.savefig(target, dpi=130, format="png")


def fill(figure: Any, shown: list[str], runs: dict[str, tuple]) -> None:
    places = figure.subplots(-(-len(shown) // 2), min(len(shown), 2), squeeze=False).ravel()
    for place in places[len(shown) :]:
        place.remove()
    axes = dict(zip(shown, places, strict=False))
    for (name, (curves, _)), colour in zip(runs.items(), itertools.cycle(COLOURS), strict=False):
        for panel, points in curves.items():
            line(axes[panel], panel, points, colour, name if len(runs) > 1 else None)
    for curves, events in runs.values():
        mark(axes["loss"], curves["loss"], events)
    for panel, one in axes.items():
        dress(one, panel, [curves[panel][:, 1] for curves, _ in runs.values() if panel in curves])
    if axes["loss"].get_legend_handles_labels()[1]:
        axes["loss"].legend(frameon=False, fontsize=9, loc="upper right")
    if len(runs) == 1:
        figure.suptitle(next(iter(runs)), x=0.01, ha="left", weight="bold")


def names(folders: list[pathlib.Path]) -> list[str]:
    """The ends of the paths, as long as they must be to differ."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) != len(parts):
        raise ValueError(f"a run stands twice in {' '.join(map(str, folders))}; name each once")
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = ["/".join(part[-length:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    raise ValueError("no run to draw; name at least one folder")


def read(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], list[tuple[int, str]]]:
    """({panel: points (N, 2) of update and value}, [(update, event)]) of a run's log."""
    log = folder / watch.LOG
    if not log.is_file():
        raise ValueError(f"{folder} holds no {watch.LOG}; name the folder of a run, as runs/poetry")
    lines = list(watch.lines(log))
    curves = {}
    for panel in PANELS:
        pairs = [(line["step"], float(line[panel])) for line in lines if panel in line and "event" not in line]
        points = np.asarray(pairs, float).reshape(-1, 2)
        points = points[np.isfinite(points[:, 1])]
        if len(points):
            curves[panel] = points
    if "loss" not in curves:
        raise ValueError(f"{log} holds no loss yet; let the run reach its first note= updates")
    return curves, [(line["step"], line["event"]) for line in lines if "event" in line]


def line(axes: Any, panel: str, points: np.ndarray, colour: str, label: str | None) -> None:
    steps, values = points.T
    if panel == "loss":
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
        values = smooth(values)
    marker = "o" if panel in MEASURED else None
    axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=3.5, label=label)
    if panel in ("loss", *MEASURED):
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{values[-1]:.4g}", (steps[-1], values[-1]), color=colour, fontsize=9, **place)


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean of a fortieth of the values around each, of as many of them as there are at both ends."""
    place, reach = np.arange(len(values)), len(values) // PARTS // 2
    first, last = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[last] - sums[first]) / (last - first)


def mark(axes: Any, loss: np.ndarray, events: list[tuple[int, str]]) -> None:
    """Signs on the loss where a run went back, left a batch out or met a damaged checkpoint."""
    for kind, (sign, colour) in EVENTS.items():
        places = np.asarray([step for step, event in events if event == kind], float)
        if len(places):
            heights = np.interp(places, loss[:, 0], smooth(loss[:, 1]))
            known = kind in axes.get_legend_handles_labels()[1]
            axes.plot(places, heights, sign, color=colour, markersize=6, label=None if known else kind, zorder=5)


def dress(axes: Any, panel: str, series: list[np.ndarray]) -> None:
    """Title, scales and ticks of a panel that shows the values of `series`."""
    axes.set_title(PANELS[panel], loc="left", fontsize=10)
    axes.set_xlabel("updates", fontsize=9)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.margins(x=0.02)
    low, high = min(map(np.min, series)), max(map(np.max, series))
    if panel == "loss":
        # The fall from the first, random guesses would flatten all the rest.
        high = max(smooth(values)[len(values) // 20 :].max() for values in series)
        room = 0.05 * (high - low) + 1e-3
        axes.set_ylim(low - room, high + 4 * room)
    elif panel in MEASURED and high > 3 * low > 0:
        axes.set_yscale("log", subs=(1.5, 2, 3, 4, 5, 7))
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.4g}")
    elif panel not in MEASURED and low >= 0:
        axes.set_ylim(0, 1.1 * high)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}")
