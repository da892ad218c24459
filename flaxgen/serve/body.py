"""The JSON body of a request, from a client that may mean harm."""

import asyncio
import json
import re
from typing import Any, NoReturn

import numpy as np
from starlette.requests import Request

from flaxgen.serve.refusal import Refusal
from flaxgen.serve.settings import Settings

LARGE = 1 << 16  # bytes; what is larger is parsed beside the event loop
DIGITS = 100

# Possessive: a string that never ends is read once, not once from each of its quotes.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NUMBER = re.compile(rb"[-+.0-9eE]{%d,}" % (DIGITS + 1))
_STEPS = bytes({ord("["): 1, ord("{"): 1, ord("]"): 255, ord("}"): 255}.get(byte, 0) for byte in range(256))


async def read(request: Request, settings: Settings) -> Any:
    """What the body says; a Refusal where it is too large, too slow, or not one plain JSON value in UTF-8."""
    _check_type(request)
    try:
        async with asyncio.timeout(settings.body_seconds):
            body = await _received(request, settings.body_bytes)
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {settings.body_seconds:g} s; send it faster", code="slow_body") from None
    if len(body) < LARGE:
        return parsed(body, settings.depth)
    return await asyncio.to_thread(parsed, body, settings.depth)


def parsed(body: bytes, depth: int) -> Any:
    """The JSON value of the bytes; a Refusal where there is none, or one on which two readers might differ."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _wrong(f"byte {error.start} of the body is not UTF-8; send JSON in UTF-8") from None
    bare = _STRING.sub(b"", body)
    deepest = np.frombuffer(bare.translate(_STEPS), np.int8).cumsum(dtype=np.int32).max(initial=0)
    if deepest > depth:
        raise _wrong(f"the body nests {deepest} deep; wanted at most {depth}", "too_deep")
    if number := _NUMBER.search(bare):
        raise _wrong(f"the body has a number of {len(number[0])} characters; wanted at most {DIGITS}")
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        what = error.msg.split(":")[0].removesuffix(" at")
        raise _wrong(f"the body is not JSON: {what} at character {error.pos} of {len(text)}") from None
    if b"\\u" in body:
        _check_surrogates(value)
    return value


def _check_type(request: Request) -> None:
    found = request.headers.getlist("content-type")
    media, *parameters = (part.strip().lower() for part in found[0].split(";")) if len(found) == 1 else ("",)
    if media != "application/json":
        raise Refusal(415, "wanted one header Content-Type: application/json", code="content_type")
    if any(part.startswith("charset=") and part[8:].strip('"') not in ("utf-8", "utf8") for part in parameters):
        raise Refusal(415, "the body's charset is not UTF-8; send JSON in UTF-8", code="charset")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed; send it as it is", code="content_encoding")


async def _received(request: Request, most: int) -> bytes:
    if int(request.headers.get("content-length", 0)) > most:
        raise _large(most)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise _large(most)
    return bytes(body)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _wrong("an object of the body has the same field twice; send each once", "repeated_field")
    return found


def _no_number(_: str) -> NoReturn:
    raise _wrong("the body has NaN or Infinity, which JSON does not know; wanted numbers")


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _wrong("a text of the body has half of a surrogate pair; send whole characters", "surrogate") from None


def _large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than {most} bytes", code="too_large")


def _wrong(message: str, code: str = "not_json") -> Refusal:
    return Refusal(400, message, code=code)
