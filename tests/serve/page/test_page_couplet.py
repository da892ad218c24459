"""The page's tab of couplets, in Chromium."""

import pathlib

import pytest

pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
import scripted
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
UPPER = "晚风摇树树还挺"


@pytest.fixture
def couplet(panel):
    """The tab, its upper line answered; nothing moves, so that places can be measured."""
    found = panel("couplet", permissions=["clipboard-read", "clipboard-write"], reduced_motion="reduce")
    found.get_by_label("上联", exact=True).fill(UPPER)
    found.locator(".go").click()
    expect(found.locator(".status")).to_have_text("完成")
    return found


def lower(couplet) -> str:
    return "".join(couplet.locator(".scroll.lower .glyph").all_inner_texts())


def test_two_scrolls_hang_with_the_upper_line_at_the_right(couplet):
    assert "".join(couplet.locator(".scroll.upper .glyph").all_inner_texts()) == UPPER
    assert lower(couplet) == scripted.LOWER
    right, left = (couplet.locator(f".scroll.{side}").bounding_box() for side in ("upper", "lower"))
    assert right["x"] > left["x"] + left["width"] and right["height"] > 5 * right["width"]


def test_lower_lines_are_paged_through(couplet):
    expect(couplet.get_by_label("上一个")).to_be_disabled()
    couplet.get_by_label("下一个").click()
    assert lower(couplet) == "朝阳照水水犹清"
    expect(couplet.locator(".page")).to_have_text("第 2 个，共 2 个")
    expect(couplet.get_by_label("下一个")).to_be_disabled()


def test_a_character_is_changed_by_tapping(couplet):
    couplet.locator(".lower .glyph").nth(2).click()
    expect(couplet.get_by_role("menuitemradio")).to_have_count(3)
    expect(couplet.get_by_role("menuitemradio").last).to_contain_text("<0.1%")
    couplet.get_by_role("menuitemradio").nth(1).click()
    assert lower(couplet) == "晨露夜花花更红"
    expect(couplet.locator(".told")).to_have_text("改过 1 个字")
    couplet.get_by_role("button", name="复制", exact=True).click()
    expect(couplet.get_by_role("button", name="已复制")).to_be_visible()
    assert couplet.page.evaluate("navigator.clipboard.readText()") == f"{UPPER}\n晨露夜花花更红"


def test_a_character_is_changed_by_keys_alone(couplet):
    place = couplet.locator(".lower .glyph").nth(1)
    place.focus()
    press = couplet.page.keyboard.press
    press("Enter")
    expect(couplet.get_by_role("menu")).to_be_visible()
    press("Escape")
    expect(couplet.get_by_role("menu")).to_have_count(0)
    expect(place).to_be_focused()
    press("Enter")
    press("ArrowDown")
    press("ArrowDown")
    press("Enter")
    assert lower(couplet) == "晨朝沾花花更红"
    expect(couplet.locator(".lower .glyph").nth(1)).to_be_focused()


@pytest.mark.parametrize("width", [375, 1440])
def test_the_menu_stays_within_the_window(panel, width):
    couplet = panel("couplet", width=width)
    couplet.locator(".example").first.click()
    couplet.locator(".go").click()
    for number in (0, 6):
        couplet.locator(".lower .glyph").nth(number).click()
        box = couplet.get_by_role("menu").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        couplet.page.locator(".seal").click()
        expect(couplet.get_by_role("menu")).to_have_count(0)


def test_rules_and_their_number_are_asked_for(panel, script):
    couplet = panel("couplet")
    couplet.get_by_label("上联", exact=True).fill(UPPER)
    couplet.get_by_label("平仄相对").click()
    couplet.locator("[name=best]").fill("2")
    couplet.locator(".go").click()
    expect(couplet.locator(".status")).to_have_text("完成")
    rules = {"tones": False, "ends": True, "repeats": True, "fresh": True}
    assert script.asked[0][1] == {"model": "couplet", "line": UPPER, "best": 2, "alternatives": 8, "rules": rules}


def test_a_link_brings_line_and_rules(visit, script):
    couplet = visit("#couplet?line=%E6%98%A5%E9%A3%8E&tones=0&best=3").locator("#panel-couplet")
    expect(couplet.get_by_label("平仄相对")).not_to_be_checked()
    expect(couplet.locator("[name=line]")).to_have_value("春风")
    couplet.locator(".go").click()
    expect(couplet.locator(".status")).to_have_text("完成")
    assert script.asked[0][1]["best"] == 3 and not script.asked[0][1]["rules"]["tones"]


def test_punctuation_is_not_written_and_long_lines_take_columns_from_the_outside(panel, script):
    upper, below = "海内存知己，天涯若比邻，无为在歧路", "花间一壶酒，独酌无相亲，举杯邀明月"
    script.couplets = [
        scripted.couplet(upper, below) | {"alternatives": [[] if one == "，" else [{"text": one, "probability": 1}] for one in below]}
    ]
    couplet = panel("couplet")
    couplet.locator("[name=line]").fill(upper)
    couplet.locator(".go").click()
    expect(couplet.locator(".lower .column")).to_have_count(2)
    assert lower(couplet) == below.replace("，", "")
    first, second = (couplet.locator(".lower .column").nth(number).bounding_box()["x"] for number in (0, 1))
    assert first < second
    first, second = (couplet.locator(".upper .column").nth(number).bounding_box()["x"] for number in (0, 1))
    assert first > second


def test_the_scrolls_are_saved_as_a_picture(couplet):
    from PIL import Image

    with couplet.page.expect_download() as waiting:
        couplet.get_by_role("button", name="存成图片").click()
    assert waiting.value.suggested_filename == "flaxgen-couplet.png"
    with Image.open(pathlib.Path(waiting.value.path())) as file:
        picture = file.convert("RGB")
    assert picture.height > picture.width > 300
    red = sum(count for count, colour in picture.getcolors(1 << 24) if colour[0] > 150 and max(colour[1:]) < 60)
    assert red > 0.2 * picture.width * picture.height
