"""A plan in lines for people."""

import collections
import dataclasses
import math
import re
from typing import Any

import numpy as np

from convert import plan as plans

NO_VOCABULARY = "none found: ids only, the model takes and gives token ids (--vocab FILE adds one)"


def text(plan: plans.Plan) -> str:
    """The plan in lines for people."""
    config, names = plan.card.config, {part.name for output in plan.outputs for part in output.parts}
    parameters = sum(math.prod(shape) for shape in config.shapes().values())
    said = [
        f"source      {plan.source.path} ({plan.source.kind}, {plan.match.format.title})",
        f"model       {parameters:,} parameters; {_sizes(config)}; {plan.match.said}",
        f"tensors     {len(names):,} in, {plan.bytes_in:,} bytes ({_kinds(plan.source.variables[name].dtype for name in names)})",
        f"            {len(plan.outputs):,} out, {plan.bytes_out:,} bytes ({_kinds(output.dtype for output in plan.outputs)})",
        f"target      {plan.to.title}",
        *_dropped(plan),
        f"memory      about {plan.peak / 1e6:,.0f} MB beside the program itself: one tensor at a time",
        f"vocabulary  {plan.vocabulary.said if plan.vocabulary else NO_VOCABULARY}",
        f"end         {_stops(plan.card.end)}",
    ]
    return "\n".join([*said, *(f"note        {note}" for note in plan.notes)])


def _sizes(config: Any) -> str:
    """Every whole number and every choice that is not what most models have."""
    said = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None or isinstance(value, float) or value == field.default or (field.name == "embedding" and value == config.width):
            continue
        shown = f"{value:,}" if type(value) is int else " ".join(value) if isinstance(value, tuple) else value
        said.append(f"{field.name} {shown or 'none'}")
    return ", ".join(said)


def _kinds(dtypes) -> str:
    return ", ".join(f"{np.dtype(kind).name}: {count}" for kind, count in collections.Counter(dtypes).items())


def _dropped(plan: plans.Plan) -> list[str]:
    """What is left behind, by name: one line for each kind of name."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, drop in plan.match.dropped.items():
        groups.setdefault((re.sub(r"\d+", "*", name.rsplit("/", 1)[-1]), drop.why), []).append(name)
    lines = [f"dropped     {len(names):,} × {end} ({why}), such as {names[0]}" for (end, why), names in groups.items()]
    for name, path in plan.match.copies.items():
        lines.append(f"dropped     {name}, once it is seen to equal {plan.match.origins[path].name}")
    return lines or ["dropped     nothing"]


def _stops(end: tuple[int, ...] | None) -> str:
    return f"a text ends with token {', '.join(map(str, end))}" if end else "no end token: a text ends by its length"
