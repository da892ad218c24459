"""Lets Orbax fail in one voice: its error is raised, and named by us; what it says besides is not shown."""

import asyncio
import logging


class Loop(asyncio.SelectorEventLoop):
    """Closes when its tasks have ended, and says nothing of their errors.

    Orbax leaves a loop at the first array that cannot be read or written; the others would then call on a closed loop, from threads that
    are not Python's, and each print a traceback of that.
    """

    def __init__(self):
        super().__init__()
        self.set_exception_handler(lambda *_: None)

    def close(self) -> None:
        left = [] if self.is_closed() else asyncio.all_tasks(self)
        if left:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        super().close()


def orbax() -> None:
    """Gives Orbax such loops (asyncio.run makes its own elsewhere), and drops its log, which repeats what it raises."""
    asyncio.new_event_loop = Loop
    logging.getLogger("absl").addFilter(_not_orbax)


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
