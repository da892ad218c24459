"""The releases of CHANGELOG.md as an Atom feed (RFC 4287), changelog.xml, beside the built pages."""

import pathlib
import re
import uuid
import xml.etree.ElementTree as ET

RELEASE = re.compile(r"^## (?P<name>\S+) \((?P<day>\d{4}-\d{2}-\d{2})\)\n(?P<text>.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
FEED = uuid.uuid5(uuid.NAMESPACE_URL, "flaxgen/changelog")


def feed(changelog: str, project: str) -> ET.ElementTree:
    """One entry a release, the newest first; what has no date yet waits for its release."""
    releases = list(RELEASE.finditer(changelog))
    root = ET.Element("feed", xmlns="http://www.w3.org/2005/Atom")
    # RFC 4287 wants a date of the feed; before the first release that of the calendar's beginning.
    newest = max((each["day"] for each in releases), default="1970-01-01")
    add(root, title=f"{project}: releases", id=FEED.urn, updated=f"{newest}T00:00:00Z")
    ET.SubElement(root, "link", href="changelog.html")
    ET.SubElement(root, "link", rel="self", href="changelog.xml")
    add(ET.SubElement(root, "author"), name=f"the {project} authors")
    for each in releases:
        entry = ET.SubElement(root, "entry")
        add(entry, title=f"{project} {each['name']}", id=uuid.uuid5(FEED, each["name"]).urn, updated=f"{each['day']}T00:00:00Z")
        ET.SubElement(entry, "link", href="changelog.html")
        add(entry, content=each["text"].strip())
    return ET.ElementTree(root)


def add(parent: ET.Element, **texts: str) -> None:
    for name, text in texts.items():
        ET.SubElement(parent, name).text = text


def write(app, error):
    if error is None and app.builder.format == "html":
        changelog = (pathlib.Path(app.srcdir).parent / "CHANGELOG.md").read_text(encoding="utf-8")
        feed(changelog, app.config.project).write(pathlib.Path(app.outdir) / "changelog.xml", encoding="utf-8", xml_declaration=True)


def setup(app):
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
