"""The directive `outline`: every page with its sections, on one page."""

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

DEPTH = 3


class outline(nodes.General, nodes.Element):
    """Where the outline goes once all pages are read."""


class Outline(SphinxDirective):
    def run(self):
        return [outline()]


def fill(app, doctree, docname):
    for node in doctree.findall(outline):
        made = nodes.bullet_list()
        for page in pages(app.env, app.config.root_doc):
            made += entries(app, docname, app.env.tocs[page], DEPTH)
        node.replace_self(made)


def pages(env, page, seen=None):
    """The page and those below it, in the order of the tables of contents."""
    seen = {} if seen is None else seen
    if page not in seen and page in env.tocs:
        seen[page] = True
        for below in env.toctree_includes.get(page, ()):
            pages(env, below, seen)
    return list(seen)


def entries(app, docname, toc, depth):
    """The list items of a page's own table of contents, whose links lead there from docname."""
    for item in toc.children if depth else ():
        if not isinstance(item, nodes.list_item):
            continue
        link = next(item.findall(nodes.reference))
        target = app.builder.get_relative_uri(docname, link["refuri"]) + link["anchorname"]
        words = [each.deepcopy() for each in link.children]
        line = addnodes.compact_paragraph("", "", nodes.reference("", "", *words, refuri=target, internal=True))
        made = nodes.list_item("", line)
        for below in (child for child in item.children if isinstance(child, nodes.bullet_list)):
            inner = nodes.bullet_list("", *entries(app, docname, below, depth - 1))
            if inner.children:
                made += inner
        yield made


def setup(app):
    app.add_node(outline)
    app.add_directive("outline", Outline)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
