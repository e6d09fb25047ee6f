"""A transport on which things go wrong, as a seed decides: what a component must survive.

Owns the faults between one client and the API server: refusals, answers that are lost after the work was done, slow and
broken and repeated watches, and the death of the client between any two writes. Called by `testing.simulation`; the
server behind it is whole. Never lies: every refusal is one that a real server gives (a lost update, overload, 410).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from steersman.lib.clock import Clock
from steersman.lib.http.messages import ClientResponse, Duplex, Headers, Transport
from steersman.lib.tasks import Tasks

_WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(slots=True)
class Odds:
    """How likely each fault is, per request or per event of a watch; times in seconds."""

    conflict: float = 0.03  # an update or patch meets another writer
    refused: float = 0.03  # overload, an internal error, a broken connection: nothing was done
    lost: float = 0.03  # done, but the answer never comes
    death: float = 0.01  # before or after a write
    gone: float = 0.01  # a watch ends with 410
    broken: float = 0.01  # a watch ends
    again: float = 0.05  # an event comes twice
    stall: float = 0.03  # a watch stops for a while
    latency: float = 0.03
    longest_stall: float = 20.0

    @classmethod
    def gaps(cls) -> Odds:
        """Watches that are long behind and then have to begin anew: much comes and goes that nobody is told of."""
        return cls(gone=0.35, stall=0.15, broken=0.05)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        for name in ("conflict", "refused", "lost", "death", "gone", "broken", "again", "stall"):
            setattr(self, name, 0.0)


@dataclass(slots=True)
class Trace:
    """What was asked and what came of it, in order; the same seed gives the same trace."""

    lines: list[str] = field(default_factory=list)
    writes: int = 0
    last_write: float = 0.0

    def add(self, now: float, who: str, method: str, target: str, what: str) -> None:
        """One more request."""
        self.lines.append(f"{now:.6f} {who} {method} {target.partition('?')[0]} {what}")
        if method in _WRITES:
            self.writes += 1
            self.last_write = now


class FaultyTransport:
    """Requests of one client, with faults. `die` is called at most once; then nothing is ever answered again."""

    def __init__(
        self,
        inner: Transport,
        *,
        who: str,
        odds: Odds,
        random: Random,
        clock: Clock,
        server: Tasks,
        trace: Trace,
        die: Callable[[], None],
    ) -> None:
        """`server`: the tasks in which requests go on whose client is gone."""
        self.dead = False
        self._inner, self._who, self._odds, self._random = inner, who, odds, random
        self._clock, self._server, self._trace, self._die = clock, server, trace, die

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | AsyncIterator[bytes] = b""
    ) -> ClientResponse:
        """Send one request, or fail to."""
        await self._clock.sleep(self._random.random() * self._odds.latency)
        if "watch=true" in target:
            return await self._watch(method, target, headers)
        if method in _WRITES:
            await self._perhaps_die(method, target)
        fault = self._fault(method)
        if fault == "refused":
            return await self._refuse(method, target)
        if fault == "conflict":
            self._note(method, target, "409")
            return _status(
                409, "Conflict", "the object has been modified; please apply your changes to the latest version"
            )
        answer = await asyncio.shield(self._server.spawn(self._inner.request(method, target, headers, body), target))
        await self._clock.sleep(self._random.random() * self._odds.latency)
        self._note(method, target, f"{answer.status}{' lost' if fault == 'lost' else ''}")
        if method in _WRITES:
            await self._perhaps_die(method, target)
        if fault == "lost":
            await self._clock.sleep(self._random.random() * 3)
            raise TimeoutError("the answer is lost")
        return answer

    def _fault(self, method: str) -> str:
        draw, odds = self._random.random(), self._odds
        for name, chance in (("refused", odds.refused), ("lost", odds.lost), ("conflict", odds.conflict)):
            if draw < chance:
                return name if name != "conflict" or method in ("PUT", "PATCH") else ""
            draw -= chance
        return ""

    async def _refuse(self, method: str, target: str) -> ClientResponse:
        which = self._random.choice(("429", "500", "504", "reset", "timeout"))
        self._note(method, target, which)
        if which == "reset":
            raise ConnectionResetError("connection reset by peer")
        if which == "timeout":
            await self._clock.sleep(self._random.random() * 3)
            raise TimeoutError("timed out")
        reason = {"429": "TooManyRequests", "500": "InternalError", "504": "Timeout"}[which]
        return _status(int(which), reason, "the server is not well")

    async def _perhaps_die(self, method: str, target: str) -> None:
        if self.dead or self._random.random() < self._odds.death:
            if not self.dead:
                self.dead = True
                self._note(method, target, "died")
                self._die()
            await asyncio.get_running_loop().create_future()

    async def _watch(self, method: str, target: str, headers: Headers) -> ClientResponse:
        if self._random.random() < self._odds.gone:
            self._note(method, target, "410")
            return _status(410, "Expired", "too old resource version")
        return _Watch(await self._inner.request(method, target, headers), self._odds, self._random, self._clock)

    def _note(self, method: str, target: str, what: str) -> None:
        self._trace.add(self._clock.monotonic(), self._who, method, target, what)

    async def upgrade(self, method: str, target: str, headers: Headers = ()) -> tuple[ClientResponse, Duplex | None]:
        """As the transport behind does it."""
        return await self._inner.upgrade(method, target, headers)

    async def close(self) -> None:
        """Nothing: the transport behind is somebody else's."""


class _Watch:
    """Implements `messages.ClientResponse` for the stream of a watch."""

    def __init__(self, inner: ClientResponse, odds: Odds, random: Random, clock: Clock) -> None:
        self.status, self.headers = inner.status, inner.headers
        self._inner, self._odds, self._random, self._clock = inner, odds, random, clock

    def header(self, name: str) -> str | None:
        return self._inner.header(name)

    async def read(self) -> bytes:
        return await self._inner.read()

    async def close(self) -> None:
        await self._inner.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._inner.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                async for out in self._event(line + b"\n"):
                    yield out

    async def _event(self, line: bytes) -> AsyncIterator[bytes]:
        """One event as it arrives: late, twice, or not at all."""
        odds, draw = self._odds, self._random.random()
        await self._clock.sleep(self._random.random() * odds.latency)
        if draw < odds.stall:
            await self._clock.sleep(self._random.random() * odds.longest_stall)
        if self._random.random() < odds.broken:
            raise ConnectionResetError("the watch broke off")
        if self._random.random() < odds.gone:
            body = _body(410, "Expired", "too old resource version")
            yield msgspec.json.encode({"type": "ERROR", "object": body}) + b"\n"
            return
        yield line
        if self._random.random() < odds.again:
            yield line


class _Answer:
    """Implements `messages.ClientResponse` for a refusal."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self._body = status, body
        self.headers: Headers = [("content-type", "application/json")]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    async def read(self) -> bytes:
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def close(self) -> None:
        pass


def _body(code: int, reason: str, message: str) -> dict[str, Any]:
    shape = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
    return shape | {"code": code, "reason": reason, "message": message}


def _status(code: int, reason: str, message: str) -> ClientResponse:
    return _Answer(code, msgspec.json.encode(_body(code, reason, message)))
