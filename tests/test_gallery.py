"""Grids, strips and animations: which pixel stands where, and what files give back."""

import sys

import numpy as np
import pytest

from flaxgen import gallery

Image = pytest.importorskip("PIL.Image")


def drawn(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def opened(path) -> np.ndarray:
    picture = np.asarray(Image.open(path))
    return picture if picture.ndim == 3 else picture[:, :, None]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_image_at_its_place_and_white_elsewhere(channels):
    image_BYXC = drawn(5, 3, 7, channels)
    got_YXC = gallery.grid(image_BYXC, columns=2, scale=3, gap=1)
    assert got_YXC.shape == (3 * (9 + 1) + 1, 2 * (21 + 1) + 1, channels)
    left_YXC = got_YXC.astype(int)
    for number, image_YXC in enumerate(image_BYXC):
        y, x = 1 + number // 2 * 10, 1 + number % 2 * 22
        np.testing.assert_array_equal(got_YXC[y : y + 9 : 3, x : x + 21 : 3], image_YXC)
        np.testing.assert_array_equal(got_YXC[y + 2 : y + 9 : 3, x + 2 : x + 21 : 3], image_YXC)
        left_YXC[y : y + 9, x : x + 21] = gallery.PAPER
    assert (left_YXC == gallery.PAPER).all()


def test_a_grid_is_about_square_and_its_images_are_large_enough_to_see():
    assert gallery.grid(drawn(10, 28, 28, 1)).shape == (3 * 88 + 4, 4 * 88 + 4, 1)
    assert gallery.grid(drawn(1, 200, 50, 1)).shape == (208, 58, 1)
    assert gallery.grid(drawn(2, 5, 7, 1), columns=9, scale=1, gap=0).shape == (5, 14, 1)


def test_a_strip_has_a_line_an_image_and_a_column_a_moment():
    frames = [drawn(2, 3, 5, 1, seed=seed) for seed in range(9)]
    got_YXC = gallery.strip(frames, moments=3, scale=1, gap=0)
    wanted_YXC = np.concatenate([np.concatenate([frames[place][row] for place in (0, 4, 8)], axis=1) for row in range(2)])
    np.testing.assert_array_equal(got_YXC, wanted_YXC)


def test_moments_are_spread_evenly_from_the_first_to_the_last():
    assert gallery.spread(9, 3) == [0, 4, 8] and gallery.spread(2, 12) == [0, 1]
    assert gallery.spread(7, 1) == [6] and gallery.spread(1, 5) == [0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_gives_back_what_was_saved_and_leaves_nothing_else(tmp_path, channels):
    picture_YXC = drawn(6, 5, channels)
    gallery.save(picture_YXC, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(opened(tmp_path / "new" / "a.png"), picture_YXC)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_an_animation_plays_for_ever_and_holds_its_last_picture(tmp_path):
    pictures = [drawn(6, 5, 1, seed=seed) for seed in range(4)]
    gallery.animate(pictures, tmp_path / "a.gif", milliseconds=40, hold=700)
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.info["loop"]) == (4, 0)
        for number, picture_YXC in enumerate(pictures):
            film.seek(number)
            assert film.info["duration"] == (700 if number == 3 else 40)
            np.testing.assert_array_equal(np.asarray(film.convert("L")), picture_YXC[:, :, 0])


def test_a_long_animation_keeps_its_ends_and_colours_stay_close(tmp_path):
    pictures = [np.full((4, 4, 3), (number, 200, 90), np.uint8) for number in range(99)]
    gallery.animate(pictures, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == gallery.FRAMES
        film.seek(gallery.FRAMES - 1)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - pictures[-1]).max() < 9


def test_a_file_of_the_wanted_shape_comes_out_as_it_is(tmp_path):
    for channels in (1, 3):
        picture_YXC = drawn(6, 5, channels)
        gallery.save(picture_YXC, tmp_path / "a.png")
        np.testing.assert_array_equal(gallery.read(tmp_path / "a.png", (6, 5, channels)), picture_YXC)


def test_other_files_are_cropped_in_the_middle_resized_and_made_grey(tmp_path):
    wide_YXC = np.zeros((20, 60, 3), np.uint8)
    wide_YXC[:, 20:40] = (255, 0, 0)
    gallery.save(wide_YXC, tmp_path / "a.png")
    got_YXC = gallery.read(tmp_path / "a.png", (5, 5, 1))
    assert got_YXC.shape == (5, 5, 1) and (np.abs(got_YXC.astype(int) - 76) < 6).all()
    clear = Image.fromarray(np.zeros((4, 4, 4), np.uint8))
    clear.save(tmp_path / "clear.png")
    assert (gallery.read(tmp_path / "clear.png", (4, 4, 3)) == 255).all()


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "jpeg"), ("1", "png"), ("P", "png"), ("LA", "png"), ("YCbCr", "jpeg")])
def test_pixels_of_other_kinds_are_read(tmp_path, mode, kind):
    half = Image.fromarray(np.repeat(np.uint8([[0, 255]]), 8, axis=1).repeat(16, axis=0))
    half.convert("RGB").convert(mode).save(tmp_path / "a", format=kind)
    np.testing.assert_allclose(gallery.read(tmp_path / "a", (16, 16, 1))[:, :, 0], np.asarray(half), atol=2)


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    pictures = [drawn(6, 5, 1, seed=seed) for seed in range(3)]
    gallery.animate(pictures, tmp_path / "a.gif")
    np.testing.assert_array_equal(gallery.read(tmp_path / "a.gif", (6, 5, 1)), pictures[0])


