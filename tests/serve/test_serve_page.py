"""The Python of the page on serving, against a server of tiny models in the place of the bundled ones."""

import re

import pytest

from flaxgen.serve import guard, limits, routes, settings, wire
from tests import serving, test_pages

PAGE = test_pages.PAGE_OF_THE_SERVER.read_text(encoding="utf-8")


def test_the_blocks_of_the_page_run(served, monkeypatch):
    monkeypatch.setenv("FLAXGEN_KEY", served.settings.key)
    there = {"http://127.0.0.1:8000": served.url, '"poetry"': f'"{serving.IDS["completions"]}"'}
    found = test_pages.run(test_pages.PAGE_OF_THE_SERVER, there)
    found["client"].close()
    found["server"].close()


def numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"[0-9][0-9,]*", text)]


def most(kind) -> set[int]:
    """The largest numbers, lengths and counts of a kind of value, without those of token ids."""
    inner = getattr(kind, "kinds", ()) + ((kind.of,) if hasattr(kind, "of") else ())
    found = {kind.most} if hasattr(kind, "most") and kind is not limits.ID else set()
    return found.union(*map(most, inner))


@pytest.mark.parametrize("route", routes.WORK)
def test_the_page_tells_the_limits_of_fields_as_they_are(route):
    (row,) = re.findall(rf"^\| `{route}` \| (`\w+` [0-9].*) \|$", PAGE, re.MULTILINE)
    row = row.replace(", and `n` times prompts 64", "").split(" (")[0]
    for field in row.split("; "):
        name, rest = re.fullmatch(r"`(\w+)` (.*)", field).groups()
        assert set(numbers(rest)) == most(routes.WORK[route].takes.fields[name].kind), field


def test_the_page_tells_the_limits_of_requests_as_they_are():
    made = settings.Settings()
    assert f"`n` times prompts {limits.ROWS}" in PAGE and f"address too long ({guard.TARGET_BYTES >> 10} KiB)" in PAGE
    assert f"body too large ({made.body_bytes >> 20} MiB) or in too many chunks ({wire.CHUNKS:,})" in PAGE
    assert f"head too large ({made.header_bytes >> 10} KiB or {guard.HEADER_FIELDS} lines)" in PAGE
    assert made.header_seconds == made.body_seconds and f"came too slowly ({made.body_seconds:g} s each)" in PAGE
    assert f"more than {made.connections} connections" in PAGE
