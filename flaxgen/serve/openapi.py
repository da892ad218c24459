"""GET /openapi.json: all routes, for programs that read OpenAPI 3.1, made from the limits of requests."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import flaxgen
from flaxgen import serve
from flaxgen.serve import schemas
from flaxgen.serve.routes import WORK, Work
from flaxgen.serve.schemas import Schema

# Route -> what it is for, what it answers with by media type, and what a status of 503 says where that is no error.
LOOKS: dict[str, tuple[str, Schema, Schema | None]] = {
    "/v1/models": ("What is served", schemas.MODELS, None),
    "/v1/models/{id}": ("One model", schemas.json(schemas.MODEL), None),
    "/health": ("Whether the server lives", schemas.json(schemas.HEALTH), schemas.HEALTH),
    "/ready": ("Whether it can be asked", schemas.json(schemas.READY), schemas.READY),
    "/metrics": ("Counts, for Prometheus", {"text/plain": schemas.TEXT}, None),
    "/openapi.json": ("This description", schemas.json({"type": "object"}), None),
}


def routes(state) -> list[Route]:
    """state: of flaxgen.serve.app."""
    made = document(needs_key=state.settings.key is not None)

    async def answer(request: Request) -> Response:
        return JSONResponse(made)

    return [Route("/openapi.json", answer, methods=["GET"])]


def document(*, needs_key: bool) -> Schema:
    """The whole description."""
    paths = {route: {"post": _work(route, work)} for route, work in WORK.items()}
    paths |= {route: {"get": _look(route, *known)} for route, known in LOOKS.items()}
    if needs_key:
        paths["/health"]["get"]["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {"title": "flaxgen", "version": flaxgen.__version__, "description": serve.__doc__},
        "paths": paths,
        "components": {
            "schemas": {"Error": schemas.ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if needs_key else [],
    }


def _work(route: str, work: Work) -> Schema:
    body = {"required": True, "content": {"application/json": {"schema": work.takes.schema}}}
    return {"summary": work.summary, "operationId": _id(route), "requestBody": body, "responses": _responses(work.gives)}


def _look(route: str, summary: str, content: Schema, other: Schema | None) -> Schema:
    """other: what a status of 503 says, by default an error."""
    made = {"summary": summary, "operationId": _id(route), "responses": _responses(content)}
    if "{id}" in route:
        made["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": schemas.TEXT}]
    if other is not None:
        made["responses"]["503"] = {"description": "Not now", "content": {"application/json": {"schema": other}}}
    return made


def _responses(content: Schema) -> Schema:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": "What was asked for", "content": {media: {"schema": schema} for media, schema in content.items()}},
        "default": {"description": "Why the request is not served", "content": error},
    }


def _id(route: str) -> str:
    return "_".join(part.strip("{}").replace(".", "_") for part in route.split("/") if part)
