"""The command flaxgen: what it prints, where, and how it ends."""

import io
import json
import os
import re
import signal
import subprocess
import sys

import jax
import pytest

from flaxgen import cli, many, pipelines, results

PROMPT = "床前明月光"


@pytest.fixture
def flaxgen(monkeypatch, capsys):
    """Runs the command in this process: (exit code, standard output, standard error)."""

    def run(*words, stdin: bytes | None = None):
        monkeypatch.setattr(sys, "argv", ["flaxgen", *map(str, words)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


def test_write_prints_the_prompt_and_what_follows(flaxgen):
    code, out, err = flaxgen("write", PROMPT, "--tokens", 12, "--seed", 3)
    assert code == 0 and err == ""
    assert out.startswith(PROMPT) and len(out) > len(PROMPT) + 6 and out.endswith("\n")
    assert flaxgen("write", PROMPT, "--tokens", 12, "--seed", 3)[1] == out


def test_the_prompt_comes_from_an_argument_a_file_or_standard_input(flaxgen, tmp_path):
    (tmp_path / "prompt.txt").write_text(f"{PROMPT}\n", encoding="utf-8")
    out = flaxgen("write", PROMPT, "--tokens", 8)[1]
    assert flaxgen("write", "--file", tmp_path / "prompt.txt", "--tokens", 8)[1] == out
    assert flaxgen("write", "--tokens", 8, stdin=f"{PROMPT}\n".encode())[1] == out


def test_line_ends_of_windows_change_nothing(flaxgen, tmp_path):
    (tmp_path / "prompt.txt").write_bytes(f"\ufeff{PROMPT}\r\n".encode())
    assert flaxgen("write", "--file", tmp_path / "prompt.txt", "--tokens", 8)[1] == flaxgen("write", PROMPT, "--tokens", 8)[1]


def test_json_holds_texts_tokens_and_log_probabilities(flaxgen):
    code, out, _ = flaxgen("write", PROMPT, "--tokens", 6, "--samples", 2, "--json")
    report = json.loads(out)
    assert code == 0 and report["prompt"] == PROMPT and len(report["samples"]) == 2
    for sample in report["samples"]:
        assert len(sample["tokens"]) == len(sample["log_probs"]) <= 6 and sample["text"]


def test_several_samples_are_numbered(flaxgen):
    out = flaxgen("write", PROMPT, "--samples", 2, "--tokens", 6)[1]
    assert out.startswith(f"[1] {PROMPT}") and f"\n\n[2] {PROMPT}" in out


def test_a_pattern_is_matched_and_what_it_forbids_refused(flaxgen):
    code, out, err = flaxgen("write", PROMPT, "--regex", "，[^，。]{5}。", "--tokens", 12)
    assert code == 0, err
    assert re.fullmatch(PROMPT + "，[^，。]{5}。\n", out)


def test_a_file_of_prompts_becomes_a_file_of_texts(flaxgen, tmp_path):
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n春江花月夜\n", encoding="utf-8")
    code, _, err = flaxgen("many", tmp_path / "prompts.txt", tmp_path / "texts.jsonl", "--tokens", 6)
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == [PROMPT, "春江花月夜"] and all(line["text"] for line in lines)


def test_prompts_may_come_through_a_pipe_and_are_never_written_over(flaxgen, tmp_path):
    read, write = os.pipe()
    with open(write, "w", encoding="utf-8") as pipe:
        pipe.write(f"{PROMPT}\n")
    code, _, err = flaxgen("many", f"/dev/fd/{read}", tmp_path / "texts.jsonl", "--tokens", 6)
    os.close(read)
    assert code == 0 and err == ""
    raw = (tmp_path / "texts.jsonl").read_bytes()
    assert json.loads(raw)["prompt"] == PROMPT
    code, _, err = flaxgen("many", tmp_path / "texts.jsonl", tmp_path / "texts.jsonl", "--tokens", 6)
    assert code == cli.USAGE and "would be written" in err and (tmp_path / "texts.jsonl").read_bytes() == raw


def test_many_says_how_many_prompts_failed(flaxgen, tmp_path, monkeypatch):
    monkeypatch.setattr(many, "run", lambda writer, prompts, target, **wishes: 1)
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n春江\n", encoding="utf-8")
    code, _, err = flaxgen("many", tmp_path / "prompts.txt", tmp_path / "texts.jsonl")
    assert code == 0 and "1 of 2 prompts failed" in err and "texts.jsonl" in err


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore\nand more")])
def test_memory_that_runs_out_is_answered_in_one_line_and_debug_shows_the_trace(flaxgen, monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(pipelines.Writer, "write", failing)
    code, out, err = flaxgen("write", PROMPT, "--samples", 2)
    assert code == cli.FAILED and out == "" and err.count("\n") == 1
    assert type(error).__name__ in err and "fewer samples" in err
    with pytest.raises(type(error)):
        flaxgen("write", PROMPT, "--samples", 2, "--debug")


def test_beams_are_asked_for_as_many_texts_as_samples(flaxgen, monkeypatch):
    asked, written = [], results.Result([[results.Writing(text, [], [], "end", []) for text in "ab"]], None)
    monkeypatch.setattr(pipelines.Writer, "write", lambda *_, **wishes: asked.append(wishes) or written)
    code, out, err = flaxgen("write", PROMPT, "--beams", 3, "--samples", 2)
    assert (asked[0]["search"].beams, asked[0]["search"].returned, asked[0]["samples"]) == (3, 2, 1)
    assert code == 0 and err == "" and out == f"[1] {PROMPT}a\n\n[2] {PROMPT}b\n"


def test_perplexity_by_position_is_a_table_and_a_picture(flaxgen, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "long.txt").write_text("春江潮水连海平，海上明月共潮生。" * 20, encoding="utf-8")
    code, out, err = flaxgen("score", "--file", tmp_path / "long.txt", "--by-position", "--png", tmp_path / "long.png")
    assert code == 0, err
    assert "hierarchical" in out and "sliding" in out and (tmp_path / "long.png").read_bytes().startswith(b"\x89PNG")


def test_score_prints_a_row_a_text_and_a_perplexity(flaxgen):
    code, out, _ = flaxgen("score", "床前明月光，疑是地上霜。", "光月明前床")
    rows = out.splitlines()
    assert code == 0 and len(rows) == 3 and rows[1].endswith("床前明月光，疑是地上霜。")
    assert float(rows[1].split()[2]) < float(rows[2].split()[2])
    piped = flaxgen("score", "--json", stdin="床前明月光，疑是地上霜。\n\n光月明前床\n".encode())[1]
    assert [round(row["perplexity"], 2) for row in json.loads(piped)["scores"]] == [float(row.split()[2]) for row in rows[1:]]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["write", ""], "empty"),
        (["write", "  \n "], "empty"),
        (["write", "春" * 400], "shorten the prompt"),
        (["write", PROMPT, "--tokens", "100000"], "ask for fewer tokens"),
        (["write", PROMPT, "--top-p", "7"], "top_p=7.0"),
        (["write", PROMPT, "--regex", "(a"], "regex"),
        (["write", PROMPT, "--regex", "a", "--choices", "b"], "choices"),
        (["write", PROMPT, "--choices", "b", "--tokens", "5", "--min-tokens", "3"], "min_tokens"),
        (["many", "no-such-file", "out.jsonl"], "no-such-file"),
        (["score", PROMPT, "--png", "x.png"], "--by-position"),
        (["write", PROMPT, "--beams", "2", "--samples", "3"], "ask for --beams 3"),
        (["write", PROMPT, "--beams", "2", "--seed", "3"], "--seed 3"),
        (["write", PROMPT, "--beams", "2", "--exact"], "--exact"),
        (["write", PROMPT, "--beams", "-2"], "beams=-2"),
        (["write", PROMPT, "--samples", "0"], "samples=0"),
        (["write", PROMPT, "--model", "no/such/folder"], "python -m convert"),
        (["write", PROMPT, "--file", "x"], "keep one of them"),
        (["write", "--file", "no-such-file"], "no-such-file"),
        (["write", PROMPT, "--tolkens", "3"], "--tokens"),
        (["sculpt"], "paint"),
        (["score", "春"], "at least 2"),
        (["score", "春风", " "], "empty"),
        (["score", "春风", "--file", "x"], "keep one of them"),
    ],
)
def test_a_mistake_is_answered_in_words_and_without_a_trace(flaxgen, words, says):
    code, out, err = flaxgen(*words)
    assert code not in (0, None) and out == ""
    assert says in err and "Traceback" not in err


