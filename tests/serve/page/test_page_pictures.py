"""The page's tab of pictures, in Chromium."""

import pathlib

import pytest

pytest.importorskip("playwright.sync_api", reason='needs pip install ".[browser]"')
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.fixture
def painted(panel):
    found = panel("pictures")
    found.locator("[name=moves]").fill("20")
    found.locator(".go").click()
    expect(found.locator(".status")).to_have_text("完成")
    return found


def test_a_grid_is_painted(painted, script):
    expect(painted.locator(".grid img")).to_have_count(4)
    expect(painted.locator(".grid li span")).to_have_text(["T 恤", "包", "T 恤", "包"])
    assert painted.locator(".grid img").first.evaluate("one => [one.naturalWidth, getComputedStyle(one).imageRendering]") == [
        28,
        "pixelated",
    ]
    asked = script.asked[0][1]
    assert (asked["samples"], asked["moves"], asked["every"], asked["stream"]) == (4, 20, 1, True) and "label" not in asked
    expect(painted.locator(".told")).to_have_text(f"种子 {asked['seed']} · 20 步 · 模型 energy")


def test_pictures_refine_while_the_chain_runs_until_it_is_stopped(panel, script):
    script.pause = 0.05
    pictures = panel("pictures")
    pictures.locator(".go").click()
    first = pictures.locator(".grid img").first
    before = first.get_attribute("src")
    expect(first).not_to_have_attribute("src", before)
    expect(pictures.locator(".status")).to_contain_text("共 300 步")
    pictures.locator(".stop").click()
    expect(pictures.locator(".status")).to_have_text("已停止")
    assert 0 < float(pictures.locator("progress").evaluate("one => one.position")) < 1


def test_a_class_is_chosen_among_those_of_the_model(panel, script):
    pictures = panel("pictures")
    pictures.get_by_label("画什么").select_option("包")
    pictures.locator(".go").click()
    expect(pictures.locator(".status")).to_have_text("完成")
    assert script.asked[0][1]["label"] == "bag" and script.asked[0][1]["every"] == 8


def test_a_model_that_paints_at_once_is_asked_for_no_moves_and_no_class(panel, script):
    script.models[-1] |= {"classes": [], "moves": 1}
    pictures = panel("pictures")
    expect(pictures.locator("#moves")).to_be_hidden()
    expect(pictures.locator("#classes")).to_be_hidden()
    script.failures = []
    pictures.locator(".go").click()
    pictures.locator(".trouble, .grid li").first.wait_for(state="attached")
    assert set(script.asked[0][1]) == {"model", "samples", "seed", "stream"}


def test_a_link_brings_class_moves_and_seed(visit, script):
    pictures = visit("#pictures?label=bag&moves=30&seed=5&samples=2").locator("#panel-pictures")
    pictures.locator(".go").click()
    expect(pictures.locator(".status")).to_have_text("完成")
    asked = {"model": "energy", "samples": 2, "seed": 5, "stream": True, "label": "bag", "moves": 30, "every": 1}
    assert script.asked[0][1] == asked


def test_pictures_are_saved_one_or_all(painted):
    from PIL import Image

    for name, edge in (("下载第 2 张", 28), ("下载整张", 2 * 28 * 6)):
        with painted.page.expect_download() as waiting:
            painted.get_by_role("button", name=name).click()
        with Image.open(pathlib.Path(waiting.value.path())) as picture:
            assert picture.size == (edge, edge)


def test_with_reduced_motion_few_frames_are_asked_for(panel, script):
    pictures = panel("pictures", reduced_motion="reduce")
    pictures.locator("[name=moves]").fill("100")
    pictures.locator(".go").click()
    expect(pictures.locator(".status")).to_have_text("完成")
    assert script.asked[0][1]["every"] == 25
