"""Work that runs ahead in a thread of its own: one core reads and transposes while the other checks and writes."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], room: int) -> Iterator[Item]:
    """The same items, made in a thread that is at most `room` + 1 of them ahead of the one in use; its error comes up here.

    When the loop over them is left early, the thread ends before this generator does.
    """
    line: queue.Queue = queue.Queue(room)
    left = threading.Event()

    def put(item) -> None:
        while not left.is_set():
            try:
                line.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put((item, None))
                if left.is_set():
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = line.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        left.set()
        thread.join()
