"""What a run says of itself while it goes well: log.jsonl, TensorBoard, the progress bar, traces of the profiler.

A line of log.jsonl holds "step" and numbers, or "step", "event" and what belongs to it. Of several processes the first alone writes.
"""

import collections
import contextlib
import json
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
import rich.console
import rich.progress

LINES_APART = 20.0  # seconds between two lines where there is no terminal
AGAIN = ("skipped",)  # events that a resumed run makes again; the others are history and stay


class Record:
    """Counts tokens and seconds, and writes them with the numbers of every `every`-th update.

    facts: {"tokens", "seconds"} of the run so far, as `facts` gave them. flops: model FLOPs a token; peak: FLOP/s of all devices together,
    None where it is not known. Loss, norm and whatever else an update tells are written as the shortest decimals that give the same float32
    again, so that two series can be compared bit by bit.
    """

    def __init__(
        self, log: pathlib.Path, meter: "Meter", *, facts: dict, every: int = 10, flops: int = 0, peak: float | None = None, board=None
    ):
        self.log, self.meter, self.every, self.board = log, meter, every, board
        self.share = flops / peak if peak else None  # of all devices' time that a token takes at their peak
        self.tokens, self.before, self.began = facts.get("tokens", 0), facts.get("seconds", 0.0), time.monotonic()
        self.marks = collections.deque(maxlen=every + 1)  # (moment, tokens) after each of the last updates

    def __enter__(self):
        self.file = open(self.log, "a", encoding="utf-8") if first() else None
        return self

    def __exit__(self, *_):
        if self.board:
            self.board.close()
        if self.file:
            self.file.close()

    def facts(self) -> dict:
        """What the next Record of this run begins with."""
        return {"tokens": self.tokens, "seconds": round(self.before + time.monotonic() - self.began, 1)}

    def note(self, step: int, now: dict) -> bool:
        """Takes down what update `step` told: "loss", "norm", "weight" and any other scalars; False where it was not finite, so no update.

        Such an update is an event of its own and enters no count.
        """
        now = jax.device_get(now)
        numbers = {name: exact(value) for name, value in now.items() if name != "weight"}
        if not math.isfinite(now["loss"] + now["norm"]):
            self.event(step, "skipped", **numbers)
            return False
        self.tokens += int(now["weight"])
        self.marks.append((time.monotonic(), self.tokens))
        speed = self._speed()
        self.meter.show(step, float(now["loss"]), speed.get("tokens_per_s"), speed.get("mfu"))
        if step % self.every == 0:
            self.write({"step": step} | numbers | self.facts() | speed)
        return True

    def _speed(self) -> dict:
        """Of the last `every` updates; nothing after the first, which was compiled."""
        (then, tokens), (now, _) = self.marks[0], self.marks[-1]
        if now <= then:
            return {}
        speed = (self.tokens - tokens) / (now - then)
        return {"tokens_per_s": round(speed, 1)} | ({"mfu": round(speed * self.share, 4)} if self.share else {})

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Time that is not the updates' own, as of samples and checkpoints: it counts in "seconds", not in "tokens_per_s"."""
        start = time.monotonic()
        yield
        spent = time.monotonic() - start
        self.marks = collections.deque(((moment + spent, tokens) for moment, tokens in self.marks), self.marks.maxlen)

    def rewind(self, facts: dict) -> None:
        """Goes back to the tokens of an earlier checkpoint; the seconds are spent."""
        self.tokens = facts.get("tokens", 0)
        self.marks.clear()

    def event(self, step: int, name: str, **facts) -> None:
        """A line for what is no update: "resumed", "rollback", "damaged", …"""
        self.write({"step": step, "event": name} | facts)

    def write(self, line: dict) -> None:
        """Appends `line` to log.jsonl, and its numbers to TensorBoard when it is asked for."""
        if self.file:
            self.file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self.file.flush()
        if self.board and "event" not in line:
            for name, value in line.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, line["step"])


