"""Marks what is written in Chinese as Chinese, so that browsers choose its glyphs and screen readers its voice; joins its lines."""

import re

from docutils import nodes

HAN = re.compile(r"[\u3400-\u9fff]")
LETTER = re.compile(r"[^\W\d_]")
WIDE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")
MARKED = (nodes.paragraph, nodes.title, nodes.term, nodes.entry)


def mostly(text: str) -> bool:
    """Whether half of its letters are Han."""
    return 2 * len(HAN.findall(text)) > len(LETTER.findall(text))


def mark(app, doctree):
    for node in doctree.findall(lambda node: isinstance(node, MARKED)):
        if mostly(node.astext()):
            node["classes"].append("language-zh")  # docutils writes it as lang="zh"
            join(node)


def join(node):
    """Takes away the ends of the source's lines between two Chinese characters: they would be shown as blanks."""
    for before, end, after in zip(node.children[:-2], node.children[1:-1], node.children[2:], strict=True):
        if end.astext() == "\n" and WIDE.match(before.astext()[-1:]) and WIDE.match(after.astext()[:1]):
            node.remove(end)


def setup(app):
    app.connect("doctree-read", mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
