"""The way to an etcd cluster: one connection to one member, another member when it fails.

Owns endpoints, TLS and deadlines. Called by `etcd/store.py`. A read is tried on every member; a write
whose answer is lost is not repeated, since it may have happened.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from steersman.lib.grpc.channel import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNKNOWN,
    Channel,
    GrpcError,
)
from steersman.store.interface import StoreUnavailable

log = logging.getLogger(__name__)

_CONNECT = 2.0  # seconds
_ANSWER = 5.0  # seconds; etcd itself gives up a proposal after about 7
_BROKEN = {CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE}


@dataclass(frozen=True)
class Servers:
    """Where etcd is: URLs of its members, and files for TLS."""

    urls: Sequence[str]
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def addresses(self) -> list[tuple[str, int, bool]]:
        """Host, port and whether to use TLS, of each member. Raises ValueError for what is no such URL."""
        found = []
        for url in self.urls:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
                raise ValueError(f"{url!r} is not the URL of an etcd server, such as https://127.0.0.1:2379")
            found.append((parts.hostname, parts.port or 2379, parts.scheme == "https"))
        if not found:
            raise ValueError("no etcd server is named")
        return found

    def tls(self) -> ssl.SSLContext:
        """Raises OSError or ssl.SSLError naming what is wrong with the files."""
        context = ssl.create_default_context(cafile=self.authority)
        context.set_alpn_protocols(["h2"])
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


class Link:
    """Calls to whichever member answers."""

    def __init__(self, servers: Servers) -> None:
        self._addresses = servers.addresses()
        self._tls = servers.tls() if any(secure for _, _, secure in self._addresses) else None
        self._at = 0
        self._channel: Channel | None = None
        self._connecting = asyncio.Lock()
        self.closed = False

    async def channel(self) -> Channel:
        """The connection in use, or a new one to the first member that takes it. Raises StoreUnavailable."""
        async with self._connecting:
            if self.closed:
                raise StoreUnavailable("the store is closed")
            if self._channel is not None and self._channel.closed is None:
                return self._channel
            problems: list[str] = []
            for _ in self._addresses:
                host, port, secure = self._addresses[self._at]
                try:
                    async with asyncio.timeout(_CONNECT):
                        self._channel = await Channel.connect(host, port, self._tls if secure else None)
                    return self._channel
                except (OSError, TimeoutError) as error:
                    problems.append(f"{host}:{port}: {error or 'no answer'}")
                    self._at = (self._at + 1) % len(self._addresses)
            raise StoreUnavailable(f"cannot reach etcd: {'; '.join(problems)}")

    def drop(self, channel: Channel, why: str) -> None:
        """The member behind `channel` does not do its work: turn to the next."""
        if channel is self._channel:
            log.warning("etcd member %s:%s: %s", *self._addresses[self._at][:2], why)
            self._channel = None
            self._at = (self._at + 1) % len(self._addresses)
            channel.close(why)

    async def read(self, path: str, message: bytes) -> bytes:
        """A call that changes nothing, tried on each member in turn. Raises StoreUnavailable, GrpcError."""
        problem: StoreUnavailable | None = None
        for _ in self._addresses:
            try:
                return await self.call(path, message)
            except StoreUnavailable as error:
                problem = error
        assert problem is not None
        raise problem

    async def call(self, path: str, message: bytes) -> bytes:
        """One attempt. Raises StoreUnavailable when the outcome is unknown, GrpcError for what etcd refuses."""
        channel = await self.channel()
        try:
            async with asyncio.timeout(_ANSWER):
                return await channel.unary(path, message)
        except TimeoutError:
            self.drop(channel, f"no answer within {_ANSWER:g} s")
            raise StoreUnavailable(f"etcd did not answer within {_ANSWER:g} s") from None
        except GrpcError as error:
            if error.code in _BROKEN:
                self.drop(channel, error.message)
            elif error.code != RESOURCE_EXHAUSTED:
                raise
            raise StoreUnavailable(f"etcd: {error.message}") from error

    def close(self) -> None:
        """Drop the connection; later calls raise StoreUnavailable."""
        self.closed = True
        if self._channel is not None:
            self._channel.close("the store is closed")
