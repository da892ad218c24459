"""How far a long reading of files has come: nothing for two seconds, then a bar, or a line now and then where there is no terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress

PATIENCE, EVERY = 2.0, 30.0  # seconds before the first word, and between lines


@contextlib.contextmanager
def shown(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to be told how many more of `total` bytes were read."""
    console = rich.console.Console(file=sys.stderr)
    columns = ["{task.description}", rich.progress.BarColumn(), rich.progress.DownloadColumn(), rich.progress.TimeRemainingColumn()]
    bar = rich.progress.Progress(*columns, console=console, transient=True)
    task = bar.add_task(title, total=total)
    done, due = 0, time.monotonic() + PATIENCE

    def note(size: int) -> None:
        nonlocal done, due
        done += size
        now = time.monotonic()
        if now < due:
            return
        if console.is_terminal:
            bar.start()  # again and again does nothing
            bar.update(task, completed=done)
            due = now + 0.1
        else:
            print(f"{title}: {done / max(total, 1):.0%} of {total / 1e6:,.0f} MB", file=sys.stderr, flush=True)
            due = now + EVERY

    try:
        yield note
    finally:
        if console.is_terminal:
            bar.stop()
