"""One thing after another in a thread of its own, with a bounded queue before it."""

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from flaxgen.serve import refusal


class Lane:
    """Runs functions of the models that serve one request at a time. `most`: requests that may wait, the running one not counted."""

    def __init__(self, name: str, most: int):
        self.most, self.waiting = most, 0
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=name)
        self._seconds = 1.0  # that a request took lately

    async def run(self, deadline: float, function: Callable[[], Any]) -> Any:
        """What the function gives; a Refusal where the queue is full, or it is not done before the deadline (of time.monotonic)."""
        found = [one async for one in self.stream(deadline, lambda: iter([function()]))]
        return found[0]

    async def stream(self, deadline: float, begin: Callable[[], Iterator]) -> AsyncIterator:
        """The pieces of the iterator that `begin` makes in the lane's thread; it is left where it stands when this one is closed."""
        if self.waiting > self.most:
            raise refusal.full(self.waiting * self._seconds)
        loop, pieces, left = asyncio.get_running_loop(), asyncio.Queue(), False

        def tell(piece: Any) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def work() -> None:
            start = time.monotonic()
            try:
                if start > deadline:
                    raise refusal.late()
                for piece in () if left else begin():
                    tell((piece, None))
                    if left:
                        break
                    if time.monotonic() > deadline:
                        raise refusal.late()
                self._seconds += 0.2 * (time.monotonic() - start - self._seconds)
            except Exception as error:
                tell((None, error))
            else:
                tell((None, StopAsyncIteration()))

        try:
            job = self._pool.submit(work)
        except RuntimeError:  # closed
            raise refusal.draining() from None
        self.waiting += 1
        # The count falls when the thread is done with the request, also where its client has left long before.
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done) if not loop.is_closed() else None)
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):  # the loop's clock is time.monotonic too
                        piece, end = await pieces.get()
                except TimeoutError:
                    raise refusal.late() from None
                if isinstance(end, StopAsyncIteration):
                    return
                if end is not None:
                    try:
                        raise end
                    finally:
                        end = None  # which keeps this frame
                yield piece
        finally:
            left = True
            job.cancel()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self) -> None:
        self.waiting -= 1
