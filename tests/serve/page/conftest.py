"""A page in Chromium before the scripted server; whatever the page must never do fails the test that made it do so."""

import pathlib
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
PATIENCE = 30_000  # milliseconds: where processes outnumber cores, a browser may take seconds for a click
ARGUMENTS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def chromium():
    """Of a module: while it is there, nothing else in this process can run an event loop."""
    playwright = pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
    with playwright.sync_playwright() as one:
        path = CHROMIUM or one.chromium.executable_path
        if not pathlib.Path(path).exists():
            pytest.skip("no Chromium on this machine")
        playwright.expect.set_options(timeout=PATIENCE)
        browser = one.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def serving(chromium):
    import scripted

    server = scripted.Server()
    yield server
    server.close()


@pytest.fixture
def script(serving):
    """What the server says in this test."""
    import scripted

    serving.script = scripted.Script()
    return serving.script


@pytest.fixture
def visit(chromium, serving, script):
    """visit("#story", width=375, …) opens the page of the scripted server, or of `url`; options are those of a browser context."""
    contexts, trouble = [], []

    def open_page(
        fragment: str = "", *, url: str = serving.url, key: str = "", width: int = 1280, height: int = 900, locale: str = "zh-CN", **options
    ):
        context = chromium.new_context(viewport={"width": width, "height": height}, locale=locale, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: trouble.append(f"asked {request.url}") if _is_foreign(request.url, url) else None)
        page.on("pageerror", lambda error: trouble.append(f"error {error}"))
        page.on("console", lambda message: trouble.append(f"console {message.text}") if _is_bad(message) else None)
        page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.add_init_script(f"if ({key!r}) sessionStorage['flaxgen.key'] = {key!r};")
        page.goto(f"{url}/{fragment}")
        return page

    yield open_page
    cookies = [cookie for context in contexts for cookie in context.cookies()]
    for context in contexts:
        context.close()
    assert trouble == []
    assert cookies == []


def _is_foreign(url: str, own: str) -> bool:
    return not url.startswith((own + "/", "data:image/png;base64,", f"blob:{own}/"))


def _is_bad(message) -> bool:
    """Chromium itself notes every response of an error's status, which tests of errors ask for."""
    return message.type in ("error", "warning") and not message.text.startswith("Failed to load resource: ")


@pytest.fixture
def panel(visit):
    """panel("story") opens a tab; its locator finds what is in it."""

    def open_panel(name: str, **options):
        return visit(f"#{name}", **options).locator(f"#panel-{name}")

    return open_panel
