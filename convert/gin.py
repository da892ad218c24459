"""Sizes out of an operative_config.gin. Nothing of it is evaluated: only lines `name = number` are seen, whatever stands around them."""

import re
from collections.abc import Callable
from typing import Any

_LINE = re.compile(r"[ \t]*([\w./]+)[ \t]*=[ \t]*([-+]?\d{1,18}|[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d{1,3})?)[ \t]*(?:#.*)?")


def parser(names: tuple[str, ...]) -> Callable[[bytes], dict[str, Any]]:
    """What reads those of the `names` that are there: name -> number.

    A name stands alone or behind its module (`mesh_transformer.d_model = 512`); in a scope it is found as `scope/name`
    (`encoder/make_layer_stack.num_layers = 32` is encoder/num_layers). ValueError where two lines say two things.
    """

    def parse(raw: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for line in raw.decode("utf-8", "replace").splitlines():
            match = _LINE.fullmatch(line)
            scope, _, place = match[1].rpartition("/") if match else ("", "", "")
            name = place.rpartition(".")[2]
            if name not in names:
                continue
            name = f"{scope}/{name}" if scope else name
            value = int(match[2]) if match[2].lstrip("+-").isdigit() else float(match[2])
            if found.setdefault(name, value) != value:
                raise ValueError(f"{name} is {found[name]} in one line and {value} in another")
        return found

    return parse


def render(numbers: dict[str, Any]) -> str:
    """Lines `name = number`."""
    return "".join(f"{name} = {value}\n" for name, value in numbers.items())
