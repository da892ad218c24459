"""The rules of the house: floors, fences, einsum letters, and what may be imported when."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(path for folder in ("flaxgen", "train", "convert") for path in (ROOT / folder).rglob("*.py"))
# From the ground up; a file imports its own floor and those below.
FLOORS = (
    (
        "flaxgen.errors",
        "flaxgen.disk",
        "flaxgen.folders",
        "flaxgen.tensors",
        "flaxgen.protocols",
        "flaxgen.models.config",
        "flaxgen.models.architectures",
        "flaxgen.compilation",
    ),
    (
        "flaxgen.nn",
        "flaxgen.assignment",
        "flaxgen.loop",
        "flaxgen.picture",
        "flaxgen.replay",
        "flaxgen.affine",
        "flaxgen.energies",
        "flaxgen.gallery",
        "flaxgen.canvas",
        "flaxgen.rules",
        "flaxgen.terms",
        "flaxgen.controls",
        "flaxgen.buckets",
        "flaxgen.sampling",
        "flaxgen.penalties",
        "flaxgen.automata",
        "flaxgen.progress",
        "flaxgen.sharding",
        "flaxgen.speed",
        "flaxgen.text",
        "flaxgen.measure",
    ),
    ("flaxgen.models",),
    ("flaxgen.chains", "flaxgen.tasks"),
    ("flaxgen.drawing",),
    ("flaxgen.weights", "flaxgen.longer", "flaxgen.engine", "flaxgen.asking"),
    ("flaxgen.context", "flaxgen.features"),
    ("flaxgen.jobs",),
    ("flaxgen.warming", "flaxgen.results"),
    ("flaxgen.pipelines", "flaxgen.encoder", "flaxgen.couplets", "flaxgen.reader", "flaxgen.flow_painter", "flaxgen.painter"),
    ("flaxgen", "flaxgen.cli", "flaxgen.terminal", "flaxgen.preview", "flaxgen.showing", "flaxgen.many"),
)


def name_of(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: pathlib.Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def floor(name: str) -> int:
    fits = [(len(prefix), level) for level, prefixes in enumerate(FLOORS) for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
    return max(fits)[1]


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "flaxgen")], ids=name_of)
def test_imports_point_down_the_floors(path):
    upward = [other for other in imports(path) if other.startswith("flaxgen") and floor(other) > floor(name_of(path))]
    assert upward == []


FENCES = {
    "flax.linen": r"flaxgen\.(nn|models)\b",
    "optax": r"(flaxgen\.tasks|train)\b",
    "orbax": r"train\.checkpoint$",
    "tensorflow": "nowhere",
    "torch": "nowhere",
    "transformers": "nowhere",
    "safetensors": "nowhere",
    "train": r"train\b",
    "convert": r"convert\b",
}


@pytest.mark.parametrize("package", FENCES)
def test_a_package_stays_within_its_fence(package):
    outside = [
        name_of(path)
        for path in FILES
        if not re.match(FENCES[package], name_of(path)) and any(f"{other}.".startswith(f"{package}.") for other in imports(path))
    ]
    assert outside == []


@pytest.mark.parametrize("folder", ["flaxgen/text", "flaxgen/measure", "convert"])
def test_text_measures_and_conversion_use_numpy_not_jax(folder):
    assert [name_of(p) for p in FILES if p.is_relative_to(ROOT / folder) and any(re.match(r"(jax|flax)\b", o) for o in imports(p))] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_einsum_letters_are_the_letters_of_the_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if name.startswith("einsum") and isinstance(node.args[0], ast.Constant):
            factors = node.args[0].value.split("->")[0].split(",")
            for letters, factor in zip(factors, node.args[1 : 1 + len(factors)], strict=True):
                named = ast.unparse(factor).split(".astype")[0].split(".")[-1]
                assert named.endswith(f"_{letters}") or named == "embedding", f"{named} is contracted as {letters}"


def test_no_file_is_named_for_nothing_in_particular():
    assert [str(p) for p in FILES if p.stem in ("utils", "common", "misc", "helpers", "base")] == []


LAZY = """
import sys, json
{}
print(json.dumps(sorted({{"jax", "flax", "orbax", "optax"}} & set(sys.modules))))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import flaxgen",
        "import flaxgen.cli",
        "import flaxgen.text.wordpiece, flaxgen.text.bytepair",
        "import convert.command, convert.plan, convert.target",
        "import sys; sys.argv = ['flaxgen', '--help']\ntry:\n import flaxgen.cli; flaxgen.cli.main()\nexcept SystemExit: pass",
    ],
)
def test_what_must_be_quick_does_not_import_jax(statement):
    done = subprocess.run([sys.executable, "-c", LAZY.format(statement)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout.strip().split("\n")[-1]) == []


def test_every_public_name_is_there_and_an_unknown_one_is_refused():
    import flaxgen

    assert all(getattr(flaxgen, name) is not None for name in flaxgen.__all__)
    assert callable(flaxgen.generate) and callable(flaxgen.stream)
    assert flaxgen.text.wordpiece.WordPiece and flaxgen.chains.__name__ == "flaxgen.chains"
    with pytest.raises(AttributeError, match="flaxgen has no 'nonsense'"):
        _ = flaxgen.nonsense