def test_standard_input_that_is_not_utf8_is_refused(flaxgen):
    code, _, err = flaxgen("write", stdin="床前".encode("gbk"))
    assert code == cli.USAGE and "not UTF-8" in err


def test_debug_shows_the_trace(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flaxgen", "write", "", "--debug"])
    with pytest.raises(ValueError, match="empty"):
        cli.main()


def test_help_teaches_and_names_the_clone_for_training(flaxgen):
    code, out, _ = flaxgen("--help")
    assert code == 0
    for word in ("flaxgen write 床前明月光", "python -m train", "python -m convert", "score"):
        assert word in out
    assert flaxgen()[1] == out


# A program that a background shell starts inherits SIGINT ignored; a person's does not.
PROGRAM = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from flaxgen import cli; cli.main()"


# The same with a pause after every piece of text: the signal finds it writing, however quick the machine.
SLOWLY = """
import time
from flaxgen import pipelines
stream = pipelines.Writer.stream
def slowly(*given, **wishes):
    for piece in stream(*given, **wishes):
        yield piece
        time.sleep(0.2)
pipelines.Writer.stream = slowly
"""


def started(*words, before=""):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-c", before + PROGRAM, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def test_ctrl_c_ends_cleanly_in_the_midst_of_a_text():
    # So hot that an end token is as rare as any other.
    process = started("write", PROMPT, "--temperature", "99", "--top-p", "1", "--tokens", "180", before=SLOWLY)
    process.stdout.read(len(PROMPT.encode()) + 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED and err.decode().endswith("\nstopped\n") and b"Traceback" not in err


def test_a_reader_that_leaves_is_no_error():
    process = started("write", PROMPT, "--temperature", "1.5", "--tokens", "120")
    process.stdout.read(len(PROMPT.encode()) + 3)
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    with process.stderr:
        assert b"Traceback" not in process.stderr.read()


def test_streams_that_are_closed_are_no_error():
    process = subprocess.run(["sh", "-c", '"$0" -c "$1" score 天地 >&- 2>&-', sys.executable, PROGRAM], capture_output=True)
    assert process.returncode == 0 and process.stderr == b""
