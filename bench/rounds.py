"""Interleaved rounds: A B A B …, so that a machine that drifts drifts for both."""

import statistics
from collections.abc import Callable, Mapping


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int, *, warm: int = 1) -> dict[str, list[float]]:
    """The figure that every side gave in each of `rounds` rounds, after `warm` that do not count."""
    for _ in range(warm):
        for run in sides.values():
            run()
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            figures[name].append(run())
    return figures


def ratio(figures: Mapping[str, list[float]], name: str, base: str) -> dict[str, float]:
    """name / base: the median over the rounds, the least and the most."""
    ratios = [one / other for one, other in zip(figures[name], figures[base], strict=True)]
    return {"ratio": statistics.median(ratios), "ratio from": min(ratios), "ratio to": max(ratios)}
