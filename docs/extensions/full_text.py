"""What the search reads: pages with tags and sections, synonyms, Traditional characters; a script, since pages on a disk may not fetch."""

import json
import pathlib
import re
import tomllib

import tags
import traditional
from docutils import nodes
from sphinx import addnodes

LEFT_OUT = (nodes.comment, nodes.raw, nodes.image, nodes.system_message, nodes.target, nodes.title, addnodes.toctree)


def sections(doctree) -> list[dict]:
    """{"anchor", "heading", "terms", "text"} of every section and documented name, in the order of the page; terms are what it defines."""
    found: list[dict] = []
    collect(doctree, opened([], "", ""), found)
    return [each | {"text": re.sub(r"\s+", " ", " ".join(each["text"])).strip()} for each in found]


def collect(node, current, found):
    for child in node.children:
        if isinstance(child, nodes.section):
            # The page's own section has no anchor, so that a link to it shows its head.
            anchor = child["ids"][-1] if isinstance(node, nodes.section) else ""
            collect(child, opened(found, anchor, child.next_node(nodes.title).astext()), found)
        elif isinstance(child, addnodes.desc):
            signature = child.next_node(addnodes.desc_signature)
            name = f"{signature['module']}.{signature['fullname']}"
            begun = opened(found, signature["ids"][0] if signature["ids"] else "", name)
            begun["text"].append(signature.astext())
            collect(child.next_node(addnodes.desc_content), begun, found)
        elif isinstance(child, LEFT_OUT):
            continue
        elif child.next_node(nodes.section) or child.next_node(addnodes.desc):
            collect(child, current, found)
        else:
            current["terms"] += [term.astext() for term in child.findall(nodes.term)]
            current["text"].append(" ".join(leaf.astext() for leaf in leaves(child)))


def leaves(node):
    """The nodes below that are a line or block of text each: words of neighbouring cells or items are not joined."""
    if isinstance(node, nodes.TextElement | nodes.Text):
        return [node]
    return [leaf for child in node.children if not isinstance(child, LEFT_OUT) for leaf in leaves(child)]


def opened(found, anchor, heading):
    found.append({"anchor": anchor, "heading": heading, "terms": [], "text": []})
    return found[-1]


def page(app, docname: str) -> dict:
    doctree = app.env.get_doctree(docname)
    title = app.env.titles[docname].astext()
    uri = app.builder.get_target_uri(docname)
    return {"uri": uri, "title": title, "tags": tags.words(app, docname), "sections": sections(doctree)}


def write(app, error):
    if error is None and app.builder.name == "html":
        pages = [page(app, docname) for docname in sorted(app.env.found_docs) if "nosearch" not in app.env.metadata[docname]]
        with open(pathlib.Path(app.srcdir) / "synonyms.toml", "rb") as file:
            synonyms = tomllib.load(file)["groups"]
        # What the ranking itself knows of Chinese is asked in Traditional characters too.
        known = json.dumps([pages, synonyms], ensure_ascii=False) + (pathlib.Path(app.srcdir) / "_static" / "ranking.js").read_text("utf-8")
        texts = {"pages": pages, "synonyms": synonyms, "simplified": traditional.simplified(known)}
        text = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
        target = pathlib.Path(app.outdir) / "_static" / "search-texts.js"
        target.write_text(f"const searchTexts = {text};\n", encoding="utf-8")


def replace_sphinx_search(app):
    """Sphinx's own index cuts Chinese into words by blanks; the page of that name is ours (_templates/search.html)."""
    app.builder.search = False


def setup(app):
    app.connect("builder-inited", replace_sphinx_search)
    app.connect("build-finished", write)
    app.config.html_additional_pages["search"] = "search.html"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