def exact(value) -> int | float | str:
    """A scalar for JSON: a float32 as the shortest decimal that gives it back; "nan", "inf" and "-inf", which JSON lacks, as words."""
    value = np.asarray(value)
    if value.dtype.kind in "iub":
        return int(value)
    word = str(value.astype(np.float32))
    return float(word) if np.isfinite(value) else word


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def board(folder: pathlib.Path, done: int):
    """A TensorBoard writer in `folder` that hides what an earlier start wrote after update `done`; None in all processes but the first."""
    try:
        import tensorboardX
    except ImportError:
        raise ImportError(
            'TensorBoard needs tensorboardX; install it with pip install -e ".[log]", or leave it out of the settings'
        ) from None
    return tensorboardX.SummaryWriter(str(folder), purge_step=done + 1) if first() else None


def lines(log: pathlib.Path) -> Iterator[dict]:
    """The lines of log.jsonl that can be read; one that a kill or a full disk cut short is passed over."""
    with open(log, encoding="utf-8", errors="replace") as file:
        for text in file:
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict) and isinstance(line.get("step"), int) and text.endswith("\n"):
                    yield line


def trim(log: pathlib.Path, done: int) -> None:
    """Drops the lines after update `done`, which will be made again, and what is cut short; events that are history stay."""
    if not first() or not log.is_file():
        return
    whole = log.with_name(f"{log.name}.new")
    with open(whole, "w", encoding="utf-8") as file:
        for line in lines(log):
            if line["step"] <= done or line.get("event", AGAIN[0]) not in AGAIN:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    whole.replace(log)


class Meter:
    """A progress bar with loss, tokens a second, MFU and the time left; a line now and then where there is no terminal."""

    def __init__(self, done: int, total: int):
        self.done, self.total, self.began, self.said = done, total, time.monotonic(), -math.inf
        console = rich.console.Console(file=sys.stderr)
        left = rich.progress.TimeRemainingColumn()
        columns = ["{task.description}", rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), left]
        lively = console.is_terminal and first()
        self.bar = rich.progress.Progress(*columns, console=console, speed_estimate_period=600) if lively else None

    def __enter__(self):
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task("compiling", total=self.total, completed=self.done)
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    def show(self, step: int, loss: float, speed: float | None, mfu: float | None) -> None:
        """speed: tokens a second."""
        words = f"loss {loss:.3f}" + (f"  {speed:,.0f} tokens/s" if speed else "") + (f"  MFU {mfu:.1%}" if mfu else "")
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=step, description=words)
        elif first() and (now - self.said >= LINES_APART or step == self.total):
            self.said = now
            left = (now - self.began) / max(step - self.done, 1) * (self.total - step)
            print(f"step {step}/{self.total}  {words}  {clock(left)} left", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def window(word: str) -> range:
    """The updates that profile=FIRST:LAST names, both of them included; none for an empty word."""
    if not word:
        return range(0)
    found = re.fullmatch(r"(\d+):(\d+)", word)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"profile={word}: wanted FIRST:LAST, updates counted from 1, as profile=100:105")
    return range(int(found[1]), int(found[2]) + 1)


class Profile(contextlib.AbstractContextManager):
    """Traces the updates of `chosen` with jax's profiler into `folder`; TensorBoard's profile page and Perfetto read it."""

    def __init__(self, chosen: range, folder: pathlib.Path):
        self.chosen, self.folder, self.on = chosen if first() else range(0), folder, False

    def before(self, step: int) -> None:
        """To be called before update `step` is dispatched."""
        if step in self.chosen and not self.on:
            jax.profiler.start_trace(self.folder)
            self.on = True

    def after(self, step: int, result) -> None:
        """To be called with what update `step` gives; the last of them is waited for."""
        if self.on and step >= self.chosen[-1]:
            jax.block_until_ready(result)
            self.__exit__()

    def __exit__(self, *_):
        if self.on:
            self.on = False
            jax.profiler.stop_trace()
