"""Thousands of prompts from a file to a file: in order, a line each, and a run that was stopped goes on where it was."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from flaxgen import disk, pipelines, rules
from flaxgen.errors import Mismatch

SYNCED = 64  # lines between two fsyncs


def prompts(path: pathlib.Path, target: pathlib.Path) -> list[str]:
    """The prompts of a .jsonl file, a field `prompt` a line, or of a text file, a line each; empty lines are left out.

    ValueError where the file is the very one that is to be written, or its settings.
    """
    if any(path.exists() and other.exists() and path.samefile(other) for other in (target, _card(target))):
        raise ValueError(f"{path} is the file that would be written; name another for the texts")
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
    _check(prompt, f"{path}, line {number}")
    return prompt


def _check(prompt: str, where: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        half = f"{prompt[error.start]!a}, half of a surrogate pair, which UTF-8 cannot hold"
        raise ValueError(f"{where}: character {error.start + 1} is {half}; write the whole character, or leave it out") from None


def run(
    writer: pipelines.Writer,
    source: pathlib.Path | Sequence[str],
    target: pathlib.Path,
    *,
    on_line: Callable[[int, int, int], None],
    **wishes,
) -> int:
    """Writes one JSON object a prompt into `target`: prompt, text, finish, and error where it failed; gives how many failed.

    source: a file of prompts, or the prompts. wishes: as of Writer.write_many; a list of rules or seeds has one for each prompt.
    Lines that `target` holds already are kept and not written again; Mismatch where they came from other prompts, another model or other
    wishes, which lie beside it in TARGET.settings.json. on_line: called with lines done, lines in all, and tokens of the line.
    """
    given = list(source) if isinstance(source, list | tuple) else prompts(pathlib.Path(source), target)
    for number, prompt in enumerate(given, 1):
        _check(prompt, f"prompt {number}")
    each, seed = rules.spread(wishes.pop("rule", None) or writer.rule, len(given)), wishes.pop("seed", 0)
    alike = len(names := {repr(rule) for rule in each}) == 1
    with _held(target) as file:
        _settle(target, {"model": writer.fingerprint, "rule": [*names] if alike else [repr(rule) for rule in each], "seed": seed, **wishes})
        done, failed = _resume(file, given, target)
        on_line(done, len(given), 0)
        if done == len(given):
            return failed
        left = {"rule": each[0] if alike else each[done:], "seed": seed[done:] if np.ndim(seed) else seed}
        written = writer.write_many(given[done:], **left, **wishes)
        for number, (prompt, one) in enumerate(zip(given[done:], written, strict=True), done + 1):
            line = {"prompt": prompt, "text": one.text, "finish": one.finish} | ({} if one.error is None else {"error": one.error})
            failed += one.error is not None
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            if number % SYNCED == 0 or number == len(given):
                os.fsync(file.fileno())
            on_line(number, len(given), len(one.tokens))
    return failed


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


def _card(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f"{target.name}.settings.json")


def _settle(target: pathlib.Path, wishes: dict) -> None:
    """Notes model and wishes beside the target, or compares them with those that lie there."""
    card = _card(target)
    now = {name: np.asarray(value).tolist() for name, value in sorted(wishes.items()) if name != "slots"}
    if target.stat().st_size == 0:
        disk.replace(card, (json.dumps(now, ensure_ascii=False, indent=1) + "\n").encode())
        return
    if not card.exists():
        raise Mismatch(f"{target} is not empty, and no {card.name} lies beside it: it is not of this command; name another file")
    then = disk.load_json(card)
    if wrong := [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]:
        raise Mismatch(f"{target} was begun with another {', '.join(wrong)} (see {card}); name another file, or ask for the same again")


def _resume(file: BinaryIO, given: list[str], target: pathlib.Path) -> tuple[int, int]:
    """How many whole lines the target holds, and how many of them failed.

    All must be of the first prompts, in order; only where they are, what follows the last whole line is cut off.
    """
    file.seek(0)
    *rows, torn = file.read().split(b"\n")
    failed = 0
    for number, (row, prompt) in enumerate(zip([*rows, torn], given, strict=False), 1):
        head = json.dumps({"prompt": prompt, "text": ""}, ensure_ascii=False)[:-2].encode()
        line = _line(row) if number <= len(rows) else {}
        if line is None or not head.startswith(row[: len(head)]):
            raise Mismatch(
                f"{target}, line {number}: not of the prompt {prompt[:30]!r}; the prompts or the file have changed, "
                "or it is not of this command. It stays as it is: name another file, or mend the line"
            )
        failed += "error" in line
    if len(rows) + bool(torn) > len(given):
        raise Mismatch(f"{target} holds {len(rows) + bool(torn)} lines, more than the {len(given)} prompts; name another file")
    file.truncate(file.tell() - len(torn))
    return len(rows), failed


def _line(row: bytes) -> dict | None:
    """The line as an object with text and finish, None where it is none."""
    try:
        line = json.loads(row)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and {"text", "finish"} <= line.keys() else None
