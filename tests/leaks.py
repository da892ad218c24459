"""What a server holds: rows, tickets, requests, connections, tasks, files and threads."""

import asyncio
import os
import threading
import time

from tests import serving


def held(served: serving.Served) -> dict[str, int]:
    """What has to be nothing once every client has gone."""
    texts = served.models.completions.texts
    return {
        "rows that wait or run": texts.live,
        "rows in slots": texts.running,
        "rows before the engine": sum(len(one.queue) for one in texts._engine.engines),
        "tickets": len(texts._tickets),
        "messages": len(texts._inbox),
        "requests": served.state.in_flight,
        "connections": len(served.server.server_state.connections),
        "requests of uvicorn": len(served.server.server_state.tasks),
    }


def resources(served: serving.Served) -> dict[str, int]:
    """What has to be as much as before."""
    loop = served.server.servers[0].get_loop()
    # The pools of asyncio and anyio are bounded, and grow with the first requests that come at once.
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith(("asyncio_", "AnyIO worker"))]
    return {"tasks": len(asyncio.all_tasks(loop)), "files": len(os.listdir("/proc/self/fd")), "threads": len(threads)}


def check_nothing_left(served: serving.Served, before: dict[str, int] | None = None, *, seconds: float = 5) -> None:
    """AssertionError where something is held, or more than `before`, `seconds` after the last client has gone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left = {name: count for name, count in held(served).items() if count}
        grown = {name: (before[name], count) for name, count in resources(served).items() if before and count > before[name]}
        if not left and not grown:
            return
        time.sleep(0.02)
    raise AssertionError(f"left: {left}, grown: {grown}")
