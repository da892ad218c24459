"""Links to Markdown of the repository that is no page of the guide, ../README.md say, lead to a copy of the file."""

import os
import pathlib

from sphinx import addnodes


def copy(app, doctree):
    for node in list(doctree.findall(addnodes.pending_xref)):
        file = pathlib.Path(app.srcdir, node.get("reftarget") or "").with_suffix(".md")
        if node.get("refdomain") == "doc" and file.is_file() and not file.is_relative_to(app.srcdir):
            target = "/" + os.path.relpath(file, app.srcdir)
            node.replace_self(addnodes.download_reference("", "", *node.children, reftarget=target, refdoc=app.env.docname))


def setup(app):
    app.connect("doctree-read", copy, priority=400)  # before Sphinx collects what is to be copied
    return {"parallel_read_safe": True, "parallel_write_safe": True}
