"""The server's limits, as one value: sizes in bytes, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer to what cannot be a request."""

    status: int
    media: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """Defaults are kube-apiserver's where it has them: 3 MiB bodies, 1 MiB of headers is Go's; ours is tighter."""

    body: int = 3 * 1024 * 1024
    streamed_body: int = 1 << 40
    target: int = 64 * 1024
    headers: int = 128 * 1024
    header_count: int = 200
    head_seconds: float = 15.0  # from the first byte of a request to the end of its head
    body_seconds: float = 60.0  # a body that arrives, however slowly, must be whole by then
    idle_seconds: float = 300.0  # between requests
    connections: int = 20_000
    pipelined: int = 64  # requests read ahead on one connection
    write_buffer: int = 16 * 1024 * 1024  # a reader that leaves more than this unread is dropped
    drain_seconds: float = 5.0
    refusals: Mapping[int, Refusal] = field(default_factory=dict)  # in place of the server's own, by their status
