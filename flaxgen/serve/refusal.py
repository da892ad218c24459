"""Why a request is not served, in the shape of OpenAI's errors."""

import math

from starlette.responses import JSONResponse

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """A request that is not served: an HTTP status, and what was wrong in words that quote no prompt and no key.

    param: the field at fault. code: a short name for programs. retry_after: seconds after which it may be worth asking again.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def body(self) -> dict:
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def full(seconds: float) -> Refusal:
    return Refusal(429, f"the queue is full; ask again in {math.ceil(seconds)} s", code="queue_full", retry_after=seconds)


def late() -> Refusal:
    return Refusal(503, "the request was not served within its time; ask again later, or for less", code="timeout", retry_after=5)


def draining() -> Refusal:
    return Refusal(503, "the server is stopping; ask again later", code="draining", retry_after=30)


def warming(what: str) -> Refusal:
    return Refusal(503, f"the models are getting ready ({what}); ask again soon", code="warming", retry_after=5)
