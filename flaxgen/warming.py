"""Compiling ahead: the programs of the sizes that a writer will be asked for."""

import itertools
import time
from collections.abc import Iterator, Sequence

from flaxgen import automata, controls, jobs, rules
from flaxgen.text import prompt as prompts_of


def warm(
    setup: jobs.Setup,
    batches: Sequence[int],
    lengths: Sequence[int],
    tokens: Sequence[int],
    samples: int,
    families: Sequence[controls.Family],
    tables: int,
    exact: bool,
    slots: int | None,
    wishes: dict,
) -> dict[str, float]:
    """Seconds by the name of what was compiled; see Writer.warm."""
    for name, sizes in (("batches", batches), ("lengths", lengths), ("tokens", tokens)):
        if isinstance(sizes, int) or not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"{name}={sizes!r}: wanted several whole numbers, such as (1, 8)")
    if not isinstance(tables, int) or not 1 <= tables <= len(automata.BUCKETS):
        raise ValueError(f"tables={tables!r}: wanted 1 to {len(automata.BUCKETS)}, the sizes of tables there are")
    seconds = {}
    seen = set()
    for batch, length, count in itertools.product(batches, lengths, tokens):
        width = next(width for width in prompts_of.buckets(setup.positions) if width >= min(length, setup.positions))
        room = jobs.room(count)
        for family, size in _families(families, tables):
            if (batch, width, room, family, size) not in seen:
                seen.add((batch, width, room, family, size))
                name = f"{batch} x {width} tokens + {room}, {family}" + (f", tables {size + 1}" if family == "constrained" else "")
                seconds[name] = _timed(_together(setup, batch, width, count, samples, family, size, wishes))
    for length, count in itertools.product(lengths, tokens):
        for family, size in _families(families, tables) if slots else ():
            name = f"{slots} slots of {length} + {count}, {family}" + (f", tables {size + 1}" if family == "constrained" else "")
            seconds[name] = _timed(_through(setup, length, count, family, size, slots, wishes))
    for size in range(tables if exact else 0):
        seconds[f"exact, tables {size + 1}"] = _timed(_through(setup, 1, max(tokens), "constrained", size, None, wishes))
    return seconds


def _families(families: Sequence[controls.Family], tables: int) -> Iterator[tuple[controls.Family, int]]:
    for family in families:
        yield from ((family, size) for size in range(tables if family == "constrained" else 1))


def _timed(rounds: Iterator) -> float:
    """Seconds of the first two rounds, which run all there is to compile."""
    start = time.perf_counter()
    for _ in itertools.islice(rounds, 2):
        pass
    return time.perf_counter() - start


def _job(setup: jobs.Setup, prompts: int, length: int, tokens: int, samples: int, wishes: dict) -> jobs.Job:
    """Prompts of `length` times the first token that may be written."""
    length = min(length, setup.positions - tokens) if setup.longer == "refuse" else length
    if length < 1:
        raise ValueError(f"tokens={tokens}: the model's context holds {setup.positions}; wanted fewer, so that a prompt has room")
    first = next(number for number in range(setup.model.config.vocab) if number not in {*setup.ban, *setup.text.end})
    return jobs.job(setup, [""] * prompts, rules.Rule(), samples=samples, tokens=tokens, ids=[[first] * length] * prompts, **wishes)


def _together(setup, batch, length, tokens, samples, family, size, wishes) -> Iterator:
    return jobs.together(setup, _job(setup, batch, length, tokens, samples, wishes), 1, family=family, tables=size)


def _through(setup, length, tokens, family, size, slots, wishes) -> Iterator:
    job = _job(setup, 1, length, tokens, 1, wishes)
    running = jobs.exact_engine(setup, job) if slots is None else jobs.free_engine(setup, job, slots)
    for request in jobs.requests(setup, job, family, tables=size):
        running.submit(request)
    while running.busy:
        yield list(running.step(1))
