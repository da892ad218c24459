"""The routes of a server, and what stands before all of them."""

import pathlib
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flaxgen.serve import body, guard, limits, openapi, refusal, status
from flaxgen.serve.models import Models
from flaxgen.serve.refusal import Refusal
from flaxgen.serve.routes import WORK
from flaxgen.serve.settings import Settings

PAGE = pathlib.Path(__file__).parent / "page"


class State:
    """What changes while a server runs."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.models: Models | None = None  # once they are warm
        self.warming = "starting"
        self.draining = False
        self.in_flight = 0  # requests that have not been answered to the end


def work(state: State, route: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one route of WORK."""
    task, option, _, takes, _ = WORK[route]

    async def answer(request: Request) -> Response:
        request.state.deadline = time.monotonic() + state.settings.timeout
        if state.draining:
            raise refusal.draining()
        if state.models is None:
            raise refusal.warming(state.warming)
        wishes = limits.checked(takes, await body.read(request, state.settings))
        part = getattr(state.models, task)
        if part is None:
            advice = f"no model for {route} is loaded; start the server with flaxgen serve {option} FOLDER"
            raise Refusal(404, advice, code="no_model")
        if wishes["model"] not in (None, part.id):
            raise Refusal(404, f"model: there is no such model for {route}, there is {part.id!r}", param="model", code="model_not_found")
        return await part.answer(request, wishes)

    return answer


def application(settings: Settings, state: State) -> guard.Guard:
    """The ASGI application; `state.models` may come later."""
    routes = [
        *(Route(route, work(state, route), methods=["POST"]) for route in WORK),
        *status.routes(state),
        *openapi.routes(state),
        Route("/", lambda request: FileResponse(PAGE / "index.html"), methods=["GET"]),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    return guard.Guard(Starlette(routes=routes), settings, state)
