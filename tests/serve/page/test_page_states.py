"""What the page says while it waits, and where something is wrong, in Chromium."""

import pytest

pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
import scripted
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def go(story, prompt: str = "春") -> None:
    story.locator("[name=prompt]").fill(prompt)
    story.locator(".go").click()


def test_nothing_is_sent_before_the_models_are_warm(panel, script):
    script.warming = 2
    story = panel("story")
    go(story)
    expect(story.locator(".status")).to_have_text("模型还在预热，一好就开始…")
    expect(story.page.locator("#server-state")).to_have_text("模型正在预热 8 pictures at once")
    assert script.asked == []
    expect(story.locator(".text")).to_have_text("春，疑是地上霜。举头望明月，低头思故乡。", timeout=10_000)
    expect(story.page.locator("#server-state")).to_have_text("已就绪")


def test_waiting_for_warm_models_can_be_stopped(panel, script):
    script.warming = 100
    story = panel("story")
    go(story)
    story.locator(".stop").click()
    expect(story.locator(".status")).to_have_text("已停止")


def test_a_key_is_asked_for_and_the_request_goes_on(visit, script):
    script.key = "correct-horse"
    page = visit("#story")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("这台服务器只回答持有密钥的人")
    dialog.get_by_label("密钥").fill("wrong-horse")
    dialog.get_by_role("button", name="使用").click()
    expect(dialog).to_contain_text("这个密钥不对")
    dialog.get_by_label("密钥").fill("correct-horse")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#server-state")).to_have_text("已就绪")
    go(page.locator("#panel-story"))
    expect(page.locator("#panel-story .status")).to_have_text("完成")
    kept = page.evaluate("[sessionStorage['flaxgen.key'], localStorage['flaxgen.key'], location.href.includes('horse')]")
    assert kept == ["correct-horse", None, False]
    page.reload()
    expect(page.locator("#server-state")).to_have_text("已就绪")


def test_a_key_is_remembered_only_on_request(visit, script):
    script.key = "correct-horse"
    page = visit()
    page.get_by_label("密钥", exact=True).last.fill("correct-horse")
    page.get_by_label("在这台设备上记住").check()
    page.get_by_role("button", name="使用").click()
    expect(page.locator("#server-state")).to_have_text("已就绪")
    assert page.evaluate("localStorage['flaxgen.key']") == "correct-horse"


def test_without_a_key_the_page_stays_and_asks_again_when_it_is_used(visit, script):
    script.key = "correct-horse"
    page = visit("#story")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#server-state")).to_have_text("需要密钥")
    go(page.locator("#panel-story"))
    page.get_by_role("dialog").get_by_role("button", name="取消").click()
    expect(page.locator("#panel-story .what")).to_have_text("没有密钥，服务器不回答。")
    page.get_by_role("button", name="再试一次").click()
    page.get_by_role("dialog").get_by_label("密钥").fill("correct-horse")
    page.keyboard.press("Enter")
    expect(page.locator("#panel-story .status")).to_have_text("完成")


def test_a_busy_server_is_asked_again_after_the_time_it_names(panel, script):
    script.failures = [scripted.refusal(429, "the queue is full", **{"Retry-After": "2"})]
    story = panel("story")
    go(story)
    expect(story.locator(".what")).to_have_text("服务器太忙，排队已满。请稍等片刻。")
    expect(story.locator(".trouble button")).to_be_disabled()
    expect(story.locator(".trouble button")).to_have_text("1 秒后可再试")
    story.get_by_role("button", name="再试一次").click()
    expect(story.locator(".status")).to_have_text("完成")
    expect(story.locator(".trouble")).to_be_hidden()


REFUSALS = {
    (400, "out_of_range"): "服务器不接受这个请求。",
    (404, "no_model"): "这台服务器没有相应的模型。",
    (500, None): "服务器内部出错了。",
    (503, "draining"): "服务器正在停止或重新启动，请稍后再试。",
    (503, "timeout"): "没能在时限内完成。请稍后再试，或者少要一些。",
}


