"""The page's tab of stories, in Chromium."""

import re

import pytest

pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
WHOLE = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"


def test_a_story_is_continued_and_its_seed_shown(panel, script):
    story = panel("story")
    story.locator(".example").first.click()
    story.locator(".go").click()
    expect(story.locator(".text")).to_have_text(WHOLE)
    expect(story.locator(".status")).to_have_text("完成")
    (_, asked), *none = script.asked
    assert none == [] and asked["model"] == "poetry" and asked["stream"] and (asked["temperature"], asked["top_p"]) == (0.8, 0.9)
    expect(story.locator(".told")).to_have_text(f"种子 {asked['seed']} · 模型 poetry")
    expect(story.locator(".trouble")).to_be_hidden()


def test_words_appear_while_the_server_still_writes(panel, script):
    script.pieces, script.pause = ["，疑是"] + ["霜"] * 200, 0.02
    story = panel("story")
    story.get_by_label("开头").fill("床前明月光")
    story.locator(".go").click()
    expect(story.locator(".text")).to_contain_text("床前明月光，疑是霜")
    expect(story.locator(".status")).to_have_text("生成中…")
    assert story.get_attribute("aria-busy") == "true"
    story.locator(".stop").click()
    expect(story.locator(".status")).to_have_text("已停止")
    expect(story.locator(".end")).to_have_text("中途停下")
    assert story.get_attribute("aria-busy") is None


def test_a_story_that_is_stopped_leaves_the_server(panel, script):
    script.pieces, script.pause = ["霜"] * 1000, 0.02
    story = panel("story")
    story.get_by_label("开头").fill("床前明月光")
    story.locator(".go").click()
    expect(story.locator(".text")).to_contain_text("霜")
    story.locator(".go").focus()
    story.page.keyboard.press("Escape")
    expect(story.locator(".status")).to_have_text("已停止")
    for _ in range(50):
        if script.left:
            break
        story.page.wait_for_timeout(20)
    assert script.left == 1


def test_several_versions_are_kept_apart(panel, script):
    script.pieces = ["甲{index}", "乙{index}"]
    story = panel("story")
    story.get_by_label("开头").fill("起")
    story.locator("[name=samples]").fill("3")
    story.locator(".go").click()
    expect(story.locator(".text")).to_have_text(["起甲0乙0", "起甲1乙1", "起甲2乙2"])
    assert script.asked[0][1]["n"] == 3


def test_a_link_brings_the_whole_request_and_sends_nothing_by_itself(visit, script):
    page = visit("#story", permissions=["clipboard-read", "clipboard-write"])
    story = page.locator("#panel-story")
    story.get_by_label("开头").fill("春江 & 花=月#夜?")
    story.locator("[name=temperature]").fill("1.2")
    story.locator("[name=tokens]").fill("96")
    story.locator(".go").click()
    expect(story.locator(".status")).to_have_text("完成")
    story.get_by_role("button", name="复制链接").click()
    expect(story.get_by_role("button", name="已复制")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(link)
    expect(story.locator(".status")).to_have_text("这是从链接打开的。按下按钮，就会得到同样的结果。")
    assert len(script.asked) == 1
    story.locator(".go").click()
    expect(story.locator(".status")).to_have_text("完成")
    assert script.asked[0] == script.asked[1]


def test_a_link_to_another_model_says_that_texts_will_differ(visit):
    page = visit("#story?prompt=%E6%98%A5&seed=3&model=gpt2-ml")
    expect(page.locator("#panel-story .status")).to_have_text("链接用的模型是 gpt2-ml，这里是 poetry：结果会不同。")


@pytest.mark.parametrize(
    ("name", "given", "kept"), [("temperature", "1e9", "1.5"), ("seed", "-5", "0"), ("tokens", "abc", "64"), ("seed", "Infinity", "")]
)
def test_numbers_of_a_link_are_brought_within_their_bounds(visit, name, given, kept):
    page = visit(f"#story?prompt=x&{name}={given}")
    expect(page.locator(f"#panel-story [name={name}]")).to_have_value(kept)


def test_a_seed_is_kept_on_request(panel, script):
    story = panel("story")
    story.get_by_label("开头").fill("春")
    story.locator(".go").click()
    story.get_by_role("button", name="保留这个种子").click()
    story.locator(".go").click()
    expect(story.locator(".status")).to_have_text("完成")
    assert len({asked["seed"] for _, asked in script.asked}) == 1


def test_a_story_is_copied_whole(visit):
    page = visit("#story", permissions=["clipboard-read", "clipboard-write"])
    page.locator("#panel-story .example").first.click()
    page.locator("#panel-story .go").click()
    expect(page.locator("#panel-story .status")).to_have_text("完成")
    page.locator("#panel-story .paper .plain").click()
    expect(page.locator("#panel-story .paper .plain")).to_have_text("已复制")
    assert page.evaluate("navigator.clipboard.readText()") == WHOLE


def test_where_nothing_can_be_copied_the_text_is_there_to_be_selected(visit):
    page = visit("#story")
    page.evaluate("() => { Object.defineProperty(navigator, 'clipboard', { value: undefined }); document.execCommand = () => false; }")
    page.locator("#panel-story .example").first.click()
    page.locator("#panel-story .go").click()
    page.locator("#panel-story .share").click()
    expect(page.locator("#panel-story .byhand textarea")).to_have_value(re.compile("#story.prompt="))


def test_the_length_stays_within_the_context_of_the_model(panel):
    story = panel("story")
    expect(story.locator("[name=tokens]")).to_have_attribute("max", "160")


@pytest.mark.parametrize(("prompt", "tokens"), [("春" * 150, 42), ("春" * 300, 1), ("spring " * 30, 64)])
def test_beginning_and_continuation_fit_the_context_together(panel, script, prompt, tokens):
    story = panel("story")
    story.get_by_label("开头").fill(prompt)
    story.locator(".go").click()
    expect(story.locator(".status")).to_have_text("完成")
    assert script.asked[0][1]["max_tokens"] == tokens
