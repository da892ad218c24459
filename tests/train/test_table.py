import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from train import data, progress, table

END = 26


def letters(text):
    return [ord(character) - ord("a") for character in text]


def build(folder, text="abc\n\ndefg\n", name="a.txt", **given):
    path = folder / name
    path.write_text(text)
    return data.build(folder / "rows", path, letters, END, **{"length": 9, "vocab": 27, "recipe": ""} | given)


def flip(path, place, bit=0):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1 << bit
    path.write_bytes(raw)


@pytest.mark.parametrize("neighbours", ["seen", "hidden"])
def test_a_flipped_bit_anywhere_in_a_table_is_named_when_its_row_is_read(tmp_path, neighbours):
    made = build(tmp_path, "abcdefgh\n\nstuvwxyz\n", neighbours=neighbours)
    assert len(made) == 2
    whole = table.place(tmp_path / "rows", 0).read_bytes()
    size = made.tables[0].layout.size
    for place in range(len(whole)):
        flip(table.place(tmp_path / "rows", 0), place, place % 8)
        opened = data.load(tmp_path / "rows")
        with pytest.raises(ValueError, match=rf"00.rows row {place // size}: its crc32c differs. .* delete .*rows, it is made again"):
            opened.part(0, 2, 2)
        assert opened.part(1 - place // size, 2 - place // size, 1)["weight_BT"].any()
        table.place(tmp_path / "rows", 0).write_bytes(whole)


def test_a_table_cut_short_or_gone_is_named(tmp_path):
    build(tmp_path)
    path = table.place(tmp_path / "rows", 0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"00.rows: 23 bytes, wanted 1 rows of 24. Delete .*rows: it is made again from data="):
        build(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"00.rows: 0 bytes"):
        data.load(tmp_path / "rows")


def test_damaged_facts_are_no_facts_and_the_rows_are_made_again(tmp_path):
    made = build(tmp_path)
    path = tmp_path / "rows" / table.FACTS
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flip(path, place)
        with pytest.raises(ValueError, match="rows holds no rows; they are made from data="):
            data.load(tmp_path / "rows")
        path.write_bytes(whole)
    flip(path, whole.index(b'"digest"') + 12)
    assert build(tmp_path).digest == made.digest
    assert path.read_bytes() == whole


@pytest.mark.parametrize("owner, name", [(os, "fsync"), (pathlib.Path, "replace"), (pathlib.Path, "unlink"), (pathlib.Path, "mkdir")])
def test_a_build_that_fails_at_any_moment_leaves_old_rows_or_new_ones_or_none(tmp_path, monkeypatch, owner, name):
    old = build(tmp_path).digest
    for moment in range(20):
        calls, real = [], getattr(owner, name)

        def failing(*given, moment=moment, calls=calls, real=real, **more):
            calls.append(None)
            if len(calls) == moment + 1:
                raise OSError(28, "No space left on device")
            return real(*given, **more)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            try:
                build(tmp_path, "xyz\n")
                break
            except OSError:
                pass
        assert not (tmp_path / "rows" / table.NEW).exists()
        if left := table.facts(tmp_path / "rows"):
            first = data.load(tmp_path / "rows").part(0, 1, 1)["token_BT"][0, 0]
            assert first in ((0, 3) if left["digest"] == old else (23,))
    assert 0 < moment < 19
    assert build(tmp_path, "xyz\n").part(0, 1, 1)["token_BT"][0, :4].tolist() == [23, 24, 25, END]
    assert build(tmp_path).digest == old


SLOWLY = """
import pathlib, sys, time
from train import data
def encode(text):
    print(text, flush=True)
    time.sleep(0.01)
    return [1, 2, 3]
folder = pathlib.Path(sys.argv[1])
data.build(folder / "rows", folder / "a.txt", encode, 26, length=9, vocab=27, recipe="")
"""


def test_a_killed_build_leaves_nothing_that_is_taken_for_rows_and_the_next_one_does_it_whole(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(map(str, range(9000))))
    with subprocess.Popen([sys.executable, "-c", SLOWLY, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "rows" / table.NEW).is_dir() and table.facts(tmp_path / "rows") == {}
    made = build(tmp_path)
    assert made.weight() == 8
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["00.rows", "rows.json"]


def test_processes_of_one_machine_wait_for_each_other(tmp_path):
    (tmp_path / "rows").mkdir()
    file = os.open(tmp_path / "rows", os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_EX)
    found = []
    thread = threading.Thread(target=lambda: found.append(build(tmp_path)))
    thread.start()
    time.sleep(0.2)
    assert not found and not (tmp_path / "rows" / table.FACTS).exists()
    os.close(file)
    thread.join(20)
    assert found[0].weight() == 8


def test_a_full_disk_is_named_with_the_file():
    layout = table.Layout.of(9, 27, "seen")
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        table.write(pathlib.Path("/dev/full"), [[np.arange(3)]], layout)


def test_rows_are_not_in_memory_whole_while_they_are_written(tmp_path):
    layout, alive = table.Layout.of(9, 27, "seen"), []

    def rows():
        for number in range(100_000):
            alive.append(number)
            if number == 99_999:  # nearly all of the earlier ones lie on the disk by now
                assert (tmp_path / "a.rows").stat().st_size > 99_999 * layout.size - (2 << 20)
            yield [np.arange(3)]

    assert table.write(tmp_path / "a.rows", rows(), layout) == {"rows": 100_000, "targets": 200_000}


def test_a_short_reading_says_nothing_and_a_long_one_how_far_it_is(monkeypatch, capsys):
    with progress.shown("tokens", 10_000_000) as note:
        note(5_000_000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress.shown("tokens", 10_000_000) as note:
        note(5_000_000)
        note(1_000_000)
    assert capsys.readouterr().err == "tokens: 50% of 10 MB\n"


def test_on_a_terminal_a_long_reading_draws_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress.shown("tokens of a.txt", 10_000_000) as note:
        note(5_000_000)
    assert "tokens of a.txt" in capsys.readouterr().err
