import json
import pathlib
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train import hosts, watch
from train import settings as choices

ROOT = pathlib.Path(__file__).parents[2]


def settings(**given):
    return types.SimpleNamespace(**({"note": 2, "steps": 10, "dtype": "float32", "tensorboard": "no", "profile": ""} | given))


def record(folder, *, facts=None, done=0, cost=1000, **given):
    return watch.Record(folder, settings(**given), cost=cost, facts=facts or {}, done=done, devices=1)


def written(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_every_second_update_becomes_a_line_with_all_that_is_known(tmp_path):
    log = record(tmp_path)
    for step in range(1, 5):
        log.note(step, 1 / step, 0.25, 100, rate=1e-3)
    log.close()
    lines = written(tmp_path)
    assert [line["step"] for line in lines] == [2, 4]
    assert list(lines[0]) == ["step", "loss", "norm", "rate", "tokens", "seconds", "tokens_per_s"]
    assert lines[1]["tokens"] == 400 and lines[1]["loss"] == 0.25
    assert log.facts() == {"tokens": 400, "seconds": pytest.approx(0, abs=5), "skipped": 0, "rollbacks": 0}


@given(st.floats(width=32))
def test_a_float32_comes_back_from_the_log_with_the_same_bits(value):
    word = json.loads(json.dumps(watch.exact(value), allow_nan=False))
    back = np.float32(float(word))
    assert back.tobytes() == np.float32(value).tobytes() or (np.isnan(value) and np.isnan(back))


def test_the_speed_is_that_of_the_last_updates_without_what_stood_aside(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watch.flops, "peak", lambda kind, dtype: 1e6)
    log = record(tmp_path, steps=50)
    for step in range(1, 9):
        now[0] += 50 if step == 1 else 2  # the first is compiled
        log.note(step, 1.0, 1.0, 300)
        if step == 5:
            with log.aside():
                now[0] += 1000
    log.close()
    lines = written(tmp_path)
    assert [line["tokens_per_s"] for line in lines] == [150.0] * 4
    assert [line["mfu"] for line in lines] == [round(150 * 1000 / 1e6, 4)] * 4
    assert lines[-1]["seconds"] == 50 + 7 * 2 + 1000


def test_a_resumed_run_drops_what_it_will_make_again_and_counts_on(tmp_path):
    log = record(tmp_path)
    for step in range(1, 7):
        log.note(step, 1.0, 1.0, 100)
        if step == 4:
            facts = log.facts()
    log.event(5, "skipped", loss="nan")
    log.event(5, "damaged", lost=3)
    log.close()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    again = record(tmp_path, facts=facts, done=4)
    again.note(5, 1.0, 1.0, 100)
    again.note(6, 1.0, 1.0, 100)
    again.close()
    assert [(line["step"], line.get("event"), line.get("tokens")) for line in written(tmp_path)] == [
        (2, None, 200),
        (4, None, 400),
        (5, "damaged", None),
        (6, None, 600),
    ]


def test_going_back_drops_the_numbers_after_the_checkpoint_and_says_so(tmp_path):
    log = record(tmp_path)
    for step in range(1, 5):
        log.note(step, 1.0, 1.0, 100)
    log.event(5, "skipped", loss="nan", norm="nan")
    log.back(2, {"tokens": 200}, skipped=3, rollbacks=1)
    log.note(3, 1.0, 1.0, 100)
    log.note(4, 2.0, 1.0, 100)
    log.close()
    lines = written(tmp_path)
    assert [(line["step"], line.get("event"), line.get("tokens")) for line in lines] == [
        (2, None, 200),
        (2, "rollback", None),
        (4, None, 400),
    ]
    assert (lines[1]["skipped"], lines[1]["rollbacks"]) == (3, 1)
    assert log.facts()["skipped"] == 3 and log.facts()["rollbacks"] == 1


@pytest.mark.parametrize(
    "damage", ["", "garbage\n", '{"no": "step"}\n', "[1]\n", "\x00" * 40 + "\n", '{"step": 7, "loss": 1.0}', "\ud800x\n"]
)
def test_a_log_with_damaged_lines_is_read_and_trimmed_to_the_good_ones(tmp_path, damage):
    log = tmp_path / "log.jsonl"
    log.write_bytes(('{"step": 1, "loss": 3.0}\n' + damage).encode(errors="surrogatepass"))
    assert list(watch.lines(log)) == [{"step": 1, "loss": 3.0}]
    watch.trim(log, 10)
    assert log.read_text() == '{"step": 1, "loss": 3.0}\n'


def test_trimming_an_absent_log_makes_none(tmp_path):
    watch.trim(tmp_path / "log.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_process_writes(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(hosts, "first", lambda: False)
    log = record(tmp_path, steps=2, profile="1:1", tensorboard="no")
    for step in (1, 2):
        log.profile.before(step)
        log.note(step, 1.0, 1.0, 100)
        log.profile.after(step, jnp.ones(3))
    log.event(2, "skipped")
    log.close()
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr().err == ""
    assert log.facts()["tokens"] == 200


def test_without_a_terminal_a_line_comes_now_and_then_and_at_the_end(tmp_path, monkeypatch, capfd):
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    meter = watch.Meter(0, 100)
    for step in range(1, 101):
        now[0] += 500.0 if step == 1 else 1.0
        meter.show(step, 3.0, 1234.5, 0.4137)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/100", "21/100", "41/100", "61/100", "81/100", "100/100"]
    assert lines[0] == "step 1/100  loss 3.000  1,234 tokens/s  MFU 41.4%"
    assert lines[1] == "step 21/100  loss 3.000  1,234 tokens/s  MFU 41.4%  0:01:19 left"


BAR = """
import os, pty, sys
sys.path.insert(0, {root!r})
def program():
    import time, types, pathlib
    from train import watch
    meter = watch.Meter(0, 3)
    for step in (1, 2, 3):
        meter.show(step, 2.5, 640.0, None)
        time.sleep(0.2)
    meter.close()
if len(sys.argv) > 1:
    program()
else:
    os.environ.update(TERM="xterm", COLUMNS="120")
    pty.spawn([sys.executable, __file__, "program"])
"""


def test_on_a_terminal_there_is_a_bar(tmp_path):
    script = tmp_path / "bar.py"
    script.write_text(BAR.format(root=str(ROOT)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert "loss 2.500  640 tokens/s" in done.stdout and "3/3" in done.stdout and "step" not in done.stdout


def test_chosen_updates_are_traced_once_and_the_last_is_waited_for(tmp_path):
    profile = watch.Profile(choices.window("2:3"), tmp_path / "profile")
    for step in range(1, 6):
        profile.before(step)
        assert profile.on == (step in (2, 3))
        profile.after(step, jnp.ones(3) * step)
        assert profile.on == (step == 2)
    profile.close()
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_a_trace_that_the_end_of_the_run_cuts_short_is_written(tmp_path):
    profile = watch.Profile(choices.window("1:9"), tmp_path / "profile")
    profile.before(1)
    profile.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_window_is_two_numbers_in_order():
    assert list(choices.window("3:5")) == [3, 4, 5] and list(choices.window("")) == []
    for word in ("3", "5:3", "0:2", "a:b", "3:5:7", "-1:4"):
        with pytest.raises(ValueError, match=f"profile={word}: wanted FIRST:LAST"):
            choices.window(word)


def test_tensorboard_gets_the_numbers_and_not_what_is_made_again(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    log = record(tmp_path, tensorboard="yes")
    log.note(2, 0.5, 1.0, 100)
    log.write({"step": 2, "dev_perplexity": 7.0})
    log.event(2, "damaged", lost=1)
    log.close()
    time.sleep(1.1)  # event files are named by the second
    record(tmp_path, tensorboard="yes", done=2).close()
    files = sorted((tmp_path / "tensorboard").glob("events.*"))
    found = b"".join(path.read_bytes() for path in files)
    assert b"dev_perplexity" in found and b"loss" in found and b"damaged" not in found and len(files) == 2


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[log\]"'):
        record(tmp_path, tensorboard="yes")


def test_a_full_disk_is_an_error_at_once(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    log = record(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        log.event(1, "resumed")
    with pytest.raises(OSError, match="No space left"):  # what it could not write it tries again
        log.close()
