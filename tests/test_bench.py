"""`python -m bench` without running any bench."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def bench(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "bench", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_every_bench_is_listed_with_a_line(words):
    done = bench(*words)
    assert done.returncode == 0
    listed = dict(line.split(maxsplit=1) for line in done.stdout.split("\n")[2:] if line)
    scripts = {path.stem for path in (ROOT / "bench").glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8")}
    assert (
        listed.keys()
        == scripts - {"__main__"}
        >= {"compile", "constrained", "continuous", "decode", "exact", "longer", "speculate", "train"}
    )
    assert all(len(line) > 20 for line in listed.values())


def test_an_unknown_bench_is_refused_with_the_names_there_are():
    done = bench("compute")
    assert done.returncode == 2 and "unknown bench 'compute'; choose from compile, " in done.stderr


def test_a_bench_gets_the_words_behind_its_name():
    done = bench("report")
    assert done.returncode == 2  # a part of others, no bench
    done = bench("start", "--rounds", "many")
    assert done.returncode == 2 and "invalid int value: 'many'" in done.stderr