def test_what_is_too_large_is_not_read(tmp_path, monkeypatch):
    gallery.save(drawn(40, 50, 3), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # beyond which pillow warns
    assert gallery.read(tmp_path / "a.png", (4, 4, 1)).shape == (4, 4, 1)
    for name, limit, says in (("PIXELS", 1999, "50 by 40 pixels"), ("BYTES", 100, "at most 100 are read")):
        with monkeypatch.context() as limited, pytest.raises(ValueError, match=says):
            limited.setattr(gallery, name, limit)
            gallery.read(tmp_path / "a.png", (4, 4, 1))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # twice which it refuses
    with pytest.raises(ValueError, match=r"a\.png cannot be read .*bomb"):
        gallery.read(tmp_path / "a.png", (4, 4, 1))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/a\.png cannot be written \(.*; name another"):
        gallery.save(drawn(3, 4, 1), tmp_path / "file" / "a.png")


def test_what_is_no_image_is_said(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"text\.png cannot be read as an image \(its format is unknown\)"):
        gallery.read(tmp_path / "text.png", (4, 4, 1))
    with pytest.raises(ValueError, match="no such file"):
        gallery.read(tmp_path / "none.png", (4, 4, 1))
    with pytest.raises(ValueError, match="8 bits"):
        gallery.read(tmp_path / "deep.png", (4, 4, 1))


def test_a_cut_file_is_said(tmp_path):
    gallery.save(drawn(40, 50, 3), tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cannot be read as an image"):
        gallery.read(tmp_path / "a.png", (4, 4, 1))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gallery.grid(drawn(2, 3, 4, 1) / 255.0), "float64"),
        (lambda: gallery.grid(drawn(3, 4, 1)), r"\(3, 4, 1\)"),
        (lambda: gallery.grid(drawn(2, 3, 4, 2)), "1 or 3 channels"),
        (lambda: gallery.grid(drawn(0, 3, 4, 1)), "at least one image"),
        (lambda: gallery.grid([[1]]), "list"),
        (lambda: gallery.grid(drawn(2, 3, 4, 1), columns=0), "columns=0"),
        (lambda: gallery.grid(drawn(2, 3, 4, 1), scale=1.5), "scale=1.5"),
        (lambda: gallery.grid(drawn(2, 3, 4, 1), scale=10**5), "a grid of 2 at scale 100000 has 800,012 by 300,008 pixels"),
        (lambda: gallery.animate([np.zeros((1, gallery.SIDE + 1, 1), np.uint8)], "a.gif"), "too large for an animation"),
        (lambda: gallery.check_animation(60, (2000, 2000)), "60 pictures of 2,000 by 2,000"),
        (lambda: gallery.strip([]), "no frames"),
        (lambda: gallery.strip([drawn(2, 3, 4, 1), drawn(2, 4, 4, 1)]), "all of one shape"),
        (lambda: gallery.animate([drawn(3, 4, 1)], "a.gif", milliseconds=5), "milliseconds=5"),
        (lambda: gallery.animate([drawn(3, 4, 1)], "a.gif", hold=10**6), "hold=1000000: wanted a whole number from 20 to 655350"),
        (lambda: gallery.save(drawn(2, 3, 4, 1), "a.png"), "grid makes one"),
        (lambda: gallery.read("a.png", (3, 4)), r"shape=\(3, 4\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pictures"):
        gallery.save(drawn(3, 4, 1), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
