import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import pytest
import tiny

from convert import layouts, target
from flaxgen import errors

ROOT = pathlib.Path(__file__).resolve().parents[2]


# A program that a background shell starts inherits SIGINT ignored; a person's does not.
PROGRAM = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); runpy.run_module('convert', run_name='__main__')"


def start(*arguments):
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_program_says_what_it_will_do_and_a_dry_run_stops_there(golden, tmp_path, capsys):
    assert tiny.run(golden / "gpt2_ml", tmp_path / "one", "--dry-run") == 0
    said = capsys.readouterr().out
    for part in ("92,640 parameters", "52 in, 370,560 bytes", "52 out", "MB beside the program", "global_step", "ids only", "dry run"):
        assert part in said
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "one").mkdir()
    assert tiny.run(golden / "gpt2_ml", tmp_path / "one", "--dry-run") == 0


def test_an_existing_target_is_left_alone_without_force(golden, tmp_path, capsys):
    assert tiny.run(golden / "gpt2_ml", tmp_path / "one") == 0
    before = (tmp_path / "one/config.json").stat().st_ino
    assert tiny.run(golden / "openai_gpt2", tmp_path / "one") == errors.Mismatch.exit_code
    assert "--force" in capsys.readouterr().err and (tmp_path / "one/config.json").stat().st_ino == before
    assert tiny.run(golden / "openai_gpt2", tmp_path / "one", "--force") == 0
    assert len(tiny.held(tmp_path / "one")) == 52 and [path.name for path in tmp_path.iterdir()] == ["one"]


def test_force_keeps_the_old_target_when_the_new_one_fails(golden, tmp_path, monkeypatch, capsys):
    assert tiny.run(golden / "gpt2_ml", tmp_path / "one") == 0
    before = tiny.held(tmp_path / "one")
    monkeypatch.setattr(target, "_write_papers", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert tiny.run(golden / "openai_gpt2", tmp_path / "one", "--force") == 1
    assert "No space left" in capsys.readouterr().err
    assert tiny.held(tmp_path / "one") == before and [path.name for path in tmp_path.iterdir()] == ["one"]


def test_force_does_not_replace_a_folder_that_is_no_model(golden, tmp_path, capsys):
    (tmp_path / "home/letters").mkdir(parents=True)
    (tmp_path / "home/config.json").write_text("{}")
    assert tiny.run(golden / "gpt2_ml", tmp_path / "home", "--force") == errors.Unsafe.exit_code
    (tmp_path / "file").write_text("a letter")
    assert tiny.run(golden / "gpt2_ml", tmp_path / "file", "--force") == errors.Unsafe.exit_code
    assert (tmp_path / "file").read_text() == "a letter" and (tmp_path / "home/letters").is_dir()


def test_a_target_that_holds_the_source_is_refused(golden, tmp_path, capsys):
    source = tiny.folder(tmp_path / "a/ours", tiny.BETWEEN)
    for place in (source, source.parent):
        assert tiny.run(source, place, "--force") == errors.Mismatch.exit_code
    assert "holds the source itself" in capsys.readouterr().err and len(tiny.held(source)) > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error"), errors.Corrupt("damaged")])
@pytest.mark.parametrize("at", [0, 1, 30, 200])
def test_any_end_on_the_way_leaves_nothing(error, at, golden, tmp_path, monkeypatch, capsys):
    whole, count = layouts.Press.pieces, [0]

    def pieces(self, output):
        for piece in whole(self, output):
            if count[0] == at:
                raise error
            count[0] += 1
            yield piece

    monkeypatch.setattr(layouts.Press, "pieces", pieces)
    code = tiny.run(golden / "gpt2_ml", tmp_path / "one", "--to", "gpt2-ml")
    if at < 52:
        assert code == {KeyboardInterrupt: 130, OSError: 1, errors.Corrupt: 4}[type(error)] and list(tmp_path.iterdir()) == []
    else:
        assert code == 0


def test_verify_finds_what_the_disk_did_not_keep(golden, tmp_path, monkeypatch, capsys):
    def spoil(plan, work):
        path = work / "model.ckpt.data-00000-of-00001"
        raw = bytearray(path.read_bytes())
        raw[1000] ^= 1
        path.write_bytes(raw)

    monkeypatch.setattr(target, "_write_papers", spoil)
    assert tiny.run(golden / "gpt2_ml", tmp_path / "one", "--to", "gpt2-ml", "--verify") == errors.Corrupt.exit_code
    assert "crc32c" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_a_byte_is_written(golden, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(target.shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and type("Usage", (), {"free": 1000})())
    assert tiny.run(golden / "gpt2_ml", tmp_path / "one") == errors.TooLarge.exit_code
    assert "1,000 bytes are free" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_reasons_go_to_standard_error_without_a_traceback_unless_debug(tmp_path):
    for more in ((), ("--debug",)):
        program = start(tmp_path / "nowhere", tmp_path / "one", *more)
        out, said = program.communicate(timeout=60)
        assert program.returncode != 0 and out == "" and "no such file" in said and ("Traceback" in said) == bool(more)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_target_and_no_temporary_folder(number, tmp_path):
    """The source's data is a large file of holes, so that there is time to interrupt."""
    source = tmp_path / "source"
    source.mkdir()
    _large(source, layers=40)
    (tmp_path / "out").mkdir()
    program = start(source, tmp_path / "out/one")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".one.*/model.safetensors")):
        assert program.poll() is None and time.monotonic() < deadline, program.communicate()
        time.sleep(0.005)
    program.send_signal(number)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert list((tmp_path / "out").iterdir()) == []


