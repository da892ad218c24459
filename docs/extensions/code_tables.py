"""Directives that print what the code knows: `recipes` of the trainer, `formats` of the converter, `presets`, a command's `help`."""

import contextlib
import io
import os
import sys
from unittest import mock

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def table(heads: list[str], rows: list[list[str]], code: int = 1) -> nodes.table:
    """A table whose first `code` columns are names of the code."""
    group = nodes.tgroup("", *[nodes.colspec(colwidth=1) for _ in heads], cols=len(heads))
    group += nodes.thead("", nodes.row("", *[cell(head) for head in heads]))
    group += nodes.tbody("", *[nodes.row("", *[cell(text, place < code) for place, text in enumerate(row)]) for row in rows])
    return nodes.table("", group, classes=["colwidths-auto"])


def cell(text: str, code: bool = False) -> nodes.entry:
    """Names between backticks are code too."""
    parts = ["", text] if code else text.split("`")
    words = [nodes.literal(text=part) if odd % 2 else nodes.Text(part) for odd, part in enumerate(parts) if part]
    return nodes.entry("", nodes.paragraph("", "", *words))


class Recipes(SphinxDirective):
    def run(self):
        from train import recipes

        return [table(["recipe", "what it trains"], [[name, make.__doc__.strip()] for name, make in recipes.RECIPES.items()])]


class Formats(SphinxDirective):
    """The formats by the names that --model and --to take."""

    def run(self):
        from convert import formats

        known = formats.FORMATS.items()
        rows = [[name, each.title, "read and written" if each.container else "read"] for name, each in known]
        return [table(["format", "what it holds", "by flaxgen"], rows)]


class Presets(SphinxDirective):
    """The published sizes by name."""

    def run(self):
        import flaxgen

        fields = ("vocab", "width", "layers", "heads")
        rows = [[name, *[f"{getattr(preset, field):,}" for field in fields]] for name, preset in flaxgen.PRESETS.items()]
        return [table(["preset", *fields], rows)]


class Help(SphinxDirective):
    """What a command says of itself: its argument is the command line without --help."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        words = [*self.arguments[0].split(), "--help"]
        said = io.StringIO()
        width = mock.patch.dict(os.environ, COLUMNS="80", NO_COLOR="1")
        with width, mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            programs()[words[0]]()
        return [nodes.literal_block(text=said.getvalue().strip(), language="text")]


def programs() -> dict:
    """What runs a command line that lies in sys.argv."""
    from convert import command
    from flaxgen import cli
    from train import __main__ as train

    return {"flaxgen": cli.main, "convert": command.main, "train": lambda: train.main(sys.argv[1:])}


def setup(app):
    for name, directive in {"recipes": Recipes, "formats": Formats, "presets": Presets, "help": Help}.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