@pytest.mark.parametrize(("status", "code"), REFUSALS)
def test_refusals_are_told_in_words_and_can_be_tried_again(panel, script, status, code):
    script.failures = [scripted.refusal(status, "temperature: got 9", code)]
    couplet = panel("couplet")
    couplet.locator(".example").first.click()
    couplet.locator(".go").click()
    expect(couplet.locator(".what")).to_have_text(REFUSALS[status, code])
    expect(couplet.locator(".detail")).to_have_text("服务器说：temperature: got 9")
    couplet.get_by_role("button", name="再试一次").click()
    expect(couplet.locator(".scroll")).to_have_count(2)


def test_an_answer_of_something_in_between_is_told_too(panel, script):
    script.failures = [scripted.Response("<h1>Bad Gateway</h1>", 502, media_type="text/html")]
    story = panel("story")
    go(story)
    expect(story.locator(".what")).to_have_text("连不上服务器。它还在运行吗？网络通吗？")


def test_a_network_that_is_gone_is_told_and_what_was_typed_stays(visit):
    page = visit("#story")
    expect(page.locator("#server-state")).to_have_text("已就绪")
    page.context.set_offline(True)
    go(page.locator("#panel-story"))
    expect(page.locator("#panel-story .what")).to_have_text("连不上服务器。它还在运行吗？网络通吗？")
    expect(page.locator("#panel-story [name=prompt]")).to_have_value("春")
    page.context.set_offline(False)
    page.get_by_role("button", name="再试一次").click()
    expect(page.locator("#panel-story .status")).to_have_text("完成")


BROKEN, FAILED, LATE = "服务器的回答中途断了，或者读不懂。", "服务器内部出错了。", "没能在时限内完成。请稍后再试，或者少要一些。"
TAILS = {
    "": BROKEN,
    "data: {nonsense\n\n": BROKEN,
    "data: 7\n\n": BROKEN,
    'data: {"error": {"message": "the row failed", "type": "server_error", "code": null}}\n\n': FAILED,
    'data: {"error": {"message": "too late", "type": "server_error", "code": "timeout"}}\n\n': LATE,
}


@pytest.mark.parametrize("tail", TAILS, ids=["cut off", "no json", "no chunk", "error", "late"])
def test_a_stream_that_breaks_off_keeps_what_was_written(panel, script, tail):
    script.tail = tail
    story = panel("story")
    go(story)
    expect(story.locator(".what")).to_have_text(TAILS[tail])
    expect(story.locator(".text")).to_contain_text("低头思故乡。")


@pytest.mark.parametrize("couplets", [[], [{"text": 7}], [None], "none"])
def test_couplets_that_make_no_sense_are_refused(panel, script, couplets):
    script.couplets = couplets
    couplet = panel("couplet")
    couplet.locator(".example").first.click()
    couplet.locator(".go").click()
    expect(couplet.locator(".what")).to_have_text("服务器的回答中途断了，或者读不懂。")


def test_a_server_slower_than_usual_is_told(panel, script):
    story = panel("story")
    expect(story.page.locator("#server-state")).to_have_text("已就绪")
    story.page.clock.install()
    script.pieces, script.pause = [""], 1.0
    story.page.route("**/v1/completions", lambda route: None)
    go(story)
    expect(story.locator(".status")).to_have_text("等待第一个结果…")
    story.page.clock.run_for(6000)
    expect(story.locator(".status")).to_contain_text("比平时慢")
    story.locator(".stop").click()


def test_what_is_refused_leaves_what_was_there(panel, script):
    story = panel("story")
    script.failures = [scripted.refusal(400)]
    go(story)
    expect(story.locator(".trouble")).to_be_visible()
    expect(story.locator(".empty")).to_be_visible()
    go(story, "夏")
    expect(story.locator(".given")).to_have_text("夏")
    script.failures = [scripted.refusal(400)]
    go(story, "秋")
    expect(story.locator(".trouble")).to_be_visible()
    expect(story.locator(".given")).to_have_text("夏")


def test_pressing_twice_sends_once(panel, script):
    script.pause = 0.05
    story = panel("story")
    story.locator("[name=prompt]").fill("春")
    story.locator(".go").dblclick()
    expect(story.locator(".status")).to_have_text("完成")
    assert len(script.asked) == 1
