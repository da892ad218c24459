"""What every request passes on its way in and every answer on its way out, around the application."""

import asyncio
import hmac
import logging
import re

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from flaxgen.serve import exchange, refusal
from flaxgen.serve.exchange import values
from flaxgen.serve.refusal import Refusal
from flaxgen.serve.settings import Settings

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
# What a page may send besides, and we do not read: clients name themselves by it.
NAMES = re.compile(rb"user-agent|openai-(?:organization|project)|x-stainless-[a-z-]{1,40}")
OPEN = frozenset(("/", "/favicon.ico", "/health"))  # and what lies under /page/; these want no key
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
TARGET_BYTES, HEADER_FIELDS = 4096, 100

log = logging.getLogger("flaxgen.serve")


class Guard:
    """ASGI middleware: checks of hosts, origins, keys and sizes; headers, a line in the log, and every error in the shape of OpenAI's.

    state: has `draining`; connections end with the answer that is given then.
    """

    def __init__(self, app: Starlette, settings: Settings, state):
        self.app, self.settings, self.state = app, settings, state
        app.router.redirect_slashes = False  # a redirection would quote the request
        self._origins = frozenset(origin.encode() for origin in settings.allow_origins)
        self._key = None if settings.key is None else b"Bearer " + settings.key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self.app  # with it, the router raises what it refuses
        # The page's files are small, and Starlette would refuse a part of them in words of its own.
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
        place = _place(scope)
        passing = exchange.Exchange(scope, receive, send, self._always(scope))
        self.state.in_flight += 1
        try:
            await self._answer(scope, passing)
        finally:
            self.state.in_flight -= 1
            passing.close(_method(scope), place)

    async def _answer(self, scope: Scope, passing: exchange.Exchange) -> None:
        try:
            if answer := self._checked(scope):
                await answer(scope, passing.receive, passing.send)
            else:
                # Not the application, whose own middleware would answer errors in words of its own.
                await self.app.router(scope, passing.receive, passing.send)
        except Refusal as error:
            await passing.refuse(error)
        except HTTPException as error:
            await passing.refuse(_told(error), error.headers)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the server ends, and this request has had its time
            await passing.refuse(refusal.draining())
        except Exception as error:
            last = error.__traceback__
            while last.tb_next is not None:
                last = last.tb_next
            # The message of an error may hold a prompt; its kind and place do not.
            log.error("%s %s in %s:%d", passing.id, type(error).__name__, last.tb_frame.f_globals.get("__name__"), last.tb_lineno)
            await passing.refuse(Refusal(500, "the server failed; it is no fault of the request", code="internal"))

    def _checked(self, scope: Scope) -> Response | None:
        """The answer to a preflight; a Refusal where the request may not pass."""
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Refusal(505, "wanted HTTP/1.1", code="http_version")
        self._check_host(scope)
        if self._allowed(scope) and scope["method"] == "OPTIONS" and values(scope, b"access-control-request-method"):
            return Response(status_code=204)
        self._check_key(scope)
        _check_sizes(scope, self.settings)
        return None

    def _check_host(self, scope: Scope) -> None:
        # Another site's name may be made to point here, and its pages would be let in by the browser: only names we know are served.
        found = values(scope, b"host")
        if len(found) != 1:
            raise Refusal(400, f"got {len(found)} headers Host, wanted one", code="host")
        name = re.fullmatch(rb"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", found[0])
        if name is None or name[1].decode("latin-1").lower() not in self.settings.hosts:
            what = "this server does not answer for the host that the request names; ask for localhost, or start it with --allow-host NAME"
            raise Refusal(403, what, code="host")

    def _check_key(self, scope: Scope) -> None:
        if self._key is None or scope["path"] in OPEN or scope["path"].startswith("/page/"):
            return
        found = values(scope, b"authorization")
        if len(found) != 1 or not hmac.compare_digest(found[0], self._key):
            raise Refusal(401, "wanted one header Authorization: Bearer KEY with the key of this server", code="invalid_api_key")

    def _allowed(self, scope: Scope) -> bool:
        found = values(scope, b"origin")
        return len(found) == 1 and found[0] in self._origins

    def _always(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """The headers that every answer to the request has."""
        found = list(HEADERS)
        if self._origins:
            found.append((b"vary", b"Origin"))
        if self._allowed(scope):
            found += [
                (b"access-control-allow-origin", values(scope, b"origin")[0]),
                (b"access-control-allow-methods", b"GET, POST"),
                (b"access-control-allow-headers", b", ".join((b"Authorization", b"Content-Type", *_asked_names(scope)))),
                (b"access-control-expose-headers", b"Retry-After, X-Request-Id"),
                (b"access-control-max-age", b"600"),
            ]
        if self.state.draining:
            found.append((b"connection", b"close"))
        return found


def _told(error: HTTPException) -> Refusal:
    """What Starlette refuses by itself, in the shape of all errors."""
    words = {
        404: "there is nothing at this address; GET /openapi.json lists what there is",
        405: "this address does not take this method; see the header Allow",
    }
    return Refusal(error.status_code, words.get(error.status_code, "the request cannot be served"))


def _check_sizes(scope: Scope, settings: Settings) -> None:
    target = len(scope["raw_path"]) + len(scope["query_string"])
    if target > TARGET_BYTES:
        raise Refusal(414, f"the address has {target} bytes; wanted at most {TARGET_BYTES}", code="address_too_long")
    fields, size = len(scope["headers"]), sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if fields > HEADER_FIELDS or size > settings.header_bytes:
        wanted = f"wanted at most {HEADER_FIELDS} of {settings.header_bytes} bytes together"
        raise Refusal(431, f"got {fields} headers of {size} bytes; {wanted}", code="headers_too_large")
    if values(scope, b"transfer-encoding") and values(scope, b"content-length"):
        # Readers differ about where such a body ends, and what follows it could pass as a request of somebody else.
        raise Refusal(400, "got both Content-Length and Transfer-Encoding, wanted one of them", code="framing")


def _asked_names(scope: Scope) -> list[bytes]:
    """Those of the headers of which a preflight asks that do no harm."""
    found = b",".join(values(scope, b"access-control-request-headers")).lower().split(b",")
    return sorted({name.strip() for name in found if NAMES.fullmatch(name.strip())})


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else "(other)"


def _place(scope: Scope) -> str:
    """The route of the request as it stands in the program, since an address that is none may hold anything."""
    for route in scope["app"].routes:
        if route.matches(scope)[0] is not Match.NONE:
            return route.path
    return "(unknown)"
