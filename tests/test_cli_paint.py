"""The command flaxgen paint: what it writes, shows and refuses."""

import pathlib
import sys
import types

import numpy as np
import pytest

from flaxgen import canvas, cli, cli_paint, gallery, painter, preview, showing, weights
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


@pytest.fixture(scope="module")
def bowl() -> painter.Painter:
    return painters.of_bowl(moves=4)


@pytest.fixture
def paint(monkeypatch, capsys, tmp_path, folders):
    """Runs the command in this process and an empty folder, with the model of a folder or one that is at hand: (exit code, standard
    output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words, model="energy"):
        if isinstance(model, painter.Painter):
            monkeypatch.setattr(painter.Painter, "load", lambda *folders, made=model, **wishes: made)
            model = None
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


def test_grid_strip_and_animation_show_what_python_paints(paint, bowl):
    words = ["--samples", 2, "--columns", 1, "--seed", 3, "--png", "a.png", "--strip", "b.png", "--gif", "c.gif"]
    assert paint(*words, model=bowl) == (0, "", "")
    film = list(bowl.stream(2, seed=3))
    drawn("a.png", film[-1], 1)
    np.testing.assert_array_equal(opened("b.png"), gallery.strip(film)[:, :, 0])
    with Image.open("c.gif") as animation:
        assert animation.n_frames == len(film) == 5


def test_without_a_terminal_or_a_name_the_next_free_file_is_named_aloud(paint, bowl):
    assert paint("--samples", 1, "--moves", 1, model=bowl)[1] == "paint.png\n"
    assert paint("--samples", 1, "--moves", 1, model=bowl)[1] == "paint-2.png\n"
    assert opened("paint.png").shape == (104, 104)


def test_what_is_painted_into_an_image_stands_beside_it(paint, bowl):
    images = np.stack([given("one.png", 1), given("two.png", 2)])
    code, _, err = paint("--inpaint", "one.png", "two.png", "--mask", "right", "--samples", 1, "--png", "a.png", model=bowl)
    assert code == 0, err
    painted = bowl.inpaint(images, "right")
    holed = np.where(canvas.mask("right", 2, (6, 6, 1)), np.uint8(127), images)
    rows = [[images[row], holed[row], painted[row]] for row in range(2)]
    drawn("a.png", np.concatenate(rows), 3)


def test_a_picture_may_be_the_mask(paint, bowl):
    image_YXC = given("one.png", 1)
    mask_YXC = np.zeros((6, 6, 1), np.uint8)
    mask_YXC[2:4, 1:5] = 255
    gallery.save(mask_YXC, pathlib.Path("mask.png"))
    assert paint("--inpaint", "one.png", "--mask", "mask.png", "--samples", 1, "--scale", 1, "--png", "a.png", model=bowl)[0] == 0
    painted_YX = opened("a.png")[4:10, -10:-4]
    assert (painted_YX == image_YXC[:, :, 0])[mask_YXC[:, :, 0] == 0].all() and (painted_YX != image_YXC[:, :, 0]).any()


@pytest.mark.parametrize(("option", "columns"), [("--like", 3), ("--denoise", 2)])
def test_chains_may_begin_with_images(paint, bowl, option, columns):
    image_YXC = given("one.png", 1)
    samples = ["--samples", 2] if option == "--like" else []
    assert paint(option, "one.png", *samples, "--step", 0, "--noise", 0, "--png", "a.png", model=bowl)[0] == 0
    drawn("a.png", np.stack([image_YXC] * columns), columns)


def test_classes_are_painted_in_turn(paint):
    made = painters.of_bowl(classes=3)
    assert paint("--label", 2, 0, "--samples", 2, "--png", "a.png", model=made)[0] == 0
    drawn("a.png", made(2, label=[2, 0]), 2)
    assert cli_paint._in_turn(("hat", "sock"), 3) == ["hat", "sock", "hat"]


def test_a_long_chain_can_be_interrupted_and_gives_back_as_many_frames_as_are_shown(paint, bowl, monkeypatch):
    asked, stream = [], bowl.stream
    monkeypatch.setattr(bowl, "stream", lambda *given, every, **words: asked.append(every) or stream(*given, every=every, **words))
    monkeypatch.setattr(gallery, "FRAMES", 3)
    assert paint("--samples", 1, "--moves", 200, "--gif", "a.gif", model=bowl)[0] == 0
    assert asked == [cli_paint.AT_ONCE]
    with Image.open("a.gif") as animation:
        assert animation.n_frames == 3


def test_a_flow_paints_at_once(paint, folders):
    assert paint("--samples", 3, "--temperature", 0.5, "--png", "a.png", model="flow")[0] == 0
    drawn("a.png", painter.Painter.load(folders / "flow")(3, temperature=0.5), 2)


def test_a_flow_goes_from_one_image_to_another_and_in_an_animation_back(paint, monkeypatch):
    way_BYXC, asked = painters.images(3, 6, 6, 1), []
    made = types.SimpleNamespace(shape=(6, 6, 1), interpolate=lambda *given: asked.extend(given) or way_BYXC)
    monkeypatch.setattr(painter.Painter, "load", lambda *folders, **wishes: made)
    ends = [given(name, seed) for seed, name in enumerate(("one.png", "two.png"))]
    words = ["--flow", "--between", "one.png", "two.png", "--samples", 3, "--png", "b.png", "--gif", "c.gif"]
    assert paint(*words, model=None) == (0, "", "")
    np.testing.assert_array_equal(np.stack(asked[:2]), np.stack(ends))
    assert asked[2] == 3
    drawn("b.png", way_BYXC, 3)
    with Image.open("c.gif") as animation:
        for frame, place in enumerate((1, 2, 1, 0)):
            animation.seek(frame)
            np.testing.assert_array_equal(np.asarray(animation.convert("L")), gallery.grid(way_BYXC[[place]], scale=10)[:, :, 0])
        assert animation.n_frames == 4


def test_scores_may_be_those_of_a_class(paint):
    made, image_YXC = painters.of_bowl(classes=3), given("one.png", 1)
    for words, label in (([], None), (["--label", "2"], 2)):
        row = paint("--score", "one.png", *words, model=made)[1].splitlines()[1].split()
        np.testing.assert_allclose(-float(row[0]), made.energy(image_YXC, label=label), atol=1e-3)


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
        (["--like", "."], None, ".: not a plain file"),
        (["--like", "here.png", "--png", "here.png"], None, "here.png is an image that is read"),
        (["--inpaint", "here.png", "--mask", "text.png", "--strip", "text.png"], None, "text.png is an image that is read"),
        (["--score", "here.png", "--moves", "3"], None, "leave --moves out"),
        (["--flow", "--between", "here.png"], None, "wanted 2, got 1"),
        (["--flow", "--between", "here.png", "here.png", "--temperature", "1"], None, "leave --temperature out"),
        (["--join", "sum"], None, "two models or more"),
        (["--denoise", "here.png", "--samples", "2"], None, "--samples says nothing"),
        (["--flow", "--moves", "3"], None, "--moves: not of a flow"),
        (["--flow", "--gif", "a.gif"], None, "--between"),
        (["--temperature", "1"], None, "--temperature: not of an energy model"),
        (["--between", "here.png", "here.png"], None, "--between: not of an energy model"),
        (["--gif", "a.png"], None, "ends in .gif"),
        (["--png", "none/a.png"], None, "no folder"),
        (["--png", "a.png", "--strip", "a.png"], None, "name one file"),
        (["--columns", "0"], None, "--columns 0"),
        (["--samples", "999999", "--png", "a.png"], "energy", "a grid of 999,999"),
        (["--strip", "a.png", "--scale", "999"], "energy", "a grid of 40"),
        (["--gif", "a.gif", "--columns", "8", "--scale", "200"], "energy", "for an animation"),
        (["--samples", "999999", "--png", "a.png"], "flow", "a grid of 999,999"),
        (["--moves", "0"], "energy", "moves=0"),
        (["--moves", "100001"], "energy", "to 100000"),
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
    assert (count, text.plain, text.overflow) == (1, "▀▀▀ \n▀▀▀ \n", "crop")
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
    film = showing.watched(iter(frames), [0, 1, 2], 2, lambda frame: frame, None, shown=True)
    out = capsys.readouterr().out
    assert len(film) == 2 and film[0] is frames[0] and film[1] is frames[2] and "▀" in out and "2/2" in out
    assert showing.on_terminal()
    monkeypatch.setattr(Terminal, "encoding", "ascii")
    assert not showing.on_terminal()
