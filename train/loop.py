"""The loop: updates one after the other, what is written down about them, and a clean end on a signal."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import rich.console
import rich.progress

from train import step as steps

LOG_EVERY = 10  # updates between two lines of log.jsonl
PATIENCE = 5  # updates without a finite gradient, one after the other, that end a run


class Diverged(RuntimeError):
    """The loss stayed infinite or NaN; the last checkpoint is from before."""


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls: batch(step) -> arrays, save(step, state, facts), look(step, state) -> facts for the log."""

    batch: Callable[[int], dict]
    save: Callable[[int, Any, dict], None]
    look: Callable[[int, Any], dict]


def run(
    task, optimizer, state, key, hooks: Hooks, *, steps_total: int, every: int, look: int, log: pathlib.Path, facts: dict
) -> tuple[Any, dict]:
    """(state, facts) after `steps_total` updates, or fewer when a signal came; saved in either case.

    facts: {"tokens", "seconds"} so far. The numbers of an update are read after the next one is under way, so the device never waits.
    """
    done, saved = int(state.step), int(state.step)
    with Stop() as stop, open(log, "a", encoding="utf-8") as file, Meter(done, steps_total) as meter:
        record = Record(file, meter, facts)
        pending = None
        while done < steps_total and not stop.number:
            state, now = steps.update(task, optimizer, state, key, hooks.batch(done))
            done += 1
            if pending:
                record.note(*pending)
            pending = (done, now)
            if done % every == 0 or done % look == 0 or done == steps_total:
                record.note(*pending)
                pending = None
            if done % look == 0 or done == steps_total:
                record.write({"step": done} | hooks.look(done, state))
            if done % every == 0 or done == steps_total:
                hooks.save(done, state, record.facts())
                saved = done
        if pending:
            record.note(*pending)
        if saved != done:
            hooks.save(done, state, record.facts())
    return state, record.facts() | {"signal": stop.number}


class Record:
    """Counts tokens and seconds, writes log.jsonl, moves the progress bar, and ends a run that has diverged."""

    def __init__(self, file, meter, facts: dict):
        self.file, self.meter = file, meter
        self.tokens, self.before, self.began = facts.get("tokens", 0), facts.get("seconds", 0.0), time.monotonic()
        self.last = (time.monotonic(), self.tokens)
        self.wrong = 0

    def facts(self) -> dict:
        return {"tokens": self.tokens, "seconds": round(self.before + time.monotonic() - self.began, 1)}

    def note(self, step: int, now: dict) -> None:
        loss, norm = float(now["loss"]), float(now["norm"])
        self.tokens += int(now["weight"])
        self.wrong = 0 if math.isfinite(loss + norm) else self.wrong + 1
        if self.wrong == PATIENCE:
            raise Diverged(f"no finite loss in the {PATIENCE} updates up to step {step}; lower rate=, or raise warmup=")
        if step % LOG_EVERY == 0:
            moment, tokens = self.last
            self.last = (time.monotonic(), self.tokens)
            speed = (self.tokens - tokens) / max(time.monotonic() - moment, 1e-9)
            self.write({"step": step, "loss": round(loss, 5), "norm": round(norm, 4), "tokens_per_s": round(speed)} | self.facts())
            self.meter.show(step, loss, speed)

    def write(self, line: dict) -> None:
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.file.flush()


class Meter:
    """A progress bar with loss and tokens per second; lines now and then where there is no terminal."""

    def __init__(self, done: int, total: int):
        columns = ["{task.description}", rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn()]
        console = rich.console.Console(file=sys.stderr)
        self.bar = rich.progress.Progress(*columns, console=console) if console.is_terminal else None
        self.done, self.total = done, total

    def __enter__(self):
        if self.bar:
            self.bar.start()
            self.line = self.bar.add_task("training", total=self.total, completed=self.done)
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    def show(self, step: int, loss: float, speed: float) -> None:
        words = f"loss {loss:.3f}  {speed:,.0f} tokens/s"
        if self.bar:
            self.bar.update(self.line, completed=step, description=words)
        elif step % (10 * LOG_EVERY) == 0:
            print(f"step {step}/{self.total}  {words}", file=sys.stderr, flush=True)


class Stop(contextlib.AbstractContextManager):
    """Takes SIGINT and SIGTERM: the first lets the loop finish its step and save, the second ends the program at once."""

    def __enter__(self):
        self.number = 0
        self.old = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _take(self, number, _):
        if self.number:
            os._exit(128 + number)
        self.number = number

    def __exit__(self, *_):
        for number, old in self.old.items():
            signal.signal(number, old)
