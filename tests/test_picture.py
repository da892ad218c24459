"""The picture of a couplet: what is red, where the lines stand, and what is said where it cannot be drawn."""

import pathlib
import sys

import numpy as np
import pytest

from flaxgen import picture

pytest.importorskip("PIL")
pytest.importorskip("pylopdf_fonts_zh_cn")


def drawn(tmp_path, upper, lower, **settings) -> np.ndarray:
    from PIL import Image

    picture.draw(upper, lower, tmp_path / "new" / "a.png", size=24, **settings)
    return np.asarray(Image.open(tmp_path / "new" / "a.png").convert("RGB")).astype(int)


def inked(picture_YXC: np.ndarray, ink: str) -> np.ndarray:
    return np.abs(picture_YXC - picture.INKS[ink]).sum(axis=2) < 30


@pytest.mark.parametrize("ink", ["black", "gold"])
def test_two_scrolls_of_red_paper_carry_the_lines_the_upper_one_at_the_right(tmp_path, ink):
    got_YXC = drawn(tmp_path, "一一一", "龘龘龘", ink=ink)
    middle = got_YXC.shape[1] // 2
    assert (np.abs(got_YXC - picture.PAPER).sum(axis=2) < 9).mean() > 0.2
    assert tuple(got_YXC[0, 0]) == picture.WALL and tuple(got_YXC[got_YXC.shape[0] // 2, middle]) == picture.WALL
    left, right = inked(got_YXC, ink)[:, :middle].sum(), inked(got_YXC, ink)[:, middle:].sum()
    assert left > 2 * right > 0


def test_the_same_couplet_gives_the_same_picture(tmp_path):
    np.testing.assert_array_equal(drawn(tmp_path, "春风", "秋月"), drawn(tmp_path, "春，风", "秋，月"))


def test_long_lines_run_from_the_outer_edges_inwards(tmp_path):
    assert picture._columns("一二三四五六七，八九十一二三") == ["一二三四五六七", "八九十一二三"]
    narrow, wide = drawn(tmp_path, "一" * 12, "二" * 12), drawn(tmp_path, "一" * 13, "二" * 13)
    assert wide.shape[1] > narrow.shape[1] and wide.shape[0] < narrow.shape[0]
    # The last column, shorter by one, is the inner one of both.
    dark_YX = inked(drawn(tmp_path, "龘" * 13, "龘" * 13), "black")
    columns = [dark_YX[:, part].sum() for part in np.array_split(np.flatnonzero(dark_YX.any(axis=0)), 4)]
    assert columns[0] > columns[1] and columns[3] > columns[2]


def test_what_cannot_be_drawn_is_said(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    with pytest.raises(ValueError, match="ink='red'"):
        picture.draw("春", "秋", target, ink="red")
    with pytest.raises(ValueError, match="no character to write"):
        picture.draw("，", "，", target)
    with pytest.raises(ValueError, match=r"no \U0001f600; name another"):
        picture.draw("春", "\U0001f600", target)
    with pytest.raises(ValueError, match=r"nothing\.ttf cannot be read"):
        picture.draw("春", "秋", target, font=pathlib.Path("nothing.ttf"))
    monkeypatch.setattr(picture, "found", lambda: iter(()))
    with pytest.raises(ValueError, match="fonts-lxgw-wenkai"):
        picture.draw("春", "秋", target)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pictures"):
        picture.draw("春", "秋", target)
    assert not target.exists()


def test_a_font_of_the_machine_comes_before_that_of_the_package(tmp_path, monkeypatch):
    for name in ("deep/wqy-microhei.ttc", "NotoSerifCJK-Regular.ttc", "LXGWWenKai-Regular.ttf", "other.ttf", "ukai.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(picture, "FOLDERS", (str(tmp_path), str(tmp_path / "none")))
    names = [(path.name, index) for path, index in picture.found()]
    assert names == [("LXGWWenKai-Regular.ttf", 0), ("NotoSerifCJK-Regular.ttc", 2), ("wqy-microhei.ttc", 0), (picture.IN_PACKAGE, 0)]
