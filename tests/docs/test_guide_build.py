"""The built guide: what its pages refer to, what it documents, its feed."""

import collections
import datetime
import html.parser
import re
import urllib.parse
import xml.etree.ElementTree as ET

import pytest

import flaxgen

pytestmark = pytest.mark.docs
ATOM = "{http://www.w3.org/2005/Atom}"
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("img", "srcset"), ("source", "src"), ("iframe", "src"), ("object", "data")}


class Page(html.parser.HTMLParser):
    """What a page loads, where its links lead, and the places that links may lead to."""

    def __init__(self, text: str):
        super().__init__()
        self.loads, self.links, self.places = [], [], {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if (tag, name) in LOADED:
                self.loads.append(value)
            if (tag, name) == ("a", "href"):
                self.links.append(value)
            if name in ("id", "name"):
                self.places.add(value)


@pytest.fixture(scope="module")
def pages(site) -> dict:
    return {path.relative_to(site): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_a_page_loads_nothing_from_elsewhere(site, pages):
    assert len(pages) > 30
    loads = collections.Counter(each for page in pages.values() for each in page.loads)
    assert [each for each in loads if re.match(r"(?:[a-z]+:)?//", each)] == []
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")) == [], sheet


def test_every_link_within_the_guide_leads_to_a_place_that_is_there(site, pages):
    lost = []
    for name, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (site / name.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else site / name
            other = pages.get(target.relative_to(site.resolve())) if target.suffix == ".html" else None
            if not target.exists() or (other and urllib.parse.unquote(parts.fragment) not in other.places):
                lost.append(f"{name}: {link}")
    assert lost == []


def test_every_public_name_is_in_the_reference(pages):
    places = set().union(*(page.places for page in pages.values()))
    assert [name for name in flaxgen.__all__ if name != "PRESETS" and f"flaxgen.{name}" not in places] == []


def test_mathjax_comes_with_the_pages(site):
    assert "MathJax" in (site / "_static/mathjax/tex-svg-full.js").read_text(encoding="utf-8")


def test_the_changelog_is_an_atom_feed(site):
    feed = ET.parse(site / "changelog.xml").getroot()
    entries = feed.findall(f"{ATOM}entry")
    assert feed.tag == f"{ATOM}feed" and entries and feed.find(f"{ATOM}author/{ATOM}name").text
    ids = []
    for each in (feed, *entries):
        assert each.find(f"{ATOM}title").text
        ids.append(each.find(f"{ATOM}id").text)
        assert datetime.datetime.fromisoformat(each.find(f"{ATOM}updated").text).tzinfo
    assert len(set(ids)) == len(ids) and all(each.startswith("urn:uuid:") for each in ids)
    assert entries[0].find(f"{ATOM}title").text == f"flaxgen {flaxgen.__version__}"
    assert "GPT2_ML" in entries[-1].find(f"{ATOM}content").text
