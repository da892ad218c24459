"""The page on the server itself, with tiny models behind it, in Chromium."""

import pytest

pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
from playwright.sync_api import expect

from tests import serving as real

pytestmark = pytest.mark.browser
LINES = {"prompt": "春风", "line": "春风山水", "passages": "天地\n\n春天", "question": "春？"}


def use(panel) -> None:
    for name, text in LINES.items():
        if panel.locator(f"[name={name}]").count():
            panel.locator(f"[name={name}]").fill(text)
    for switch in panel.get_by_role("checkbox").all():
        switch.uncheck()  # tiny couplets know few characters
    panel.locator(".go").click()
    expect(panel.locator(".status")).to_have_text("完成", timeout=20_000)
    expect(panel.locator(".trouble")).to_be_hidden()


@pytest.mark.parametrize("tab", ["story", "couplet", "reading", "pictures"])
def test_every_tab_works_on_the_server_itself(visit, served, tab):
    page = visit(f"#{tab}", url=served.url, key=served.settings.key)
    use(page.locator(f"#panel-{tab}"))
    results = {"story": ".paper", "couplet": ".scroll", "reading": ".passage", "pictures": ".grid img[src^=data]"}
    counts = {"story": 1, "couplet": 2, "reading": 2, "pictures": 4}
    expect(page.locator(f"#panel-{tab} {results[tab]}")).to_have_count(counts[tab])


def test_a_link_gives_the_same_story_on_the_server_itself(visit, served):
    options = {"url": served.url, "key": served.settings.key}
    page = visit("#story?prompt=%E6%98%A5%E9%A3%8E&seed=7&samples=2&temperature=1.2", **options)
    again = visit(page.url.removeprefix(served.url + "/"), **options)
    for one in (page, again):
        one.locator("#panel-story .go").click()
        expect(one.locator("#panel-story .status")).to_have_text("完成", timeout=20_000)
    texts = [one.locator("#panel-story .text").all_text_contents() for one in (page, again)]
    assert texts[0] == texts[1] and len(texts[0]) == 2 and all(text.startswith("春风") for text in texts[0])


def test_the_server_itself_asks_for_its_key(visit, served):
    page = visit(url=served.url)
    page.get_by_role("dialog").get_by_label("密钥").fill(served.settings.key)
    page.keyboard.press("Enter")
    expect(page.locator("#server-state")).to_have_text("已就绪")
    expect(page.locator("#loaded")).to_contain_text(real.IDS["completions"])
