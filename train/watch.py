"""What a run says of itself while it goes well: log.jsonl, TensorBoard, the progress bar, traces of the profiler.

A line of log.jsonl holds "step" and numbers, or "step", "event" and what belongs to it. Of several processes the first alone writes.
"""

import collections
import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
import rich.console
import rich.progress

from train import flops, hosts
from train import settings as choices

LOG = "log.jsonl"  # in a run's folder
LINES_APART = 20.0  # seconds between two lines where there is no terminal
AGAIN = ("skipped",)  # events that a resumed run makes again; the others are history and stay


class Record:
    """Counts tokens or images, and seconds, and writes them with the numbers of every settings.note-th update to log.jsonl and elsewhere.

    folder: the run's. settings: note, steps, dtype, tensorboard and profile are read. cost: model FLOPs a token, done by so many devices.
    unit: the plural of what is counted, "tokens" or "images".
    facts: of the checkpoint, as `facts` gave them; what the log holds after update `done` is dropped. Loss and norm are written as the
    shortest decimals that give the same float32 again, so that two series can be compared bit by bit.
    """

    def __init__(self, folder: pathlib.Path, settings, *, cost: int, facts: dict, done: int, devices: int, unit: str = "tokens"):
        self.log, self.every, self.unit = folder / LOG, settings.note, unit
        self.before, self.began = facts.get("seconds", 0.0), time.monotonic()
        self.seen, self.skipped, self.rollbacks = (facts.get(name, 0) for name in (unit, "skipped", "rollbacks"))
        peak = flops.peak(jax.devices()[0].device_kind, settings.dtype)
        self.share = cost / peak / devices if peak else None  # of a second of all devices at their peak, that a token takes
        self.marks = collections.deque(maxlen=settings.note + 1)  # (moment, how many were seen) after each of the last updates
        self.profile = Profile(choices.window(settings.profile), folder / "profile")
        self.board = board(folder / "tensorboard", done) if settings.tensorboard == "yes" else None
        self._open(done)
        self.meter = Meter(done, settings.steps, unit)

    def _open(self, done: int) -> None:
        trim(self.log, done)
        self.file = self.log.open("a", encoding="utf-8") if hosts.first() else None

    def close(self) -> None:
        for part in (self.profile, self.meter, self.board, self.file):
            if part:
                part.close()

    def facts(self) -> dict:
        """What the next Record of this run begins with; skipped: how many batches were left out; rollbacks: how often it went back."""
        return self._spent() | {"skipped": self.skipped, "rollbacks": self.rollbacks}

    def _spent(self) -> dict:
        return {self.unit: self.seen, "seconds": round(self.before + time.monotonic() - self.began, 1)}

    def note(self, step: int, loss: float, norm: float, weight: int, **more: float) -> None:
        """Takes down update `step`, which learnt from `weight` of them; more: other numbers of it, as rate."""
        self.seen += weight
        self.marks.append((time.monotonic(), self.seen))
        speed = self._speed()
        self.meter.show(step, loss, speed.get(f"{self.unit}_per_s"), speed.get("mfu"))
        if step % self.every == 0:
            numbers = {name: exact(value) for name, value in ({"loss": loss, "norm": norm} | more).items()}
            self.write({"step": step} | numbers | self._spent() | speed)

    def _speed(self) -> dict:
        """Of the last `every` updates; nothing after the first, which was compiled."""
        (then, before), (now, _) = self.marks[0], self.marks[-1]
        if now <= then:
            return {}
        speed = (self.seen - before) / (now - then)
        return {f"{self.unit}_per_s": round(speed, 1)} | ({"mfu": round(speed * self.share, 4)} if self.share else {})

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Time that is not the updates' own, as of samples and checkpoints: it counts in "seconds", not in the speed."""
        start = time.monotonic()
        yield
        spent = time.monotonic() - start
        self.marks = collections.deque(((moment + spent, seen) for moment, seen in self.marks), self.marks.maxlen)

    def back(self, step: int, facts: dict, *, skipped: int, rollbacks: int, share: float = 1.0) -> None:
        """The run has gone back to the checkpoint of `step` with these facts; the numbers after it are dropped, the seconds stay spent.

        share: what the rate is from now on times the planned one.
        """
        self.seen, self.skipped, self.rollbacks = facts.get(self.unit, 0), skipped, rollbacks
        self.marks.clear()
        if self.file:
            self.file.close()
        self._open(step)
        self.event(step, "rollback", skipped=skipped, rollbacks=rollbacks, **({"share": share} if share < 1 else {}))
        self.meter.say(f"back to update {step} for the loss ran away" + (f"; the rate is {share:g} of the planned" if share < 1 else ""))

    def event(self, step: int, name: str, **facts) -> None:
        """A line for what is no update: "resumed", "skipped", "rollback", "damaged", …"""
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


