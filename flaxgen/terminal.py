"""What a command shares with the terminal: texts in, texts and JSON out, and something that moves while a person waits."""

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator


def given(prompt: str | None, file: pathlib.Path | None, example: str) -> str:
    """The text of the argument, the file or standard input, whichever there is; the example is what to write where there is none."""
    if prompt is not None and file is not None:
        raise ValueError("both a text and --file are given; keep one of them")
    if file is not None:
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise ValueError(f"--file {file} cannot be read ({error.strerror}); name a text file") from None
    elif prompt is None:
        if sys.stdin.isatty():
            raise ValueError(f"no text given; write it behind the command, name a --file, or pipe it in:  {example}")
        raw = sys.stdin.buffer.read()
    else:
        raw = os.fsencode(prompt)
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"the text is not UTF-8 (byte {error.start} of {len(raw)}); save it as UTF-8 first") from None
    if not text.strip():
        raise ValueError(f"the text is empty; give one, such as:  {example}")
    return text if prompt is not None else text.rstrip("\n")


@contextlib.contextmanager
def counting() -> Iterator[Callable[[int, int, int], None]]:
    """A progress bar of lines on standard error, with tokens a second, where a person watches."""
    from rich import console, progress

    where = console.Console(stderr=True)
    columns = (
        "{task.description}",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        "{task.fields[speed]}",
    )
    with progress.Progress(*columns, console=where, disable=not sys.stderr.isatty()) as bar:
        task, start, drawn = bar.add_task("writing", total=None, speed=""), time.monotonic(), 0

        def on_line(done: int, total: int, tokens: int) -> None:
            nonlocal drawn
            drawn += tokens
            bar.update(task, completed=done, total=total, speed=f"{drawn / (time.monotonic() - start):.0f} tokens/s")

        yield on_line


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on standard error while something takes its time, where a person watches."""
    from rich import console

    with console.Console(stderr=True).status(f"{what} …") if sys.stderr.isatty() else contextlib.nullcontext():
        yield


def check_target(option: str, path: pathlib.Path) -> None:
    """ValueError where no file can be written there, before the work for it is done."""
    folder = path.absolute().parent
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; name the file to write")
    if not folder.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {folder}; make it first, or name another file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ValueError(f"{option} {path} cannot be written (no permission); name another file")


def show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def print_json(**facts) -> None:
    show(json.dumps(facts, ensure_ascii=False) + "\n")
