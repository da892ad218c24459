"""The page for everybody: keys alone, screen readers, two languages, two themes, three widths; in Chromium."""

import pytest

pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
TABS = ("story", "couplet", "reading", "pictures")
SPAN = {"text": "21196", "quote": "21196", "passage": 1, "span": [3, 8], "confidence": 0.8, "chances": [0.1, 0.8]}


def use(page, tab: str) -> None:
    """Fills the form of a tab in and waits for the result."""
    panel = page.locator(f"#panel-{tab}")
    if tab != "pictures":
        panel.locator(".example").nth(1).click()
    panel.locator(".go").click()
    expect(panel.locator(".result")).to_be_visible()
    expect(panel.locator(".stop")).to_be_hidden()


def test_first_paint_has_words_and_no_surprise(visit):
    page = visit()
    expect(page.get_by_role("tab", name="续写")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#panel-story [name=prompt]")).to_be_visible()
    assert page.locator("[data-word]:empty:not(.status)").count() == 0
    assert page.evaluate("performance.getEntriesByType('paint').length") > 0


@pytest.mark.parametrize(
    ("locale", "language", "story"),
    [("zh-CN", "zh-CN", "续写"), ("zh-TW", "zh-CN", "续写"), ("en-GB", "en", "Story"), ("de-DE", "en", "Story")],
)
def test_the_language_is_the_browsers(visit, locale, language, story):
    page = visit(locale=locale)
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.get_by_role("tab").first).to_have_text(story)


def test_the_language_changes_everything_at_once_and_lasts(visit, script):
    script.answer = SPAN
    page = visit("#reading")
    use(page, "reading")
    page.locator("#language").click()
    expect(page.locator("#panel-reading .status")).to_have_text("Done")
    expect(page.locator("#panel-reading .confidence")).to_have_text("80% sure")
    expect(page.locator("#panel-reading [name=passages]")).to_have_attribute("placeholder", "Paste the text here…")
    words = page.locator("#stage, header, footer").evaluate_all(
        "all => all.map(one => [...one.querySelectorAll('[data-word]')].map(w => w.textContent)).flat()"
    )
    assert not [word for word in words if any("一" <= one <= "鿿" for one in word) and word != "中文"]
    page.reload()
    expect(page.get_by_role("tab").first).to_have_text("Story")


def test_both_languages_have_the_same_words(visit):
    page = visit()
    names = "async () => { const [a, b] = await Promise.all([import('/page/words_zh.js'), import('/page/words_en.js')]);"
    both = page.evaluate(names + "return [Object.keys(a.zh), Object.keys(b.en)]; }")
    assert both[0] == both[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_chosen(visit, scheme):
    page = visit(color_scheme=scheme)
    paper = "() => getComputedStyle(document.body).backgroundColor"
    expected = {"light": "rgb(246, 241, 232)", "dark": "rgb(23, 20, 18)"}
    assert page.evaluate(paper) == expected[scheme]
    for now in ("浅色", "深色", "跟随系统"):
        page.locator("#theme").click()
        expect(page.locator("#theme")).to_have_attribute("aria-label", f"外观：{now}")
        assert page.evaluate(paper) == expected[{"浅色": "light", "深色": "dark"}.get(now, scheme)]


@pytest.mark.parametrize("width", [320, 375, 768, 1440])
def test_nothing_is_wider_than_the_window(visit, script, width):
    script.answer = SPAN
    script.pieces = ["长" * 300, "W" * 300]
    script.models[0]["id"] = "m" * 200
    page = visit(width=width)
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        use(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    small = "all => all.filter(one => one.offsetParent && one.getBoundingClientRect().height < 24).map(one => one.outerHTML)"
    assert page.locator("button, select, summary").evaluate_all(small) == []


def test_the_tabs_are_walked_with_arrows(visit):
    page = visit()
    page.get_by_role("tab", name="续写").focus()
    for key, name in (("ArrowRight", "对联"), ("End", "作画"), ("ArrowRight", "续写"), ("ArrowLeft", "作画"), ("Home", "续写")):
        page.keyboard.press(key)
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tabpanel")).to_have_count(1)
        expect(page.get_by_role("tabpanel")).to_have_attribute("aria-labelledby", page.get_by_role("tab", name=name).get_attribute("id"))


def test_a_story_is_written_with_keys_alone(visit, script):
    page = visit("#story")
    expect(page.locator("#server-state")).to_have_text("已就绪")
    walk = []
    for _ in range(40):
        page.keyboard.press("Tab")
        here = page.evaluate("() => { const one = document.activeElement; return one.name || one.id || one.className; }")
        walk.append(here)
        if here == "prompt":
            page.keyboard.type("春")
        if here == "go":
            page.keyboard.press("Enter")
            break
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", here
    assert walk[:3] == ["skip", "language", "theme"] and walk[-1] == "go"
    expect(page.locator("#panel-story .status")).to_have_text("完成")
    expect(page.locator("#panel-story .go")).to_be_focused()


def test_where_motion_is_reduced_nothing_moves(visit, script):
    page = visit("#couplet", reduced_motion="reduce")
    use(page, "couplet")
    assert page.evaluate("document.getAnimations().length") == 0


def findings(page) -> list:
    """What axe-core finds serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='needs pip install ".[browser]"')
    found = axe.Axe().run(page).response["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", TABS)
def test_axe_finds_nothing_serious(visit, script, tab, scheme):
    script.answer = SPAN
    page = visit(f"#{tab}", color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#server-state")).to_have_text("已就绪")
    assert findings(page) == []
    use(page, tab)
    assert findings(page) == []
    if tab == "couplet":
        page.locator(".lower .glyph").nth(1).click()
        assert findings(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_dialog_errors_and_empty_states(visit, script, scheme):
    script.key, script.models = "correct-horse", script.models[:1]
    page = visit("#reading", color_scheme=scheme, reduced_motion="reduce")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert findings(page) == []
    page.locator("#key [name=key]").fill("correct-horse")
    page.keyboard.press("Enter")
    expect(page.locator("#panel-reading .absent")).to_be_visible()
    assert findings(page) == []
    script.key = "another-horse"
    page.locator("#tab-story").click()
    page.locator("#panel-story .example").first.click()
    page.locator("#panel-story .go").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#panel-story .trouble")).to_be_visible()
    assert findings(page) == []