def exact(value: float) -> float | str:
    """A float32 as the shortest decimal that gives it back; "nan", "inf" and "-inf", which JSON lacks, as words."""
    word = str(np.float32(value))
    return float(word) if math.isfinite(value) else word


def board(folder: pathlib.Path, done: int):
    """A TensorBoard writer in `folder` that hides what an earlier start wrote after update `done`; None in all processes but the first."""
    try:
        import tensorboardX
    except ImportError:
        raise ImportError(
            'TensorBoard needs tensorboardX; install it with pip install -e ".[log]", or leave it out of the settings'
        ) from None
    return tensorboardX.SummaryWriter(str(folder), purge_step=done + 1) if hosts.first() else None


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
    if not hosts.first() or not log.is_file():
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
    """A progress bar with loss, tokens or images a second, MFU and the time left; a line now and then where there is no terminal."""

    def __init__(self, done: int, total: int, unit: str = "tokens"):
        self.total, self.unit, self.began, self.said = total, unit, None, -math.inf
        console = rich.console.Console(file=sys.stderr)
        left = rich.progress.TimeRemainingColumn()
        columns = ["{task.description}", rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), left]
        lively = console.is_terminal and hosts.first()
        self.bar = rich.progress.Progress(*columns, console=console, speed_estimate_period=600) if lively else None
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task("compiling", total=total, completed=done)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, words: str) -> None:
        """A line beside the bar."""
        if self.bar:
            self.bar.console.print(words, highlight=False)
        elif hosts.first():
            print(words, file=sys.stderr, flush=True)

    def show(self, step: int, loss: float, speed: float | None, mfu: float | None) -> None:
        """speed: tokens or images a second."""
        words = f"loss {loss:.3f}" + (f"  {speed:,.0f} {self.unit}/s" if speed else "") + (f"  MFU {mfu:.1%}" if mfu else "")
        now = time.monotonic()
        self.began = self.began or (now, step)  # after the first update, which was compiled
        if self.bar:
            self.bar.update(self.task, completed=step, description=words)
        elif hosts.first() and (now - self.said >= LINES_APART or step == self.total):
            self.said = now
            (then, first), left = self.began, ""
            if step > first:
                left = f"  {clock((now - then) / (step - first) * (self.total - step))} left"
            print(f"step {step}/{self.total}  {words}{left}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Profile:
    """Traces the updates of `chosen` with jax's profiler into `folder`; TensorBoard's profile page and Perfetto read it."""

    def __init__(self, chosen: range, folder: pathlib.Path):
        self.chosen, self.folder, self.on = chosen if hosts.first() else range(0), folder, False

    def before(self, step: int) -> None:
        """To be called before update `step` is dispatched."""
        if step in self.chosen and not self.on:
            jax.profiler.start_trace(self.folder)
            self.on = True

    def after(self, step: int, result) -> None:
        """To be called with what update `step` gives; the last of them is waited for."""
        if self.on and step >= self.chosen[-1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        if self.on:
            self.on = False
            jax.profiler.stop_trace()
