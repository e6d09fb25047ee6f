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
from steersman.lib.tasks import Tasks
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


class Unreachable(StoreUnavailable):
    """No member takes a connection."""


class Link:
    """Calls to whichever member answers."""

    def __init__(self, servers: Servers) -> None:
        self._addresses = servers.addresses()
        self._tls = servers.tls() if any(secure for _, _, secure in self._addresses) else None
        self._at = 0
        self._channel: Channel | None = None
        self._connecting: asyncio.Task[Channel | str] | None = None
        self._tasks = Tasks()
        self.closed = False

    async def channel(self) -> Channel:
        """The connection in use, or a new one to the first member that takes it. Raises StoreUnavailable."""
        if self.closed:
            raise StoreUnavailable("the store is closed")
        if self._channel is not None and self._channel.closed is None:
            return self._channel
        if self._connecting is None:  # whoever comes meanwhile shares the attempt, and its failure
            self._connecting = self._tasks.spawn(self._connect(), "etcd connection")
        found = await asyncio.shield(self._connecting)
        if isinstance(found, str):
            raise Unreachable(found)
        return found

    async def _connect(self) -> Channel | str:
        """A new connection, or why there is none."""
        problems: list[str] = []
        try:
            for _ in self._addresses:
                host, port, secure = self._addresses[self._at]
                try:
                    async with asyncio.timeout(_CONNECT):
                        self._channel = await Channel.connect(host, port, self._tls if secure else None)
                    return self._channel
                except (OSError, TimeoutError) as error:
                    problems.append(f"{host}:{port}: {error or 'no answer'}")
                    self._at = (self._at + 1) % len(self._addresses)
            return f"cannot reach etcd: {'; '.join(problems)}"
        except asyncio.CancelledError:  # by `close` alone
            return "the store is closed"
        finally:
            self._connecting = None

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
            except Unreachable:
                raise
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
        if self._connecting is not None:
            self._connecting.cancel()
        if self._channel is not None:
            self._channel.close("the store is closed")
