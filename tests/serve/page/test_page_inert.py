"""What a model, a server or a stranger's link says stays text (V9), in Chromium."""

import pytest

pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
import urllib.parse

import payloads
import scripted
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
ALIVE = """() => {
    const all = [...document.querySelectorAll("*")];
    const names = all.map((one) => one.localName);
    const handled = (one) => one.getAttributeNames().some((name) => name.startsWith("on"));
    const styled = (one) => one.hasAttribute("style") && !one.closest(".bar, .others");
    const own = /^(#stage|\\/page\\/\\w+\\.(css|svg|js)|data:image\\/png;base64,[\\w+/=]+)$/;
    const fits = (one, name) => own.test(one.getAttribute(name));
    const foreign = (one) => ["src", "href", "action", "srcdoc", "data"].some((name) => one.hasAttribute(name) && !fits(one, name));
    const strange = names.filter((name) => /^(iframe|object|embed|base|video|audio|math|marquee|template|style)$/.test(name));
    return [window.__x ?? null, names.filter((name) => name === "script").length, strange, all.filter(handled).length,
        all.filter(styled).length, all.filter(foreign).map((one) => one.outerHTML)];
}"""
INERT = [None, 2, [], 0, 0, []]


class Victim:
    """The page, and every place to which a payload can be brought."""

    def __init__(self, page, script):
        self.page, self.script = page, script
        self.asked: list[str] = []
        page.on("request", lambda request: self.asked.append(urllib.parse.urlsplit(request.url).path))

    def press(self, selector: str) -> None:
        self.page.locator(selector).first.evaluate("one => one.click()")  # at once; no waiting for things to stand still

    def go(self, tab: str, payload: str) -> None:
        self.press(f"#tab-{tab}")
        panel = self.page.locator(f"#panel-{tab}")
        for field in panel.locator("[required]").all():
            field.evaluate("(field, text) => { field.removeAttribute('maxlength'); field.value = text; }", payload)
        self.script.asked.clear()
        self.press(f"#panel-{tab} .go")
        panel.locator(".stop").wait_for(state="hidden")
        assert len(self.script.asked) == 1

    def shows(self, selector: str, text: str) -> None:
        assert self.page.locator(selector).first.evaluate("one => one.textContent") == text

    def check(self) -> None:
        assert self.page.evaluate(ALIVE) == INERT
        own = ("/v1/", "/ready", "/page/")
        assert [path for path in self.asked if not path.startswith(own) and path != "/" and "base64," not in path] == []


@pytest.fixture
def victim(visit, script):
    return Victim(visit(), script)


def try_everywhere(victim, payload: str) -> None:
    script = victim.script
    script.pieces = [payload[:7], payload[7:]]
    victim.go("story", payload)
    victim.shows("#panel-story .given", payload.replace("\r\n", "\n"))
    victim.shows("#panel-story .new", payload)
    others = [{"text": payload, "probability": 0.5}, {"text": payload, "probability": payload}]
    line = {"upper": payload, "text": payload, "score": payload, "alternatives": [others] * len(payload), "unknown": payload}
    script.couplets = [line]
    victim.go("couplet", payload)
    for selector in (".lower .glyph", "[role=menuitemradio]", "#panel-couplet .save"):
        victim.press(selector)
    script.answer = {"text": payload, "quote": payload, "passage": 0, "span": [1, 5], "confidence": payload, "chances": [payload]}
    victim.go("reading", payload)
    victim.shows("#panel-reading .quote", payload)
    victim.shows("#panel-reading .answer", payload + victim.page.locator("#panel-reading .confidence").text_content())
    script.labels = [payload]
    victim.go("pictures", payload)
    victim.shows(".grid li span", payload)
    script.failures = [scripted.refusal(400, payload, payload)]
    victim.go("story", payload)
    victim.shows("#panel-story .detail", f"服务器说：{payload}")
    values = dict.fromkeys(("prompt", "seed", "temperature", "model", "__proto__", "onclick", "innerHTML", "stop"), payload)
    victim.page.evaluate("(hash) => { location.hash = hash; }", f"story?{urllib.parse.urlencode(values)}")
    expect(victim.page.locator("#panel-story .status")).to_contain_text("链接用的模型是")
    assert victim.page.locator("#panel-story [name=prompt]").input_value() == payload
    victim.check()


def test_forty_payloads_stay_text_wherever_they_come_in(victim):
    assert len(payloads.PLAIN) == 40
    victim.page.locator("[name=moves]").evaluate("field => { field.value = 10; }")
    for payload in payloads.PLAIN:
        try_everywhere(victim, payload)


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(5))
def test_two_hundred_payloads_stay_text_wherever_they_come_in(victim, part):
    assert len(set(payloads.MANY)) == 200
    victim.page.locator("[name=moves]").evaluate("field => { field.value = 10; }")
    for payload in payloads.MANY[part::5]:
        try_everywhere(victim, payload)


def test_names_of_models_and_classes_stay_text(visit, script):
    for model, payload in zip(script.models, payloads.PLAIN[:4], strict=True):
        model["id"] = payload
    script.models[-1]["classes"] = list(payloads.PLAIN)
    script.models += [{"id": payload, "task": payload} for payload in payloads.PLAIN]
    victim = Victim(visit(), script)
    expect(victim.page.locator("#server-state")).to_have_text("已就绪")
    for tab in ("story", "couplet", "reading", "pictures"):
        victim.go(tab, "春")
    assert victim.page.locator("#loaded").text_content().endswith(payloads.PLAIN[-1])
    assert victim.page.locator("[name=label] option").all_text_contents()[1:] == list(payloads.PLAIN)
    victim.check()


@pytest.mark.parametrize("image", ['x" onerror="window.__x=1', "AAAA'); window.__x=1; ('", "", 7, "../../canary"])
def test_what_is_no_image_in_base64_is_refused(victim, image, monkeypatch):
    monkeypatch.setattr(scripted, "png", lambda shade: image)
    victim.go("pictures", "")
    expect(victim.page.locator("#panel-pictures .what")).to_have_text("服务器的回答中途断了，或者读不懂。")
    victim.check()


def test_a_link_that_names_no_tab_or_breaks_its_coding_is_harmless(visit):
    for fragment in ("#key?x=1", "#__proto__?a=b", "#story?prompt=%E4%ZZ&seed=%", "#story?" + "a" * 100_000, "#tab-story", "#?" * 50):
        page = visit(fragment)
        expect(page.locator("#server-state")).to_have_text("已就绪")
        assert page.evaluate(ALIVE) == INERT


def test_the_policy_of_the_page_forbids_what_would_run_in_it(chromium, serving, script):
    context = chromium.new_context()  # where Chromium may complain
    page = context.new_page()
    page.goto(serving.url)
    inject = """() => {
        document.body.append(Object.assign(document.createElement("script"), { textContent: "window.__x = 1" }));
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.__x=1'>");
    }"""
    page.evaluate(inject)
    page.wait_for_timeout(200)
    assert page.evaluate("window.__x ?? null") is None
    context.close()
