"""Requests with something wrong with them, by number: a good one, changed by one to three rules of a small grammar."""

import dataclasses
import json
import random
from collections.abc import Callable

from tests import wires

GOOD = {
    "/v1/completions": {"prompt": wires.SECRET, "max_tokens": 1},
    "/v1/embeddings": {"input": wires.SECRET},
    "/v1/couplets": {"line": "天地风雨花"},
    "/v1/reading": {"question": "天地？", "passages": ["天地玄黄，" + wires.SECRET]},
    "/v1/images": {"samples": 1, "moves": 1},
}
OTHERS = ("/", "/health", "/ready", "/metrics", "/v1/models", "/openapi.json", "/page/app.js", "/favicon.ico")
TLS = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(160))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00"


@dataclasses.dataclass
class Draft:
    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    chunks: int = 0  # of so many bytes is the body sent; 0: whole
    end: bytes = b"\r\n"

    def put(self, name: bytes, value: bytes) -> None:
        self.headers = [one for one in self.headers if one[0] != name] + [(name, value)]

    def drop(self, name: bytes) -> None:
        self.headers = [one for one in self.headers if one[0] != name]

    @property
    def raw(self) -> bytes:
        if self.chunks:
            pieces = [self.body[at : at + self.chunks] for at in range(0, len(self.body), self.chunks)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        else:
            body = self.body
        lines = [b" ".join((self.method, self.target, self.version)), *(name + b": " + value for name, value in self.headers), b"", b""]
        return self.end.join(lines) + body


def draft(luck: random.Random, key: str) -> Draft:
    headers = [(b"Host", b"localhost"), (b"Authorization", b"Bearer " + key.encode())]
    if luck.random() < 0.2:
        return Draft(b"GET", luck.choice(OTHERS).encode(), b"HTTP/1.1", headers, b"")
    target = luck.choice(list(GOOD))
    body = json.dumps(GOOD[target]).encode()
    headers += [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body))]
    return Draft(b"POST", target.encode(), b"HTTP/1.1", headers, body)


