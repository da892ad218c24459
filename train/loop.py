"""The loop: updates one after the other, what is done about bad ones, and a clean end on a signal."""

import collections
import contextlib
import dataclasses
import math
import os
import signal
from collections.abc import Callable
from typing import Any

from train import hosts, trouble, watch


class Diverged(RuntimeError):
    """The loss stayed infinite or NaN, however often the run went back; the last checkpoint is from before."""


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls.

    batch(place) -> arrays; save(step, state, facts, score); check() raises when a save in the background has failed,
    wait() returns when it has ended;
    back(rollbacks) -> (state, facts) of the newest good checkpoint, or of the beginning, to which the run goes back for that many
    times in all; look(step, state) -> (facts for the log, the score of a checkpoint or None).
    """

    batch: Callable[[int], dict]
    save: Callable[[int, Any, dict, float | None], None]
    check: Callable[[], None]
    wait: Callable[[], None]
    back: Callable[[int], tuple[Any, dict]]
    look: Callable[[int, Any], tuple[dict, float | None]]


def run(program, state, hooks: Hooks, settings, record: watch.Record) -> tuple[Any, int]:
    """(state, signal) after settings.steps updates and signal 0, or earlier when a signal came; saved in either case.

    The numbers of an update are read after the next one is under way, so the device never waits. An update without a finite loss and
    gradient changes nothing but the step. settings.patience of them, one after the other, send the run back to its checkpoint, from which
    it goes on with the batches after them.
    """
    s, done = settings, program.done(state)
    saved, number, reader = done, 0, Reader(record, s.patience)
    with Stop() as stop, trouble.Watchdog(s.watchdog, record.log.parent / "stacks.txt") as dog:
        while done < s.steps and not (number := stop.number if hosts.alone() else reader.signal):
            hooks.check()
            batch = hooks.batch(done + record.skipped)
            record.profile.before(done + 1)
            state, now = program.update(state, batch, stop.number)
            done += 1
            record.profile.after(done, now)
            look, save = done % s.look == 0 or done == s.steps, done % s.every == 0 or done == s.steps
            reader.add(done, now)
            reader.read(0 if look or save or (stop.number and hosts.alone()) else 1)
            dog.beat()
            if reader.bad >= s.patience:
                state, done = go_back(program, hooks, s, record, done)
                saved, reader = done, Reader(record, s.patience)
                continue
            with record.aside():
                found, score = hooks.look(done, state) if look else ({}, None)
                if found:
                    record.write({"step": done} | {name: watch.exact(value) for name, value in found.items()})
                if save and not reader.bad:  # what a bad stretch leaves is nothing to go back to
                    hooks.save(done, state, record.facts(), score)
                    saved = done
            dog.beat()
        reader.read(0)
        if saved != done:
            hooks.save(done, state, record.facts(), None)
        dog.beat()
        hooks.wait()
    return state, number


def go_back(program, hooks: Hooks, settings, record: watch.Record, done: int) -> tuple[Any, int]:
    """(state, step) of the newest good checkpoint; the batches that were taken since then, and settings.skip more, are left out."""
    rollbacks = record.rollbacks + 1
    if rollbacks > settings.rollbacks:
        raise Diverged(
            f"no finite loss in the {settings.patience} updates up to step {done}, after going back {record.rollbacks} times; "
            "lower rate=, raise warmup=, or look at the data there"
        )
    place = done + record.skipped + settings.skip
    state, facts = hooks.back(rollbacks)
    step = program.done(state)
    record.back(step, facts, skipped=place - step, rollbacks=rollbacks, share=settings.lower**rollbacks)
    return state, step


class Reader:
    """Reads the numbers of updates under way: counts the bad ones in a row, and takes up the signal that all processes know of."""

    def __init__(self, record: watch.Record, patience: int):
        self.record, self.patience, self.bad, self.signal = record, patience, 0, 0
        self.under_way: collections.deque = collections.deque()

    def add(self, step: int, now: dict) -> None:
        self.under_way.append((step, now))

    def read(self, left: int) -> None:
        """Waits for all updates but the last `left`."""
        while len(self.under_way) > left and self.bad < self.patience:
            step, now = self.under_way.popleft()
            loss, norm = float(now["loss"]), float(now["norm"])
            self.signal = max(self.signal, int(now["stop"]))
            if math.isfinite(loss + norm):
                self.bad = 0
                more = {name: float(now[name]) for name in now if name not in ("loss", "norm", "weight", "stop")}
                self.record.note(step, loss, norm, int(now["weight"]), **more)
            else:
                self.bad += 1
                self.record.event(step, "skipped", loss=str(loss), norm=str(norm))


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
