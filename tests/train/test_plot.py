import json
import pathlib
import struct
import sys

import numpy as np
import pytest

from train import plot


def run(folder: pathlib.Path, *, steps=60, dev=True, rate=True, events=(), loss=lambda step: 9 / step**0.3) -> pathlib.Path:
    folder.mkdir(parents=True)
    lines = []
    for step in range(1, steps + 1):
        line = {"step": step, "loss": loss(step), "norm": 1.0, "tokens": step * 7, "tokens_per_s": 500.0 + step}
        lines.append(line | ({"rate": 1e-3 / step} if rate else {}))
        if dev and step % 10 == 0:
            lines.append({"step": step, "dev_perplexity": 100.0 / step})
    lines += [{"step": step, "event": event} for step, event in events]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def size(png: pathlib.Path) -> tuple[int, int]:
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


@pytest.fixture(autouse=True, scope="module")
def _matplotlib():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_one_run_and_several_become_a_picture(tmp_path):
    one = run(tmp_path / "one", events=[(20, "rollback"), (21, "skipped"), (30, "damaged")])
    other = run(tmp_path / "诗", steps=40, dev=False)
    plot.draw([one], tmp_path / "new" / "one.png")
    plot.draw([one, other], tmp_path / "two.png")
    assert size(tmp_path / "new" / "one.png") == size(tmp_path / "two.png") == (1612, 988)


def test_only_what_the_logs_hold_is_drawn(tmp_path):
    import matplotlib.figure

    folder = run(tmp_path / "run", dev=False, rate=False, events=[(5, "skipped")])
    figure = matplotlib.figure.Figure()
    plot.fill(figure, ["loss", "tokens_per_s"], {"run": plot.read(folder)})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "tokens a second"]
    assert figure.axes[0].get_legend_handles_labels()[1] == ["skipped"]
    assert list(figure.axes[1].lines[0].get_ydata()) == [500.0 + step for step in range(1, 61)]


def test_a_log_of_one_line_and_one_with_infinite_losses_are_drawn(tmp_path):
    plot.draw([run(tmp_path / "short", steps=1, dev=False)], tmp_path / "short.png")
    plot.draw([run(tmp_path / "wild", loss=lambda step: "nan" if step % 2 else 3.0)], tmp_path / "wild.png")
    assert (tmp_path / "short.png").exists() and (tmp_path / "wild.png").exists()


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart():
    paths = [pathlib.Path(word) for word in ("/a/x/run", "/a/y/run", "/b/y/other")]
    assert plot.names(paths[:1]) == ["run"]
    assert plot.names(paths[:2]) == ["x/run", "y/run"]
    assert plot.names(paths) == ["x/run", "y/run", "y/other"]
    with pytest.raises(ValueError, match="stands twice"):
        plot.names([paths[0], paths[0]])
    with pytest.raises(ValueError, match="name at least one"):
        plot.names([])


def test_a_mean_has_no_lag_and_straight_lines_stay_straight():
    values = np.arange(400.0)
    assert np.allclose(plot.smooth(values)[5:-5], values[5:-5])
    assert np.allclose(plot.smooth(np.full(93, 2.5)), 2.5)
    assert len(plot.smooth(np.ones(1))) == 1


def test_a_folder_without_a_run_or_without_a_loss_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no log\.jsonl"):
        plot.draw([tmp_path], tmp_path / "x.png")
    (tmp_path / "log.jsonl").write_text('{"step": 3, "event": "resumed"}\n')
    with pytest.raises(ValueError, match="holds no loss yet"):
        plot.draw([tmp_path], tmp_path / "x.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[log\]"'):
        plot.draw([tmp_path], tmp_path / "x.png")
