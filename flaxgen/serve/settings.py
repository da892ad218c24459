"""What a server is told when it starts."""

import dataclasses
import ipaddress
import re


@dataclasses.dataclass(frozen=True)
class Settings:
    """See `flaxgen serve --help`. Seconds, bytes and counts; folders are those of flaxgen.save, None for the bundled models."""

    model: str | None = None
    couplets: str | None = None
    reader: str | None = None
    painter: str | None = None
    encoder: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    slots: int = 8
    queue: int = 64
    timeout: float = 120.0  # from the arrival of a request to its last byte
    drain: float = 30.0
    body_bytes: int = 1 << 20
    header_bytes: int = 16 << 10
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    write_seconds: float = 20.0  # a client that reads nothing for so long is cut off
    depth: int = 16  # of JSON
    connections: int = 512

    def __post_init__(self):
        for name in ("slots", "queue", "connections", "depth", "body_bytes", "header_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: wanted at least 1")
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port={self.port}: wanted 0 (any free one) to 65535")
        for name in ("timeout", "drain", "header_seconds", "body_seconds", "write_seconds"):
            if not 0 < getattr(self, name) < 1e6:
                raise ValueError(f"{name}={getattr(self, name)}: wanted a number of seconds above 0")
        for host in self.allow_hosts:
            if ":" in host and not _is_address(host.strip("[]")):
                raise ValueError(f"allow_hosts: got {host!r}, wanted a name without a scheme and a port, such as models.example.org")
        for origin in self.allow_origins:
            if not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"allow_origins: got {origin!r}, wanted a scheme and a host without a path, such as https://example.org")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and len(self.key) >= 8 and " " not in self.key):
            raise ValueError(f"the key has {len(self.key)} characters; wanted at least 8 ASCII characters without blanks")
        if self.key is None and not _is_loopback(self.host):
            raise ValueError(
                f"host={self.host!r} without a key: whoever reaches the machine could use it; set FLAXGEN_KEY, or leave the host"
            )

    @property
    def hosts(self) -> frozenset[str]:
        """The names, without ports, under which clients may address the server."""
        everywhere = _is_address(self.host) and ipaddress.ip_address(self.host).is_unspecified  # which nobody is called
        found = ("localhost", "127.0.0.1", "::1", *(() if everywhere else (self.host,)), *self.allow_hosts)
        return frozenset(f"[{host}]" if ":" in host and not host.startswith("[") else host.lower() for host in found)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
