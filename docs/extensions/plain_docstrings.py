"""Docstrings as plain text become what Sphinx reads.

Paragraphs `name: what it is` become lists of definitions, indented lines code, `quoted` names code; whatever has a meaning in
reStructuredText alone is escaped.
"""

import inspect
import re

NAMES = r"[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*"
ITEM = re.compile(rf"^({NAMES}): +(?=\S)")
LATER = re.compile(rf"(?<=[.;)]) +(?=({NAMES}): )")
QUOTED = re.compile(r"`([^`]+)`")
NAME = re.compile(r"(?<![\w.`])(?:flaxgen(?:\.\w+)+|[A-Za-z]\w*_\w+)(?![\w`])")
SPECIAL = re.compile(r"([*|\\]|_(?!\w))")
BLOCK = re.compile(r"^(>>> | {2,})")


def marked(line: str) -> str:
    """A line with its code marked as code and all else taken literally."""
    pieces = QUOTED.split(line)
    return "".join(f"``{piece}``" if odd % 2 else prose(piece) for odd, piece in enumerate(pieces))


def prose(text: str) -> str:
    made, at = [], 0
    for name in NAME.finditer(text):
        made += [SPECIAL.sub(r"\\\1", text[at : name.start()]), f"``{name[0]}``\\ "]
        at = name.end()
    return "".join([*made, SPECIAL.sub(r"\\\1", text[at:])])


def converted(lines: list[str], parameters: set[str]) -> list[str]:
    """The docstring's lines in reStructuredText; parameters may begin a definition in the middle of a line too."""
    made: list[str] = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        whole = paragraph.split("\n")
        made += [*(code(whole) if BLOCK.match(paragraph) else text(apart(whole, parameters))), ""]
    return made


def code(lines: list[str]) -> list[str]:
    language = "pycon" if lines[0].lstrip().startswith(">>>") else "python" if "(" in lines[0] else "text"
    return [f".. code-block:: {language}", "", *("    " + line for line in lines)]


def apart(lines: list[str], parameters: set[str]) -> list[str]:
    """The lines with what begins a definition at the beginning of a line of its own."""
    made: list[str] = []
    for line in lines:
        at = 0
        for found in LATER.finditer(line):
            if set(found[1].split(", ")) <= parameters:
                made.append(line[at : found.start()])
                at = found.end()
        made.append(line[at:])
    return made


def text(lines: list[str]) -> list[str]:
    """A paragraph of prose and the definitions that follow it."""
    made: list[str] = []
    indent = ""
    for line in lines:
        item = ITEM.match(line)
        if item:
            indent = "    "
            made += ["", ", ".join(f"``{name}``" for name in item[1].split(", "))]
        made.append(indent + marked(line[item.end() if item else 0 :].strip()))
    return made


def parameters(thing) -> set[str]:
    try:
        return set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):  # a module, a property
        return set()


def convert(app, what, name, obj, options, lines):
    lines[:] = converted(lines, parameters(obj))


def setup(app):
    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
