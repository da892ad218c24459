"""Server-sent events, and work that ends when its client leaves."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from flaxgen.serve import exchange, refusal


class Events(StreamingResponse):
    """A stream of JSON objects, and [DONE] at its end. What is raised on the way, or at the deadline, the guard makes the last event of.

    leave: called at the end, however that came about, also where no event was asked for.
    """

    def __init__(self, events: AsyncIterator[dict], leave: Callable[[], None] = lambda: None):
        super().__init__(_lines(events), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._leave = leave

    async def __call__(self, scope, receive, send) -> None:
        try:
            async with contextlib.aclosing(self.body_iterator), asyncio.timeout_at(Request(scope).state.deadline):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            raise refusal.late() from None
        finally:
            self._leave()


async def _lines(events: AsyncIterator[dict]) -> AsyncIterator[str]:
    async with contextlib.aclosing(events):
        async for event in events:
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


async def unless_left(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response of `work`, which is cancelled where the client leaves before, or the deadline comes; the body must have been read."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        left = request.state.deadline - time.monotonic()
        done, _ = await asyncio.wait((working, leaving), timeout=max(0, left), return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise refusal.late()
        return await working if working.done() else Response(status_code=exchange.LEFT)
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
        # A Refusal keeps this frame, and must not be kept by it: the request's tables are megabytes, and cycles are collected late.
        del task, working, leaving


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
