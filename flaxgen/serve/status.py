"""What a server says of itself: its models, whether it lives, whether it is ready, and its counts."""

import prometheus_client as prometheus
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flaxgen.serve import metrics, refusal
from flaxgen.serve.refusal import Refusal


def routes(state) -> list[Route]:
    """state: of flaxgen.serve.app."""

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": cards(state)})

    async def model(request: Request) -> Response:
        for card in cards(state):
            if card["id"] == request.path_params["id"]:
                return JSONResponse(card)
        raise Refusal(404, "there is no such model; GET /v1/models lists those there are", param="model", code="model_not_found")

    async def health(request: Request) -> Response:
        status = "draining" if state.draining else "broken" if broken(state) else "ok"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    async def ready(request: Request) -> Response:
        if state.draining or broken(state) or state.models is None:
            return JSONResponse({"ready": False, "warming": state.warming if state.models is None else ""}, 503)
        return JSONResponse({"ready": True, "warming": ""})

    async def counts(request: Request) -> Response:
        return Response(metrics.text(state.models), media_type=prometheus.CONTENT_TYPE_LATEST)

    found = {"/v1/models": models, "/v1/models/{id}": model, "/health": health, "/ready": ready, "/metrics": counts}
    return [Route(path, answer, methods=["GET"]) for path, answer in found.items()]


def cards(state) -> list[dict]:
    """What there is to know of every model, and its tasks: a writer may give the embeddings too."""
    if state.models is None:
        raise refusal.warming(state.warming)
    found = {}
    for part in state.models:
        # Other models may have folders of one name, and then one name.
        which = part.id, "texts" if part.task in ("completions", "embeddings") else part.task
        new = {"id": part.id, "object": "model", "created": 0, "owned_by": "flaxgen", "task": part.task, "tasks": []}
        card = found.setdefault(which, new)
        card["tasks"].append(part.task)
        card.update({name: value for name, value in part.card().items() if name not in card})
    return list(found.values())


def broken(state) -> bool:
    """Whether the writer's model has failed for good."""
    return state.models is not None and state.models.completions is not None and bool(state.models.completions.texts.broken)
