"""The command flaxgen paint: what it writes, shows and refuses."""

import pathlib
import sys

import numpy as np
import pytest

from flaxgen import canvas, cli, gallery, painter, preview, showing, weights
from tests import painters

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("models")
    for name, classes in (("energy", []), ("classes", ["hat", "sock"])):
        made = painters.of_energy(classes=len(classes))
        weights.save(folder / name, made.models[0], made.params[0], sampling={"moves": 4, "step": 1.0, "classes": classes})
    made = painters.of_flow()
    weights.save(folder / "flow", made.model, made.params)
    return folder


@pytest.fixture
def paint(monkeypatch, capsys, tmp_path, folders):
    """Runs the command in this process and an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words, model="energy"):
        monkeypatch.setattr(sys, "argv", ["flaxgen", "paint", *(["--model", str(folders / model)] if model else []), *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


def opened(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def drawn(path, image_BYXC, columns) -> None:
    np.testing.assert_array_equal(opened(path), gallery.grid(image_BYXC, columns=columns)[:, :, 0])


def given(path: str, seed: int) -> np.ndarray:
    image_YXC = painters.images(6, 6, 1, seed=seed)
    gallery.save(image_YXC, pathlib.Path(path))
    return image_YXC


def test_grid_strip_and_animation_show_what_python_paints(paint, folders):
    code, out, err = paint("--samples", 2, "--columns", 1, "--seed", 3, "--png", "a.png", "--strip", "b.png", "--gif", "c.gif")
    assert (code, out, err) == (0, "", "")
    made = painter.Painter.load(folders / "energy")
    film = list(made.stream(2, seed=3))
    drawn("a.png", film[-1], 1)
    np.testing.assert_array_equal(opened("b.png"), gallery.strip(film)[:, :, 0])
    with Image.open("c.gif") as animation:
        assert animation.n_frames == len(film) == 5


def test_without_a_terminal_or_a_name_the_next_free_file_is_named_aloud(paint):
    assert paint("--samples", 1, "--moves", 1)[1] == "paint.png\n"
    assert paint("--samples", 1, "--moves", 1)[1] == "paint-2.png\n"
    assert opened("paint.png").shape == (104, 104)


def test_what_is_painted_into_an_image_stands_beside_it(paint, folders):
    images = np.stack([given("one.png", 1), given("two.png", 2)])
    code, _, err = paint("--inpaint", "one.png", "two.png", "--mask", "right", "--samples", 1, "--png", "a.png")
    assert code == 0, err
    painted = painter.Painter.load(folders / "energy").inpaint(images, "right")
    holed = np.where(canvas.mask("right", 2, (6, 6, 1)), np.uint8(127), images)
    rows = [[images[row], holed[row], painted[row]] for row in range(2)]
    drawn("a.png", np.concatenate(rows), 3)


def test_a_picture_may_be_the_mask(paint, folders):
    image_YXC = given("one.png", 1)
    mask_YXC = np.zeros((6, 6, 1), np.uint8)
    mask_YXC[2:4, 1:5] = 255
    gallery.save(mask_YXC, pathlib.Path("mask.png"))
    assert paint("--inpaint", "one.png", "--mask", "mask.png", "--samples", 1, "--scale", 1, "--png", "a.png")[0] == 0
    painted_YX = opened("a.png")[4:10, -10:-4]
    assert (painted_YX == image_YXC[:, :, 0])[mask_YXC[:, :, 0] == 0].all() and (painted_YX != image_YXC[:, :, 0]).any()


@pytest.mark.parametrize(("option", "columns"), [("--like", 3), ("--denoise", 2)])
def test_chains_may_begin_with_images(paint, option, columns):
    image_YXC = given("one.png", 1)
    samples = ["--samples", 2] if option == "--like" else []
    assert paint(option, "one.png", *samples, "--step", 0, "--noise", 0, "--png", "a.png")[0] == 0
    drawn("a.png", np.stack([image_YXC] * columns), columns)


def test_classes_are_painted_in_turn(paint, monkeypatch):
    made = painters.of_bowl(channels=1, classes=3)
    monkeypatch.setattr(painter.Painter, "load", lambda *folders, **wishes: made)
    assert paint("--label", 2, 0, "--samples", 3, "--png", "a.png")[0] == 0
    drawn("a.png", made(3, label=[2, 0, 2]), 2)


def test_a_flow_paints_at_once_and_goes_from_one_image_to_another(paint, folders):
    assert paint("--samples", 3, "--temperature", 0.5, "--png", "a.png", model="flow")[0] == 0
    made = painter.Painter.load(folders / "flow")
    drawn("a.png", made(3, temperature=0.5), 2)
    ends = [given(name, seed) for seed, name in enumerate(("one.png", "two.png"))]
    code, _, err = paint("--between", "one.png", "two.png", "--samples", 3, "--png", "b.png", "--gif", "c.gif", model="flow")
    assert code == 0, err
    drawn("b.png", made.interpolate(*ends, 3), 3)
    with Image.open("c.gif") as animation:
        assert animation.n_frames == 4


def test_scores_are_a_row_an_image(paint, folders):
    image_BYXC = np.stack([given("one.png", 1), given("two.png", 2)])
    code, out, _ = paint("--score", "one.png", "two.png")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert code == 0 and [row[1] for row in rows] == ["one.png", "two.png"]
    np.testing.assert_allclose([-float(row[0]) for row in rows], painter.Painter.load(folders / "energy").energy(image_BYXC), atol=1e-3)
    rows = [line.split() for line in paint("--score", "one.png", "two.png", model="flow")[1].splitlines()[1:]]
    np.testing.assert_allclose([float(row[0]) for row in rows], painter.Painter.load(folders / "flow").log_prob(image_BYXC), atol=0.1)


@pytest.mark.parametrize(
    ("words", "model", "says"),
    [
        (["--flow"], "energy", "keep one of them"),
        (["--samples", "0"], None, "--samples 0"),
        (["--like", "here.png", "--denoise", "here.png"], None, "--like and --denoise"),
        (["--inpaint", "here.png"], None, "wants a --mask"),
        (["--inpaint", "here.png", "--mask", "above"], None, "above: no such file, and --mask is none of top"),
        (["--mask", "top"], None, "--inpaint"),
        (["--like", "none.png"], None, "none.png: no such file"),
        (["--score", "here.png", "--png", "a.png"], None, "leave --png out"),
        (["--denoise", "here.png", "--samples", "2"], None, "--samples says nothing"),
        (["--flow", "--moves", "3"], None, "--moves: not of a flow"),
        (["--flow", "--gif", "a.gif"], None, "--between"),
        (["--temperature", "1"], None, "--temperature: not of an energy model"),
        (["--between", "here.png", "here.png"], None, "--between: not of an energy model"),
        (["--gif", "a.png"], None, "ends in .gif"),
        (["--png", "none/a.png"], None, "no folder"),
        (["--png", "a.png", "--strip", "a.png"], None, "name one file"),
        (["--columns", "0"], None, "--columns 0"),
        (["--moves", "0"], "energy", "moves=0"),
        (["--seed", "-1"], "energy", "seed=-1"),
        (["--label", "hat"], "energy", "no classes"),
        (["--label", "glove"], "classes", "one of hat, sock"),
        (["--strip", "a.png"], "flow", "--strip: not of a flow"),
        (["--like", "text.png"], "energy", "cannot be read as an image"),
        ([], "nothing", "is not a folder"),
    ],
)
def test_a_mistake_is_answered_in_words_and_nothing_is_written(paint, words, model, says):
    given("here.png", 0)
    pathlib.Path("text.png").write_text("no image")
    code, out, err = paint(*words, model=model)
    assert code not in (0, None) and out == "" and says in " ".join(err.split()) and "Traceback" not in err
    assert sorted(path.name for path in pathlib.Path().iterdir()) == ["here.png", "text.png"]


def test_without_pillow_the_extra_is_named_before_anything_is_painted(paint, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    code, _, err = paint("--png", "a.png")
    assert code == cli.USAGE and "pictures" in err


def test_the_terminal_shows_two_pixels_a_character():
    image_BYXC = painters.images(1, 4, 3, 1)
    text, count = preview.text(image_BYXC, None, 80, 24)
    assert (count, text.plain) == (1, "▀▀▀ \n▀▀▀ \n")
    upper, lower = image_BYXC[0, 2, 1, 0], image_BYXC[0, 3, 1, 0]
    assert str(text.spans[4].style) == f"rgb({upper},{upper},{upper}) on rgb({lower},{lower},{lower})"


@pytest.mark.parametrize(
    ("count", "columns", "width", "height", "shown", "lines"),
    [
        (16, None, 200, 60, 16, 4 * 14),
        (16, None, 80, 24, 15, 3 * 7),
        (99, None, 80, 24, 15, 3 * 7),
        (4, 2, 80, 40, 4, 2 * 14),
        (5, 4, 80, 24, 5, 2 * 7),
        (1, None, 9, 3, 1, 7),
    ],
)
def test_images_are_shrunk_until_they_fit_and_then_left_out(count, columns, width, height, shown, lines):
    text, got = preview.text(painters.images(count, 28, 28, 1), columns, width, height)
    assert got == shown and text.plain.count("\n") == lines


def test_a_person_at_a_terminal_watches(monkeypatch, capsys):
    from rich import console

    class Terminal(console.Console):
        def __init__(self, **settings):
            super().__init__(**settings | {"force_terminal": True, "color_system": "truecolor", "width": 40, "height": 20})

    monkeypatch.setattr(console, "Console", Terminal)
    frames = [painters.images(2, 4, 4, 3, seed=seed) for seed in range(3)]
    film = showing.watched(iter(frames), [0, 1, 2], lambda frame: frame, None, shown=True)
    out = capsys.readouterr().out
    assert len(film) == 3 and "▀" in out and "2/2" in out
    assert showing.on_terminal()