def malformed(number: int, key: str) -> bytes:
    luck = random.Random(number)
    if luck.random() < 0.08:
        return luck.choice((TLS, PREFACE, b"\r\n" * 9, luck.randbytes(luck.randint(1, 300)), b"GET\r\n\r\n", b"\0" * 50, b"G" * 30_000))
    made = draft(luck, key)
    for _ in range(luck.choice((1, 1, 2, 3))):
        luck.choice((_line, _header, _framing, _content, _content, _value, _value))(made, luck)
    raw = made.raw
    match luck.randrange(12):
        case 0:
            raw = raw[: luck.randrange(1, len(raw) + 1)]
        case 1:
            where = luck.randrange(len(raw))
            raw = raw[:where] + luck.randbytes(luck.randint(1, 4)) + raw[where + 1 :]
        case 2:
            raw += luck.choice((TLS, b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\nxyz\r\n\r\n", made.raw))
    return raw


def _line(made: Draft, luck: random.Random) -> None:
    match luck.randrange(4):
        case 0:
            made.method = luck.choice(
                (b"BREW", b"get", b"", b"P" * 99, b"OPTIONS", b"PUT", b"DELETE", b"HEAD", b"TRACE", b"CONNECT", b"P\0ST")
            )
        case 1:
            odd = (
                b"/%zz",
                b"//health",
                b"/../../etc/passwd",
                b"/page/../../settings.py",
                b"/page/%2e%2e/run.py",
                b"*",
                b"health",
                b"/\xff",
            )
            long = (b"/" + b"a" * 5000, made.target + b"?" + b"q" * 5000, b"http://evil.example/v1/models", made.target + b"/", b"/a b")
            made.target = luck.choice(odd + long)
        case 2:
            made.version = luck.choice((b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"", b"HTP/1.1", b"HTTP/1.1.1", b"HTTP/11"))
        case 3:
            made.end = luck.choice((b"\n", b"\r", b"\r\n ", b"\n\r"))


def _header(made: Draft, luck: random.Random) -> None:
    odd: list[Callable[[], None]] = [
        lambda: made.drop(b"Host"),
        lambda: made.headers.append((b"Host", b"localhost")),
        lambda: made.put(
            b"Host", luck.choice((b"evil.example", b"", b"localhost:http", b"[::1", b"127.0.0.1.evil.example", b"\xff", b"a@b"))
        ),
        lambda: made.put(b"Authorization", luck.choice((b"", b"Bearer", b"Basic eDp5", b"Bearer \xe9\xff", b"Bearer  x"))),
        lambda: made.headers.append((b"Authorization", b"Bearer x")),
        lambda: made.headers.append((b"X" * luck.choice((1, 300)), b"y" * luck.choice((1, 20_000, 60_000)))),
        lambda: made.headers.extend((b"X-%d" % one, b"y") for one in range(200)),
        lambda: made.headers.append((b"X-\x00", b"y")),
        lambda: made.headers.append((b"X", b"a\x00b")),
        lambda: made.headers.append((b"no colon", b"")),
        lambda: made.headers.append((b"Upgrade", luck.choice((b"websocket", b"h2c")))),
        lambda: made.headers.append((b"Connection", luck.choice((b"upgrade", b"close", b"keep-alive, x", b",,")))),
        lambda: made.headers.append((b"Expect", luck.choice((b"100-continue", b"tea")))),
        lambda: made.headers.append((b"Range", b"bytes=9-1")),
        lambda: made.headers.append((b"Origin", b"https://evil.example")),
        lambda: made.headers.append((b"Cookie", b"a" * 5000)),
    ]
    luck.choice(odd)()


def _framing(made: Draft, luck: random.Random) -> None:
    match luck.randrange(5):
        case 0:
            size = len(made.body)
            wrong = (
                b"-1",
                b"+5",
                b"1e3",
                b"",
                b"9" * 30,
                b"0",
                b"%d" % (size + 1),
                b"%d" % max(size - 1, 0),
                b"1000000000",
                b"5, 5",
                b"\xb2",
            )
            made.put(b"Content-Length", luck.choice(wrong))
        case 1:
            made.drop(b"Content-Length")
        case 2:
            made.headers.append((b"Content-Length", b"%d" % luck.choice((len(made.body), 7))))
        case 3:
            made.drop(b"Content-Length")
            made.put(b"Transfer-Encoding", luck.choice((b"chunked", b"chunked", b"gzip", b"chunked, gzip", b"identity", b"xchunked")))
            made.chunks = luck.choice((1, 6, 1000))
        case 4:
            made.put(b"Transfer-Encoding", b"chunked")
            made.body = luck.choice(
                (b"zz\r\n", b"-1\r\n", b"ffffffffffffffffffff\r\nx", b"5\r\nabcdefg\r\n0\r\n\r\n", b"0\r\nX: " + b"y" * 30_000)
            )


def _content(made: Draft, luck: random.Random) -> None:
    if luck.random() < 0.3:
        kinds = (
            b"text/plain",
            b"application/json; charset=utf-16",
            b"application/json; charset=gbk",
            b"",
            b"multipart/form-data; boundary=x",
        )
        made.put(*luck.choice([(b"Content-Type", kind) for kind in kinds] + [(b"Content-Encoding", b"gzip")]))
        return
    text = made.body.decode("utf-8", "replace")
    bodies = (
        b"",
        b"NaN",
        b'{"temperature": NaN, "prompt": "x"}',
        b'{"temperature": -Infinity, "prompt": "x"}',
        b'{"temperature": 1e400, "prompt": "x"}',
        b'{"seed": ' + b"9" * luck.choice((30, 99, 5000)) + b', "prompt": "x"}',
        b"[" * luck.choice((17, 1000, 200_000)),
        b'{"a":' * 50_000,
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "\\ud800", "line": "\\udfff"}',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\\u0000\x00"}',
        b'\xef\xbb\xbf{"prompt": "x"}',
        text.encode("utf-16"),
        text.encode()[: luck.randrange(1, max(len(text), 2))],
        b'"' + b'\\"' * 100_000,
        b'{"prompt": "' + b"a" * 40_000 + b'"}',
        b" " * luck.choice((10, 2_000_000)),
        b"[]",
        b"3",
        b'"text"',
        b"null",
        b"{} {}",
        b"{'prompt': 1}",
    )
    made.body = luck.choice(bodies)
    made.put(b"Content-Length", b"%d" % len(made.body))


def _value(made: Draft, luck: random.Random) -> None:
    """One field of the body becomes something else, or a field comes that there is not."""
    try:
        fields = json.loads(made.body)
    except (ValueError, RecursionError):
        return
    if not isinstance(fields, dict):
        return
    names = [
        *fields,
        "n",
        "stream",
        "stop",
        "logprobs",
        "seed",
        "logit_bias",
        "model",
        "regex",
        "rules",
        "beams",
        "label",
        wires.SECRET,
        "__proto__",
    ]
    odd = (
        None,
        True,
        -1,
        0,
        2**31,
        2**63,
        10**99,
        1e308,
        0.5,
        "",
        "1",
        "a" * 70,
        "\0",
        "\ud83d\ude00",
        [],
        [[]],
        [None],
        {},
        {"a": {"b": 1}},
        ["x"] * 99,
    )
    fields[luck.choice(names)] = luck.choice(odd)
    made.body = json.dumps(fields).encode()
    made.put(b"Content-Length", b"%d" % len(made.body))
