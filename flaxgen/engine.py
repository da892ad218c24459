"""Many requests through one running batch of fixed slots: a row that is done makes place for the next while the others go on.

Every program has one shape, whatever the requests: a prompt is read alone, in pieces of one width, into a row of its own, which is then
copied into a free slot; all slots move together. So a request's numbers do not depend on its slot or its neighbours (NOTES.md).
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen import controls, loop, progress
from flaxgen.chains import autoregressive
from flaxgen.nn import attention
from flaxgen.protocols import Array, Params


@dataclasses.dataclass(frozen=True)
class Request:
    """One row to be written. `name` is the caller's own and comes back with what is drawn."""

    name: Any
    tokens: np.ndarray  # the whole prompt
    controls: controls.Controls  # of one row
    key: np.ndarray  # the key data of its random numbers
    drafts: int = autoregressive.MANY
    context: attention.Cache | None = None  # what was read of the prompt, at most all but its last token


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """What a request has drawn so far, as arrays; whoever follows a row makes lists of what is new alone, by `after`."""

    name: Any
    token_N: np.ndarray
    log_prob_N: np.ndarray
    finish: str  # a word of progress.FINISH
    moves: int  # steps it took part in
    top_id_NE: np.ndarray | None = None  # of the likeliest tokens at every place, where the chain reports them
    top_log_prob_NE: np.ndarray | None = None
    error: ArithmeticError | None = None

    def __len__(self) -> int:
        return len(self.token_N)

    @property
    def tokens(self) -> list[int]:
        return self.token_N.tolist()

    @property
    def log_probs(self) -> list[float]:
        return self.log_prob_N.tolist()

    @property
    def top(self) -> list[list[tuple[int, float]]]:
        """(id, log-probability) of the likeliest tokens at every place, nothing where the chain reports none."""
        if self.top_id_NE is None:
            return []
        pairs = zip(self.top_id_NE.tolist(), self.top_log_prob_NE.tolist(), strict=True)
        return [list(zip(ids, log_probs, strict=True)) for ids, log_probs in pairs]

    def after(self, place: int) -> "Row":
        """The row without its first tokens, so many."""
        names = ("token_N", "log_prob_N", "top_id_NE", "top_log_prob_NE")
        rest = {name: values[place:] for name in names if (values := getattr(self, name)) is not None}
        return dataclasses.replace(self, **rest)


