"""The pages of the guide in Chromium: narrow and wide, light and dark, on paper."""

import re

import pytest

pytestmark = [pytest.mark.docs, pytest.mark.browser]
TALL = 800
# What reaches beyond the window, unless something that scrolls inside itself holds it.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll("article *")].filter(each => each.getBoundingClientRect().right > width + 1
    && !each.closest("pre, .table-wrapper, .math, mjx-container"));
  return [document.documentElement.scrollWidth - width, out.slice(0, 3).map(each => each.outerHTML.slice(0, 120))];
}"""
TYPESET = "() => window.MathJax?.startup?.promise"


@pytest.mark.parametrize("width", [375, 768, 1440])
def test_no_page_is_wider_than_the_window(visit, site, width):
    page = visit("index.html", width=width, height=TALL)
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        page.evaluate(TYPESET)
        assert page.evaluate(OVERFLOW) == [0, []], path.name


def test_formulas_are_set_without_errors_and_fit_a_phone(visit, site):
    page, formulas = visit("index.html", width=375, height=TALL), 0
    for path in sorted(site.glob("*.html")):
        sources = len(re.findall(r'class="math notranslate', path.read_text(encoding="utf-8")))
        page.goto(path.as_uri())
        page.evaluate(TYPESET)
        assert page.locator("mjx-container").count() >= sources, path.name
        assert page.locator("[data-mjx-error]").count() == 0, path.name
        wide = "all => all.filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.textContent)"
        assert page.locator("mjx-container").evaluate_all(wide) == [], path.name
        formulas += sources
    assert formulas > 100


def test_what_is_wider_than_a_phone_scrolls_inside_itself_and_shows_that_it_does(visit):
    page = visit("write.html", width=375, height=TALL)
    page.evaluate(TYPESET)
    table = page.locator(".table-wrapper").first
    style = "each => [each.scrollWidth > each.clientWidth, getComputedStyle(each).overflowX, getComputedStyle(each).backgroundAttachment]"
    assert table.evaluate(style) == [True, "auto", "local, local, scroll, scroll"]


def test_on_paper_code_wraps_and_navigation_goes(visit):
    page = visit("determinant.html", width=700)
    page.emulate_media(media="print")
    page.evaluate(TYPESET)
    code = page.locator("article pre").evaluate_all(
        "all => all.map(each => [getComputedStyle(each).whiteSpace, each.scrollWidth - each.clientWidth])"
    )
    assert len(code) > 10 and all(style == "pre-wrap" and beyond <= 0 for style, beyond in code)
    for gone in (".sidebar-drawer", ".toc-drawer", ".mobile-header", ".copybtn"):
        assert not any(each.is_visible() for each in page.locator(gone).all()), gone
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_dark_pages_have_light_formulas(visit):
    shades = []
    for scheme in ("light", "dark"):
        page = visit("determinant.html", color_scheme=scheme)
        page.evaluate(TYPESET)
        shades.append(page.locator("mjx-container svg").first.evaluate("each => parseInt(getComputedStyle(each).color.slice(4))"))
    assert shades[0] < 60 and shades[1] > 180


def test_chinese_is_marked_as_chinese(visit):
    page = visit("couplets.html")
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("p[lang=zh]").count() >= 1


def test_what_scrolls_inside_itself_is_reached_by_the_keyboard(visit):
    page = visit("determinant.html", width=250)
    page.evaluate(TYPESET)
    page.wait_for_function("[...document.querySelectorAll('div.math mjx-container')].some(each => each.tabIndex === 0)")
    assert page.locator("pre[tabindex='0']").count() > 3


@pytest.mark.parametrize("name", ["index", "determinant", "faq-zh", "reference/rules", "search"])
def test_a_page_has_no_serious_finding_of_axe(visit, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='needs pip install ".[browser]"')
    page = visit(f"{name}.html")
    page.evaluate(TYPESET)
    findings = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in findings if each["impact"] in ("serious", "critical")] == []
