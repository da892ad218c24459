"""Formats met with JSON of wrong types, and with tensors that are missing, foreign, of other shapes or types."""

import contextlib
import copy
import dataclasses
import json
import random
import time

import numpy as np
import pytest
import test_fuzz
import tiny

from convert import formats, matching, plan, source, trimming
from flaxgen import errors
from flaxgen.models import vocabulary

FORMATS = [*tiny.ENCODERS, *tiny.CONFIGS]
counts = pytest.mark.parametrize("count", [400, pytest.param(100_000, marks=pytest.mark.nightly)])


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Format -> a source of it and its JSON."""
    home, found = tmp_path_factory.mktemp("fuzz"), {}
    for to in FORMATS:
        folder = tiny.foreign(home / to, to)
        json_name = formats.FORMATS[to].json_name
        found[to] = (source.open_source(folder), json.loads((folder / json_name).read_text()))
    return found


@contextlib.contextmanager
def bounded():
    """Nothing but a CheckpointError comes out, and soon; no hundred tensors become a million."""
    start = time.process_time()
    with contextlib.suppress(errors.CheckpointError):
        yield
    assert time.process_time() - start < 10


def reshaped(choose, variables):
    """Some variables gone, named otherwise, of another shape or type."""
    variables = dict(variables)
    for _ in range(choose.randint(1, 3)):
        name = choose.choice(list(variables))
        entry = variables.pop(name)
        kind = choose.randrange(5)
        if kind == 0:
            variables[name + choose.choice(["", "2", "/adam_m", "{layer}", "{", "é"])] = entry
        elif kind == 1:
            variables[name] = dataclasses.replace(
                entry, shape=tuple(choose.choice([0, 1, 5, 1 << 40]) for _ in range(choose.randint(0, 4)))
            )
        elif kind == 2:
            variables[name] = dataclasses.replace(entry, dtype=np.dtype(choose.choice(["i8", "f8", "?", "u1"])))
        elif kind == 3:
            variables[name.replace("0", choose.choice(["7", "99999", "00", "1"]))] = entry
        if not variables:
            return {name: entry}
    return variables


@counts
def test_whatever_the_json_and_the_tensors_say_only_named_errors_come_out(count, opened):
    choose, passed = random.Random(6), 0
    for _ in range(count):
        to = choose.choice(FORMATS)
        found, fields = opened[to]
        variables, said = found.variables, copy.deepcopy(fields)
        if choose.random() < 0.6:
            said = test_fuzz.changed(choose, said)
        if choose.random() < 0.5:
            variables = reshaped(choose, variables)
        damaged = Damaged(found.kind, found.path, found.folder, variables, said if isinstance(said, dict) else {})
        with bounded():
            match = matching.match(damaged, choose.choice([None, None, to, choose.choice(FORMATS)]))
            plan.make(damaged, match, formats.FORMATS[choose.choice(["flaxgen", to])], choose.choice([None, "float32"]), None)
            passed += 1
    assert passed > count // 50


@dataclasses.dataclass(frozen=True)
class Damaged(source.Source):
    """A source whose JSON is what it is told."""

    fields: dict

    def json(self, name):
        return self.fields


@counts
def test_whatever_is_asked_to_be_kept_only_named_errors_come_out(count, opened):
    choose, good = random.Random(7), {"rows": 13, "ids": [1, 2, 3], "compounds": [{"ids": [0, 2], "weights": [1, 2], "token": "ab"}]}
    match = matching.match(opened["bert"][0], None)
    for _ in range(count):
        said = test_fuzz.changed(choose, copy.deepcopy(good))
        with bounded():
            kept = vocabulary.of_json(said, "kept.json", 13)
            trimming.trimmed(opened["bert"][0], match, None, kept)
