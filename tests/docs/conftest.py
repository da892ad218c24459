"""The guide, built once a test process with the network forbidden, and Chromium to look at it."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
PACKAGES = ("sphinx", "furo", "myst_parser", "sphinx_copybutton", "sphinx-mathjax-offline", "opencc")
# Whatever would leave this machine raises in the building process.
BUILD = """
import socket, sys
def refuse(self, address):
    raise OSError(f"the guide is built without the network, and something asked for {address}")
socket.socket.connect = socket.socket.connect_ex = refuse
from sphinx.cmd import build
sys.exit(build.main(sys.argv[1:]))
"""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> pathlib.Path:
    """The folder of the built pages."""
    for package in PACKAGES:
        pytest.importorskip(package, reason='needs pip install ".[docs]"')
    folder = tmp_path_factory.mktemp("guide")
    words = ["-W", "--keep-going", "-q", "-E", "-b", "html", "-d", str(folder / "trees"), str(ROOT / "docs"), str(folder / "site")]
    done = subprocess.run([sys.executable, "-c", BUILD, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "site"


@pytest.fixture(scope="module")
def chromium():
    """Of a module, since Playwright's synchronous interface starts once at a time, and other tests start it too."""
    playwright = pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
    with playwright.sync_playwright() as one:
        path = CHROMIUM or one.chromium.executable_path
        if not pathlib.Path(path).exists():
            pytest.skip("no Chromium on this machine")
        browser = one.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, site):
    """visit("write.html", width=375, …) opens a page from the disk; its complaints, and requests that leave the disk, fail the test."""
    contexts, trouble = [], []

    def open_page(name: str, *, width: int = 1280, height: int = 900, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
        page.goto(f"{site.as_uri()}/{name}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not trouble
