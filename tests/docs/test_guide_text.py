"""What the guide is made of, without building it."""

import importlib.util
import pathlib
import tomllib

import yaml

import flaxgen

ROOT = pathlib.Path(__file__).parent.parent.parent


def extension(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_citation_names_the_version_that_is_here():
    card = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(card["version"]) == flaxgen.__version__ and card["license"] == "Apache-2.0"
    assert f"version = {{{flaxgen.__version__}}}" in (ROOT / "docs" / "cite.md").read_text(encoding="utf-8")


def test_a_docstring_of_plain_text_becomes_definitions_and_code():
    plain = ["Does it.", "", "    >>> it(2)", "", "x_B: what * goes `in`", "    and more. most: a number, or", "none_ at all"]
    made = extension("plain_docstrings").converted(plain, {"x_B", "most"})
    assert made == [
        *("Does it.", ""),
        *(".. code-block:: pycon", "", "        >>> it(2)", ""),
        *("", "``x_B``", r"    what \* goes ``in``", "    and more."),
        *("", "``most``", "    a number, or", r"    none\_ at all", ""),
    ]


def test_a_feed_has_an_entry_for_every_dated_release():
    text = "# Changelog\n\n## Unreleased\n\n- a\n\n## 0.2.0 (2026-12-01)\n\n- b <c>\n\n## 0.1.0 (2026-11-22)\n\n- d\n"
    root = extension("changelog_feed").feed(text, "x").getroot()
    titles = [each.find("title").text for each in root.findall("entry")]
    assert titles == ["x 0.2.0", "x 0.1.0"] and root.find("updated").text == "2026-12-01T00:00:00Z"
    assert root.find("entry/content").text == "- b <c>"


def test_tags_are_of_pages_that_are_there():
    tables = tomllib.loads((ROOT / "docs" / "tags.toml").read_text(encoding="utf-8"))
    assert [page for table in tables.values() for page in table if not (ROOT / "docs" / f"{page}.md").exists()] == []
