"""The continuous-batching engine in a thread of its own: rows join and leave while others run."""

import asyncio
import collections
import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from flaxgen import buckets, engine, jobs, rules
from flaxgen.pipelines import Writer
from flaxgen.serve import limits, metrics, refusal, rooms
from flaxgen.serve.refusal import Refusal

FAMILY = "constrained"  # holds whatever a request may ask, so that one program serves all
TABLES = 1  # the bucket of its tables; that of bucket 0 is no faster
SHORT = 256  # tokens, prompt and answer, of rows that run among themselves
STRIKES = 3
log = logging.getLogger("flaxgen.serve")


class Ticket:
    """The rows of one request as they are drawn: `rows` holds, by its number, all there is of each that has grown."""

    def __init__(self, deadline: float):
        self.deadline, self.start = deadline, time.monotonic()
        self.rows: dict[int, engine.Row] = {}
        self.queued: set[int] = set()  # rows that have not begun
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        self._error: Exception | None = None

    async def news(self) -> dict[int, engine.Row]:
        """The rows that have grown since the last call, as soon as there are any; a Refusal where the request has failed."""
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # which keeps this frame, and with it this ticket
        grown, self.rows = self.rows, {}
        return grown

    def call(self, function: Callable, argument) -> None:
        """Calls the function in the loop that waits for this ticket."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, argument)

    def tell(self, row: engine.Row) -> None:
        self.rows[row.name[1]] = row
        self._news.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._news.set()


class Texts:
    """Continuations of prompts for many clients at once.

    slots: rows that run at once, of short ones and of long ones each. queue: rows beyond so many that are accepted. What is drawn depends
    on a row's prompt, rule, limit, seed and sample alone, since all programs of its room have one shape. A step that fails ends the rows of
    both rooms; a model that fails three steps in a row is broken for good.
    """

    def __init__(self, writer: Writer, *, slots: int, queue: int):
        self.writer, self.setup, self._room_slots, self.capacity = writer, writer.setup, slots, slots + queue
        self.rows_at_most = min(self.capacity, limits.ROWS)
        self._engine = self._fresh()
        # The model's own rule, which requests begin from, and lists as long as they may make it.
        longest = writer.rule.replace(regex=None, choices=None, stop=(), ban=(*writer.rule.ban, [self._first] * limits.BAN_TOKENS))
        neutral = jobs.job(self.setup, [""], longest, tokens=1, ids=[[self._first]])
        self._sizes = buckets.sizes(
            jobs.wishes(self.setup, neutral, family=FAMILY, only=0, tables=TABLES), banned=len(self.setup.ban), tables=TABLES
        )
        self.live = 0  # rows that are being prepared, wait or run
        self.broken: str | None = None
        self._tickets: dict[Ticket, set[int]] = {}  # of each the rows that are not done
        self._inbox: collections.deque[Callable[[], None]] = collections.deque()
        self._wake, self._closed = threading.Condition(), False
        self._last, self._gap = time.monotonic(), 1.0  # when a row was done, and the seconds between two of them lately
        self._thread = threading.Thread(target=self._run, name="texts", daemon=True)
        self._thread.start()

    @property
    def slots(self) -> int:
        return self._engine.slots

    @property
    def running(self) -> int:
        return self._engine.running

    @property
    def waiting(self) -> int:
        return max(self.live - self.running, 0)

    def prepare(self, job: jobs.Job) -> list[engine.Request]:
        """The rows of a job, checked; ValueError where one does not fit. Takes up to a second for a long pattern."""
        return list(jobs.requests(self.setup, job, FAMILY, sizes=self._sizes))

    def reserve(self, rows: int) -> None:
        """Keeps places for so many rows; a Refusal where there are none."""
        if self.broken is not None:
            raise Refusal(503, "the model has failed; the server has to be started again", code="broken", retry_after=60)
        if (over := self.live + rows - self.capacity) > 0 and rows:
            raise refusal.full(over * self._gap)
        if not self.live:
            self._last = time.monotonic()
        self._count(rows)

    def release(self, rows: int) -> None:
        """Gives back places that were reserved and are not wanted."""
        self._count(-rows)

    def submit(self, requests: Sequence[engine.Request], deadline: float) -> Ticket:
        """Queues rows whose places are reserved."""
        ticket = Ticket(deadline)
        self._post(lambda: self._enter(ticket, requests))
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Forgets a request, whatever became of it; its slots are free before the next step."""
        self._post(lambda: self._drop(ticket))

    def close(self) -> None:
        self._closed = True
        self._post(lambda: None)
        self._thread.join(timeout=10)

    def warm(self, tell: Callable[[str], None]) -> None:
        """Runs everything that requests will run: rows that join, move, are cancelled, and every number of samples there may be."""
        tell("texts")
        # A prompt of several chunks, a row that is cancelled, and one after it.
        for one, length in itertools.product(self._fresh().engines, (jobs.CHUNK + 1, 1)):
            # A step leaves each of them running, so that there is a row to cancel.
            ids = [[self._first] * min(length, one.chain.slots - 3)]
            job = jobs.job(self.setup, [""], rules.Rule(min_tokens=3), tokens=3, ids=ids)
            for request in jobs.requests(self.setup, job, FAMILY, sizes=self._sizes):
                one.submit(request)
            list(one.step(1))
            one.cancel(0)
        for samples in range(1, min(self.rows_at_most, limits.SAMPLES) + 1):
            jobs.job(self.setup, [""], rules.Rule(), tokens=1, ids=[[self._first]], samples=samples)

    @property
    def _first(self) -> int:
        """A token that may be written."""
        return next(number for number in range(self.setup.model.config.vocab) if number not in {*self.setup.ban, *self.setup.text.end})

    def _fresh(self) -> rooms.Rooms:
        widths = sorted({min(SHORT, self.setup.positions), self.setup.positions})
        chains = [self.setup.chain(room=width, chunk=jobs.CHUNK, alternatives=limits.LOGPROBS) for width in widths]
        return rooms.Rooms(chains, self.setup.params, slots=self._room_slots)

    def _post(self, message: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(message)
            self._wake.notify()

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            if not self._closed:
                self.broken = self.broken or "the engine's thread has ended"
            self._fail_all(refusal.draining())

    def _serve(self) -> None:
        strikes = 0
        while not self._closed:
            with self._wake:
                self._wake.wait_for(lambda: self._inbox or self._engine.busy)
            try:
                while self._inbox:
                    self._inbox.popleft()()
                self._drop_late()
                begun, rows = time.monotonic(), list(self._engine.step(1))
                for row in rows:
                    self._deliver(row, begun)
                strikes = 0 if rows else strikes  # an idle step shows nothing
            except Exception as error:  # whatever a model or the device may raise ends these requests, not the server
                strikes += 1
                log.error("the model failed: %s, %d steps one after the other", type(error).__name__, strikes)
                self.broken = f"{type(error).__name__} in {strikes} steps one after the other" if strikes >= STRIKES else None
                self._fail_all(Refusal(503, f"the model failed ({type(error).__name__})", code="model_failed", retry_after=5))
                self._engine = self._fresh()

    def _enter(self, ticket: Ticket, requests: Sequence[engine.Request]) -> None:
        self._tickets[ticket], ticket.queued = set(range(len(requests))), set(range(len(requests)))
        for number, request in enumerate(requests):
            try:
                self._engine.submit(dataclasses.replace(request, name=(ticket, number)))
            except ValueError as error:
                return self._fail(ticket, Refusal(400, str(error)))

    def _deliver(self, row: engine.Row, begun: float) -> None:
        """Hands on what a row has drawn; begun: when its latest step did."""
        ticket, number = row.name
        if number in ticket.queued:
            ticket.queued.discard(number)
            _waited(ticket, until=begun)
        if isinstance(row.error, FloatingPointError):
            log.error("the model failed: its logits are not finite")
            self._fail(ticket, Refusal(503, str(row.error), code="model_failed", retry_after=5))
        elif row.error is not None:
            self._fail(ticket, Refusal(400, str(row.error), code="no_token"))
        elif ticket in self._tickets:
            if row.finish != "running":
                self._tickets[ticket].discard(number)
                self._count(-1)
                now = time.monotonic()
                self._gap, self._last = self._gap + 0.1 * (now - self._last - self._gap), now
            ticket.call(ticket.tell, row)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for ticket in [ticket for ticket in self._tickets if ticket.deadline < now]:
            self._fail(ticket, refusal.late())

    def _fail(self, ticket: Ticket, error: Refusal) -> None:
        self._drop(ticket)
        ticket.call(ticket.fail, error)

    def _fail_all(self, error: Refusal) -> None:
        """Fails whatever is there, and asks nothing of the engine, which may be damaged."""
        tickets, self._tickets = self._tickets, {}
        for ticket, left in tickets.items():
            self._count(-len(left))
            ticket.call(ticket.fail, error)

    def _drop(self, ticket: Ticket) -> None:
        now = time.monotonic()
        for number in self._tickets.pop(ticket, ()):
            self._engine.cancel((ticket, number))
            self._count(-1)
            if number in ticket.queued:
                _waited(ticket, until=now)

    def _count(self, change: int) -> None:
        with self._wake:
            self.live += change


def _waited(ticket: Ticket, until: float) -> None:
    """Tells how long a row of the ticket was queued."""
    metrics.QUEUE_SECONDS.labels("completions").observe(until - ticket.start)
