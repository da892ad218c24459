"""The page's tab of reading, in Chromium."""

import pytest

pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
FIRST, SECOND = "第一篇\n两行。", "𠮷野家😀的牛肉饭。"


@pytest.fixture
def ask(panel):
    """ask() pastes two passages and asks; options are those of the page."""

    def asked(**options):
        reading = panel("reading", **options)
        reading.locator("[name=passages]").fill(f"\n\n{FIRST}\n \n\n{SECOND}\n")
        reading.locator("[name=question]").fill("谁家的？")
        reading.locator(".go").click()
        return reading

    return asked


def test_the_words_that_answer_light_up_where_they_stand_counted_in_code_points(ask, script):
    script.answer = {
        "text": "的牛肉",
        "quote": "的牛肉",
        "passage": 1,
        "span": [4, 7],
        "confidence": 0.834,
        "chances": [0.02, 0.834],
        "cut": [0],
    }
    reading = ask()
    expect(reading.locator(".quote")).to_have_text("的牛肉")
    expect(reading.locator("mark")).to_have_text(["的牛肉"])
    expect(reading.locator(".passage .text")).to_have_text([FIRST, SECOND], use_inner_text=False)
    expect(reading.locator(".confidence")).to_have_text("把握 83%")
    expect(reading.locator(".passage .hint")).to_have_text(["把握 2% · 没有读完：太长", "把握 83%"])
    assert script.asked[0][1] == {"model": "reader", "question": "谁家的？", "passages": [FIRST, SECOND], "mode": "extractive"}


def test_no_answer_is_said(ask, script):
    script.answer = {"dismissed": [0, 1]}
    reading = ask()
    expect(reading.locator(".quote")).to_have_text("这些文章里没有答案")
    expect(reading.locator("mark")).to_have_count(0)
    expect(reading.locator(".copy")).to_be_hidden()


def test_an_answer_in_the_models_own_words_is_told_as_such(ask, script):
    script.answer = {"text": "吉野家", "quote": "吉野家", "passage": 1, "span": None, "question_cut": True}
    reading = ask()
    expect(reading.locator(".answer .hint")).to_have_text(["把握 71%", "答案不是原文的字句。", "问题太长，只读了开头。"])


def test_too_many_passages_are_told_before_anything_is_sent(panel, script):
    reading = panel("reading")
    reading.locator("[name=passages]").fill("\n\n".join("甲" * 11))
    reading.locator("[name=question]").fill("？")
    reading.locator(".go").click()
    expect(reading.locator(".trouble .what")).to_have_text("最多 10 篇文章，这里有 11 篇；请删去一些空行或文章。")
    assert script.asked == []


def test_without_a_reader_the_page_says_how_to_get_one(visit, script):
    script.models = [model for model in script.models if model["task"] != "reading"]
    reading = visit("#reading", locale="en-GB").locator("#panel-reading")
    expect(reading.locator("h2")).to_have_text("This server has no reader loaded.")
    expect(reading.locator("pre")).to_have_text(["flaxgen serve --reader FOLDER", "python -m train reading"])
    expect(reading.locator("form")).to_be_hidden()


def test_a_link_brings_passages_and_question(ask, visit, script):
    ask(permissions=["clipboard-read", "clipboard-write"])
    page = visit("#reading?passages=%E7%94%B2%0A%0A%E4%B9%99&question=%E4%B8%99&mode=generative")
    page.locator("#panel-reading .go").click()
    expect(page.locator("#panel-reading .status")).to_have_text("完成")
    assert script.asked[-1][1] == {"model": "reader", "question": "丙", "passages": ["甲", "乙"], "mode": "generative"}
