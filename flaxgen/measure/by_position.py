"""How likely tokens are by their place in a text: a user sees where a model loses a text that is longer than it was trained with."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

# Okabe and Ito's colours: they stay apart for the colour-blind and in print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean nats a token over pieces of `width` places: entry e holds the tokens at places e * width to (e + 1) * width - 1 of their texts.

    A piece that no text reaches counts 0 and is nan. The first token of a text, at place 0, is never counted, as nothing precedes it.
    """

    width: int
    nats_E: np.ndarray
    count_E: np.ndarray

    @property
    def perplexity_E(self) -> np.ndarray:
        return np.exp(self.nats_E)


def curve(log_probs: Sequence[np.ndarray], width: int) -> Curve:
    """The Curve of several texts; entry t of a text's log_probs belongs to its token t + 1."""
    if type(width) is not int or width < 1:
        raise ValueError(f"width={width!r}: wanted a whole number of places, at least 1")
    if not any(map(len, log_probs)):
        raise ValueError("no token to count; give at least one text of two tokens")
    piece_N = np.concatenate([np.arange(1, len(one) + 1) // width for one in log_probs])
    nats_N = -np.concatenate(log_probs).astype(np.float64)
    if not np.isfinite(nats_N).all():
        raise FloatingPointError(f"{int((~np.isfinite(nats_N)).sum())} of {len(nats_N)} log-probabilities are not finite")
    count_E = np.bincount(piece_N)
    with np.errstate(invalid="ignore"):  # 0 / 0 where no text reaches
        return Curve(width, np.bincount(piece_N, nats_N) / count_E, count_E)


def table(curves: Mapping[str, Curve]) -> str:
    """Several curves side by side, a line a piece: places, tokens counted by the first that has any, then nats and perplexity of each."""
    width, pieces = _same_width(curves), max(len(one.count_E) for one in curves.values())
    head = ["places", "tokens", *(word for name in curves for word in (f"{name}, nats", "perplexity"))]
    rows = [head]
    for piece in range(pieces):
        counts = [int(one.count_E[piece]) for one in curves.values() if piece < len(one.count_E)]
        cells = [f"{piece * width}–{(piece + 1) * width - 1}", f"{next(filter(None, counts), 0):,}"]
        for one in curves.values():
            seen = piece < len(one.count_E) and one.count_E[piece] > 0
            cells += [f"{one.nats_E[piece]:.3f}", f"{one.perplexity_E[piece]:,.1f}"] if seen else ["–", "–"]
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(size) for cell, size in zip(row, widths, strict=True)) for row in rows)


def draw(curves: Mapping[str, Curve], target: pathlib.Path, *, trained: int) -> None:
    """Writes a PNG of the curves to `target`, with a line at `trained`, the positions the model was trained with; wants matplotlib."""
    width = _same_width(curves)
    try:
        import matplotlib.figure
    except ImportError:
        raise ImportError('the picture needs matplotlib; install it with pip install -e ".[log]"') from None
    figure = matplotlib.figure.Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, one), colour in zip(curves.items(), COLOURS, strict=False):
        axes.stairs(one.nats_E, np.arange(len(one.nats_E) + 1) * width, baseline=None, color=colour, linewidth=1.8, label=name)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.18 * (high - low))  # room for the words above the curves
    axes.set_xlim(0, max(len(one.nats_E) for one in curves.values()) * width)
    axes.axvline(trained, color="#555555", linewidth=1, linestyle=(0, (4, 3)))
    beside = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "right", "va": "top", "fontsize": 9}
    axes.annotate(f"trained: {trained:,}", (trained, 1), xytext=(-5, -4), color="#555555", **beside)
    axes.set_title("nats a token, and perplexity at the right", loc="left", fontsize=10)
    axes.set_xlabel("place in the text, tokens", fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    right = axes.secondary_yaxis("right", functions=(np.exp, lambda value: np.log(np.maximum(value, 1e-9))))
    right.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    right.spines[:].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for each in (axes, right):
        each.tick_params(labelsize=9)
    axes.legend(frameon=False, fontsize=9, loc="upper right", ncols=len(curves))
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130, format="png")


def _same_width(curves: Mapping[str, Curve]) -> int:
    widths = {one.width for one in curves.values()}
    if len(widths) != 1 or len(curves) > len(COLOURS):
        raise ValueError(f"{len(curves)} curves of widths {sorted(widths)}; wanted 1 to {len(COLOURS)}, all of one width")
    return widths.pop()
