"""`flaxgen serve` with a model that sleeps for as many seconds as the temperature of a request, for tests of its signals.

Run as  python -m tests.sleeping SECONDS [options of flaxgen serve]; the seconds are those that the model takes to get ready.
"""

import asyncio
import sys
import time
import types

from starlette.responses import JSONResponse

from flaxgen import cli
from flaxgen.serve import events, models


class Sleeper:
    task, id = "completions", "sleeper"
    asleep = 0
    texts = types.SimpleNamespace(broken=None, live=0, running=0, waiting=0, slots=1)

    def card(self) -> dict:
        return {"asleep": self.asleep}

    async def answer(self, request, wishes):
        self.asleep += 1
        if wishes["stream"]:
            return events.Events(self._dreams(wishes["temperature"]))
        await asyncio.sleep(wishes["temperature"])
        return JSONResponse({"slept": wishes["temperature"]})

    async def _dreams(self, seconds: float):
        for _ in range(round(seconds * 10)):
            await asyncio.sleep(0.1)
            yield {"slept": 0.1}

    def close(self) -> None:
        pass


def load(settings, tell) -> models.Models:
    tell("beds")
    time.sleep(float(seconds))
    return models.Models([Sleeper()])


if __name__ == "__main__":
    seconds, *sys.argv[1:] = sys.argv[1:]
    sys.argv.insert(1, "serve")
    models.Models.load = load
    cli.main()