def _large(folder: pathlib.Path, layers: int) -> None:
    """A GPT2_ML bundle of zeros, 0.5 MB a tensor, in a file of holes."""
    import dataclasses
    import json
    import math

    import google_crc32c
    import numpy as np

    from convert.bundle import messages, sorted_table
    from convert.formats import gpt2_ml
    from flaxgen.models import config as sizes

    config = dataclasses.replace(tiny.BETWEEN, width=384, embedding=None, hidden=1536, layers=layers)
    wanted, names = sizes.shapes(config), {}
    for row in gpt2_ml.FORMAT.rows:
        for layer in range(layers if row.layered else 1):
            names[row.name(layer)] = row.shape([wanted[path] for path in row.ours(layer)])
    records, offset = [(b"", messages.pack_header(1))], 0
    for name in sorted(names):
        size = 4 * math.prod(names[name])
        crc = sorted_table.masked(google_crc32c.value(bytes(size)))
        records.append((name.encode(), messages.pack_record(np.dtype(np.float32), names[name], offset, size, crc)))
        offset += size
    (folder / "model.ckpt.index").write_bytes(sorted_table.table(records))
    with open(folder / "model.ckpt.data-00000-of-00001", "wb") as data:
        data.truncate(offset)
    (folder / "config.json").write_text(json.dumps(gpt2_ml.write(gpt2_ml.Card(config))))


def test_the_program_and_its_tokenizers_do_not_import_jax():
    code = ("import sys; from convert import command, describe, formats, matching, plan, source, target; import flaxgen.text; "
            "assert 'jax' not in sys.modules and 'torch' not in sys.modules")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_help_names_every_format_and_model():
    program = start("--help")
    out, _ = program.communicate(timeout=60)
    from convert import formats
    from flaxgen.models import presets

    flat = "".join(out.split())
    assert program.returncode == 0 and all(name in flat for name in (*formats.FORMATS, *presets.PRESETS))


def test_every_file_of_a_target_is_plain_and_readable_by_all(golden, tmp_path):
    mask = os.umask(0o022)
    try:
        assert tiny.run(golden / "gpt2_ml", tmp_path / "one") == 0
    finally:
        os.umask(mask)
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "one").iterdir())
    for path in (tmp_path / "one").glob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes()


HOOK = """
import pathlib, pickle, sys
sys.path[:0] = {path!r}
from convert import command
def run(source, target):
    try:
        command.run(command.Options(pathlib.Path(source), pathlib.Path(target)))
        return "done"
    except ValueError as error:
        return type(error).__name__
folder, golden = pathlib.Path({folder!r}), {golden!r}
assert run(golden + "/gpt2_ml", folder / "first") == "done"  # everything is imported now
seen = []
def hook(event, arguments):
    kinds = ("subprocess", "exec", "compile", "socket", "pickle", "ctypes", "marshal", "import")
    bad = event.split(".")[0] in kinds or event == "os.system"
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = str(arguments[0])
        bad = not path.startswith((str(folder), golden)) and path != "/proc/self/mountinfo"
    if bad:
        seen.append((event, str(arguments)[:200]))
sys.addaudithook(hook)
results = {{name.name: run(name, folder / "target") for name in sorted((folder / "hostile").iterdir())}}
results["good"] = run(golden + "/transformers/gpt2", folder / "second")
print(results, seen, (folder / "canary").exists())
"""


class _Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (self.canary, "w"))


def test_nothing_hostile_is_run_or_leads_out_of_its_folder(golden, tmp_path):
    """What is opened, imported and executed is listened to while pickles, false names and links are offered."""
    bomb, hostile = pickle.dumps(_Bomb(str(tmp_path / "canary"))), tmp_path / "hostile"
    hostile.mkdir()
    for name in ("a.bin", "b.pt", "c.safetensors", "d.ckpt", "e.index", "f"):
        (hostile / name).write_bytes(bomb)
    (hostile / "g.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../../etc/passwd"}}))
    for number, name in enumerate(("../../../../etc/passwd", "/etc/passwd", "..")):
        folder = hostile / f"h{number}"
        folder.mkdir()
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"')
    (hostile / "i").mkdir()
    (hostile / "i/model-1.safetensors").symlink_to("/etc/passwd")
    (hostile / "i/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    code = HOOK.format(path=[str(ROOT)], folder=str(tmp_path), golden=str(golden))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[-1]
    assert line.endswith("[] False") and line.count("'done'") == 1 and "'good': 'done'" in line, line
    assert not (tmp_path / "target").exists()
