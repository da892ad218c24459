"""Last words: what a run says when no update finishes, and when memory has run out."""

import contextlib
import faulthandler
import os
import pathlib
import re
import threading
import time

GRACE = 1.0  # seconds that the watchdog's own thread has before faulthandler's, which needs no interpreter


class Watchdog(contextlib.AbstractContextManager):
    """Prints the stacks of all threads into `file` and on stderr, and ends the program with code 1, when `seconds` pass without a beat.

    Where a call into C never gives the interpreter back, faulthandler's own thread does it GRACE seconds later, on stderr alone.
    """

    def __init__(self, seconds: float, file: pathlib.Path):
        self.seconds, self.file = seconds, file
        self.over = threading.Event()

    def __enter__(self):
        self.beat()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def beat(self) -> None:
        """An update has finished."""
        self.deadline = time.monotonic() + self.seconds
        faulthandler.dump_traceback_later(self.seconds + GRACE, exit=True, file=2)

    def _watch(self) -> None:
        while not self.over.wait(max(self.deadline - time.monotonic(), 0.0)):
            if time.monotonic() >= self.deadline:
                self._bark()

    def _bark(self) -> None:
        words = f"train: no update has finished for {self.seconds:g} s, and the program ends; its threads stood here\n"
        try:
            with open(self.file, "a", encoding="utf-8") as file:
                for number in (file.fileno(), 2):
                    os.write(number, words.encode())
                    faulthandler.dump_traceback(number)
        finally:
            os._exit(1)

    def __exit__(self, *_):
        self.over.set()
        faulthandler.cancel_dump_traceback_later()


# Setting, the value at which it can still help, and what it does; the cheapest first.
ADVICE = (
    ("accumulate", 1, "accumulate=2, 4, … takes the batch in that many parts one after the other; the numbers stay"),
    ("remat", "none", "remat=full keeps one array a layer and computes the rest again, a third more work (remat=dots lies between)"),
    ("chunks", 1, "chunks=8 takes the loss in eighths of the vocabulary, so that the logits are never whole"),
    ("dtype", "float32", "dtype=bfloat16 computes in half the bytes (on GPU and TPU; parameters stay float32)"),
    ("optimizer", "adamw", "optimizer=adafactor keeps rows and columns of the second moment, not two numbers a parameter; lion keeps one"),
    ("mesh", None, "mesh=fsdp=N shares parameters and optimizer out over N devices, mesh=tensor=N also the activations"),
    ("lora", 0, "lora=8 trains small matrices beside the frozen kernels, so that these need neither gradient nor moments"),
)


def memory_advice(error: BaseException, settings: dict | None = None) -> str | None:
    """What helps against `error` when it says that memory has run out, else None.

    settings: those of the run, so that only what they leave is named.
    """
    # As XLA says it on CPU and GPU (two ways) and on TPU, and CUDA itself.
    found = re.search(r".*(?:out.of.memory|failed to allocate).*", str(error), re.IGNORECASE)
    if not isinstance(error, MemoryError) and not found:
        return None
    rows = [words for name, start, words in ADVICE if not settings or (name in settings and start in (None, settings[name]))]
    listed = "\n".join(f"  {words}" for words in rows)
    said = f" ({found[0].strip()[:200]})" if found else ""
    return f"memory has run out{said}; what helps, the cheapest first:\n{listed}\n`python -m train RECIPE --plan …` counts the bytes"
