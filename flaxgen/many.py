"""Thousands of prompts from a file to a file: in order, a line each, and a run that was stopped goes on where it was."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from flaxgen import disk, pipelines
from flaxgen.errors import Mismatch

SYNCED = 64  # lines between two fsyncs


def prompts(path: pathlib.Path) -> list[str]:
    """The prompts of a .jsonl file, a field `prompt` a line, or of a text file, a line each; empty lines are left out."""
    try:
        rows = [(number, row) for number, row in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1) if row.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 text ({error}); name a file of prompts, a line each") from None
    found = [_field(path, number, row) if path.suffix == ".jsonl" else row.rstrip("\r") for number, row in rows]
    if not found:
        raise ValueError(f"{path} holds no prompt; write a line each, or JSON lines with a field prompt")
    return found


def _field(path: pathlib.Path, number: int, row: str) -> str:
    try:
        prompt = json.loads(row).get("prompt")
    except (ValueError, AttributeError, RecursionError):
        prompt = None
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f'{path}, line {number}: got {row[:60]!r}, wanted an object such as {{"prompt": "床前明月光"}}')
    return prompt


def run(
    writer: pipelines.Writer, source: pathlib.Path, target: pathlib.Path, *, on_line: Callable[[int, int, int], None], **wishes
) -> None:
    """Writes one JSON object a prompt into `target`: prompt, text, finish. wishes: as of Writer.write_many.

    Lines that `target` holds already are kept and not written again; Mismatch where they came from other prompts, another model or other
    wishes, which lie beside it in TARGET.settings.json. on_line: called with lines done, lines in all, and tokens of the line.
    """
    given = prompts(source)
    with _held(target) as file:
        _settle(writer, target, wishes)
        done = _resume(file, given, target)
        on_line(done, len(given), 0)
        if done == len(given):
            return
        written = writer.write_many(given[done:], **wishes)
        for number, (prompt, one) in enumerate(zip(given[done:], written, strict=True), done + 1):
            line = {"prompt": prompt, "text": one.text, "finish": one.finish}
            file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
            file.flush()
            if number % SYNCED == 0 or number == len(given):
                os.fsync(file.fileno())
            on_line(number, len(given), len(one.tokens))


@contextlib.contextmanager
def _held(target: pathlib.Path) -> Iterator[BinaryIO]:
    """The target opened for reading and appending, refused where another process has it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{target} is being written by another process; wait for it, or name another file") from None
        yield file


def _settle(writer: pipelines.Writer, target: pathlib.Path, wishes: dict) -> None:
    """Notes model and wishes beside the target, or compares them with those that lie there."""
    now = {"model": writer.fingerprint, "rule": repr(wishes.get("rule") or writer.rule)}
    now |= {name: value for name, value in sorted(wishes.items()) if name not in ("rule", "slots")}
    card = target.with_name(f"{target.name}.settings.json")
    if target.stat().st_size == 0 or not card.exists():
        disk.replace(card, (json.dumps(now, ensure_ascii=False, indent=1) + "\n").encode())
    elif wrong := [name for name, value in now.items() if disk.load_json(card).get(name) != value]:
        raise Mismatch(f"{target} was begun with another {', '.join(wrong)} (see {card}); name another file, or ask for the same again")


def _resume(file: BinaryIO, given: list[str], target: pathlib.Path) -> int:
    """How many whole lines the target holds, which must be of the first prompts; what follows the last whole line is cut off."""
    file.seek(0)
    rows = file.read().split(b"\n")
    file.truncate(sum(len(row) + 1 for row in rows[:-1]))
    if len(rows) - 1 > len(given):
        raise Mismatch(f"{target} holds {len(rows) - 1} lines, more than the {len(given)} prompts; name another file")
    for number, (row, prompt) in enumerate(zip(rows[:-1], given, strict=False), 1):
        if disk.parse_json(row, target).get("prompt") != prompt:
            raise Mismatch(f"{target}, line {number}: not of the prompt {prompt[:30]!r}; the prompts have changed, name another file")
    return len(rows) - 1