class Engine:
    """Slots of one batch, and a queue before them. All requests' controls must be of one family and one set of buckets.

    A moving thing, like a stream: `submit` requests, and `step` until nothing is `busy`.
    """

    def __init__(self, chain: autoregressive.Autoregressive, params: Params, *, slots: int = 8):
        if not chain.chunk:
            raise ValueError("the chain reads prompts whole; wanted one with a chunk, such as Autoregressive(model, room=256, chunk=32)")
        if not isinstance(slots, int) or slots < 1:
            raise ValueError(f"slots={slots!r}: wanted a whole number of at least 1")
        self.chain, self.params, self.slots = chain, params, slots
        self.queue: collections.deque[Request] = collections.deque()
        self.rows: list[Request | None] = [None] * slots
        self._blank = chain.empty(1, chain.slots)
        self.moves = 0  # steps of the batch so far
        self._shapes = None  # of all requests' controls
        self._running: tuple | None = None

    @property
    def busy(self) -> bool:
        return bool(self.queue) or any(request is not None for request in self.rows)

    def submit(self, request: Request) -> None:
        """Queues a request; ValueError where the chain cannot serve it."""
        shapes = jax.tree.map(np.shape, request.controls)
        if self._shapes not in (None, shapes):
            raise ValueError(f"request {request.name!r}: its controls are of another family or of other buckets than those before it")
        self.chain.check(self.params, None, self._given(request), int(request.controls.limit_B[0]))
        self._shapes = shapes
        self.queue.append(request)

    def cancel(self, name: Any) -> None:
        """Forgets a request; its slot is free at once."""
        self.queue = collections.deque(request for request in self.queue if request.name != name)
        for slot, request in enumerate(self.rows):
            if request is not None and request.name == name:
                self.rows[slot] = None
                self._running = self._running[0], _end(self._running[1], slot)

    def step(self, steps: int = 8, joins: int | None = None) -> Iterator[Row]:
        """Fills free slots, moves all rows by up to `steps` tokens, fewer when others may join, and gives what each has drawn so far.

        joins: how many may join, by default as many as find a slot; while a prompt is read, all that runs waits.
        """
        self._fill(self.slots if joins is None else joins)
        if all(request is None for request in self.rows):
            return
        if self.queue and None in self.rows:
            steps = 1  # a slot is free, and the next is about to join
        memory, state = self._running
        finish_B, moves_B = jax.device_get((state.progress.finish_B, state.moves_B))
        done = int(np.sum(finish_B != progress.RUNNING))
        if done < self.slots:
            state = loop.advance(self.chain, self.params, memory, state, steps, done=done + 1 if self.queue else None)
        self._running = memory, state
        sample = autoregressive.look(state)
        self.moves += int(np.max(sample.moves_B - moves_B))
        for slot, request in enumerate(self.rows):
            if request is not None:
                found = row(request.name, sample, slot)
                if found.finish != "running":
                    self.rows[slot] = None
                yield found

    def run(self, requests: Iterable[Request], steps: int = 64) -> Iterator[Row]:
        """Serves all requests and gives each one when it is done; reads no further ahead than there are slots."""
        waiting = iter(requests)
        while True:
            for request in itertools.islice(waiting, max(self.slots - len(self.queue), 0)):
                self.submit(request)
            if not self.busy:
                return
            yield from (found for found in self.step(steps) if found.finish != "running")

    def _given(self, request: Request) -> autoregressive.Prompt:
        """The request as one row, in the one shape that every request has."""
        context = self._blank if request.context is None else attention.widen(request.context, self.chain.slots)
        whole, rest = request.tokens, request.tokens[int(context.length_B[0]) :]
        return autoregressive.begin(*self._padded(rest), request.controls).replace(
            **dict(zip(("before_BS", "before_length_B"), self._padded(whole), strict=True)),
            drafts_B=np.array([min(request.drafts, self.chain.drafts)], np.int32),
            context=context,
        )

    def _padded(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.pad(tokens, (0, max(self.chain.slots - len(tokens), 0))).astype(np.int32)[None], np.array([len(tokens)], np.int32)

    def _fill(self, most: int) -> None:
        free = [slot for slot, request in enumerate(self.rows) if request is None]
        for slot in free[: min(most, len(self.queue))]:
            self._join(slot, self.queue.popleft())

    def _join(self, slot: int, request: Request) -> None:
        new = self.chain.start(self.params, jax.random.wrap_key_data(request.key[None]), self._given(request))
        if self._running is None:
            self._running = _empty(new, self.slots)
        self._running = _place(self._running, new, slot)
        self.rows[slot] = request


def row(name: Any, sample: autoregressive.Sample, slot: int) -> Row:
    """Row `slot` of a sample, in arrays of its own: it may outlast its neighbours."""
    count = int(sample.count_B[slot])

    def own(values_BN: np.ndarray | None) -> np.ndarray | None:
        return None if values_BN is None else np.array(values_BN[slot, :count])

    return Row(
        name,
        own(sample.token_BN),
        own(sample.log_prob_BN),
        progress.FINISH[sample.finish_B[slot]],
        int(sample.moves_B[slot]),
        own(sample.top_id_BNE),
        own(sample.top_log_prob_BNE),
        autoregressive.trouble(sample.finish_B[slot], count),
    )


@functools.partial(jax.jit, static_argnums=1)
def _empty(new: tuple, slots: int) -> tuple:
    """A batch of slots in which nothing runs, shaped like the row `new`."""
    memory, state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], (slots, *leaf.shape[1:])), new)
    finish_B = jnp.full((slots,), progress.LENGTH, jnp.int32)
    return memory, state.replace(progress=state.progress.replace(finish_B=finish_B))


@functools.partial(jax.jit, donate_argnums=0)
def _end(state: autoregressive.State, slot: Array) -> autoregressive.State:
    """`state` with row `slot` done."""
    now = state.progress
    return state.replace(progress=now.replace(finish_B=now.finish_B.at[slot].set(progress.LENGTH)))


@functools.partial(jax.jit, donate_argnums=0)
def _place(old: tuple, new: tuple, slot: Array) -> tuple:
    """`old` with the one row of `new` in the place of row `slot`."""
    return jax.tree.map(lambda old_B, new_B: jax.lax.dynamic_update_index_in_dim(old_B, new_B[0], slot, axis=0), old, new)
