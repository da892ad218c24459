"""POST /v1/couplets: lower lines that answer an upper one."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flaxgen import couplets
from flaxgen.serve import events, lane, metrics
from flaxgen.serve.refusal import Refusal
from flaxgen.serve.settings import Settings
from flaxgen.text import characters

LONGEST = 32  # characters: a line of every length is read by a program of its own, which takes a third of a second to compile


class Couplets:
    """Lower lines by flaxgen.Couplets."""

    task = "couplets"

    def __init__(self, settings: Settings, writer: couplets.Couplets, id: str):
        self.id, self._writer = id, writer
        self.lane = lane.Lane(self.task, settings.queue)

    def card(self) -> dict[str, Any]:
        return {"characters": LONGEST}

    def warm(self, tell: Callable[[str], None]) -> None:
        for length in range(1, LONGEST + 1):
            tell(f"couplets of {length} characters")
            self._writer.log_probs(["，" * length])

    def close(self) -> None:
        self.lane.close()

    async def answer(self, request: Request, wishes: dict[str, Any]) -> Response:
        found = metrics.waited(self.task, lambda: self._found(wishes))
        return await events.unless_left(request, self._answer(self.lane.run(request.state.deadline, found)))

    async def _answer(self, finding) -> Response:
        return JSONResponse({"object": "couplets", "model": self.id, "couplets": [_told(one) for one in await finding]})

    def _found(self, wishes: dict[str, Any]) -> list[couplets.Couplet]:
        line = wishes["line"]
        length = sum(not one.isspace() and not characters.is_dropped(one) for one in line)
        if length > LONGEST:
            raise _wrong(f"got {length} characters, wanted at most {LONGEST}; give its clauses one by one")
        rules = couplets.Rules(**wishes["rules"] or {})
        (found,) = self._writer.each([line], best=wishes["best"], rules=rules, alternatives=wishes["alternatives"])
        if isinstance(found, ValueError):
            raise _wrong(_without(line, str(found)))
        return found


def _told(one: couplets.Couplet) -> dict[str, Any]:
    places = [[{"text": text, "probability": probability} for text, probability in place] for place in one.alternatives]
    return {"upper": one.upper, "text": one.text, "score": one.score, "alternatives": places, "unknown": one.unknown}


def _without(line: str, message: str) -> str:
    """The message without the line that it quotes: errors tell nobody what was asked."""
    shown = "".join(one for one in line if not one.isspace() and not characters.is_dropped(one))
    for quoted in (f"{line!r:.40}", repr(shown)):
        message = message.replace(quoted, "it")
    return message


def _wrong(message: str) -> Refusal:
    return Refusal(400, f"line: {message}", param="line", code="no_answer")
