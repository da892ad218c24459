"""Tags of pages, from tags.toml: the directive `tags` lists them, pages that share some point to each other, the search reads them."""

import collections
import pathlib
import tomllib

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

NEAREST = 3
logger = logging.getLogger(__name__)


def begin(app, config):
    with open(pathlib.Path(app.srcdir) / "tags.toml", "rb") as file:
        tables = tomllib.load(file)
    config.page_tags, config.page_words = tables["pages"], tables["words"]


def words(app, docname: str) -> list[str]:
    """What the search finds a page by beside its texts."""
    return [*app.config.page_tags.get(docname, ()), *app.config.page_words.get(docname, ())]


def check(app, env):
    missing = sorted({*app.config.page_tags, *app.config.page_words} - env.found_docs)
    if missing:
        logger.warning("tags.toml has tags of %s, which are no pages; take them out or add the pages", ", ".join(missing))


def link(docname: str) -> nodes.Node:
    """A link that shows the page's title."""
    return addnodes.pending_xref(
        "", nodes.inline(), reftype="doc", refdomain="std", reftarget=f"/{docname}", refexplicit=False, refwarn=True
    )


class Tags(SphinxDirective):
    """Every tag with its pages, in alphabetical order."""

    def run(self):
        pages = collections.defaultdict(list)
        for docname, names in self.config.page_tags.items():
            for name in names:
                pages[name].append(docname)
        made = nodes.definition_list()
        for name in sorted(pages, key=str.lower):
            links = nodes.paragraph()
            for docname in pages[name]:
                links += [nodes.Text(" · ")] if links.children else []
                links += link(docname)
            made += nodes.definition_list_item("", nodes.term("", name), nodes.definition("", links))
        self.env.note_dependency(str(pathlib.Path(self.env.srcdir) / "tags.toml"))
        return [made]


def nearest(app, docname: str) -> list[str]:
    """The pages that share the most tags with this one, rare tags counting more."""
    known = app.config.page_tags
    count = collections.Counter(name for names in known.values() for name in set(names))
    mine = set(known.get(docname, ()))
    near = {other: sum(1 / count[name] for name in mine & set(names)) for other, names in known.items() if other != docname}
    return [other for other in sorted(near, key=near.get, reverse=True) if near[other]][:NEAREST]


def see_also(app, doctree):
    near = nearest(app, app.env.docname)
    if not near:
        return
    line = nodes.paragraph()
    for docname in near:
        line += [nodes.Text(" · ")] if line.children else []
        line += link(docname)
    page = doctree.next_node(nodes.section)
    page += addnodes.seealso("", line)


def setup(app):
    app.add_config_value("page_tags", {}, "env")
    app.add_config_value("page_words", {}, "html")
    app.add_directive("tags", Tags)
    app.connect("config-inited", begin)
    app.connect("doctree-read", see_also, priority=400)
    app.connect("env-updated", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
