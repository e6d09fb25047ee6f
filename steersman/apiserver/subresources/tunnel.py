"""Handing a request on: the answer streamed back, or an upgraded connection's bytes both ways.

Owns what of a request and an answer is passed on and when both ends close. Called by `streams` and `proxy`; it speaks
no stream protocol itself. Source: apimachinery's util/proxy; RFC 9110 section 7.6.1 (hop-by-hop fields).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from steersman.api.errors import ApiError
from steersman.lib.http.messages import (
    Answer,
    ClientResponse,
    Duplex,
    Headers,
    Request,
    Response,
    Stream,
    Transport,
    Upgrade,
    Writer,
)
from steersman.lib.tasks import Tasks

_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade", "host", "content-length", "authorization", "impersonate-user", "impersonate-group", "impersonate-uid"}
)  # fmt: skip
_WHOLE = 64 * 1024  # bytes: a body up to this size is sent in one piece, with its length
_REWRITTEN = 8 * 1024 * 1024  # bytes of a page that are held to be rewritten; a larger one passes as it is
_DRAIN = 5.0  # seconds that one direction may go on after the other has ended

Rewrite = Callable[[int, list[tuple[str, str]]], Callable[[bytes], bytes] | None]
"""May change an answer's headers in place; returns what changes its body, None to leave that alone."""


def passed_on(headers: Headers) -> list[tuple[str, str]]:
    """Headers that concern both ends, not one connection, and no credentials."""
    return [(k, v) for k, v in headers if k not in _HOP and not k.startswith("impersonate-extra-")]


async def relay(
    transport: Transport,
    method: str,
    target: str,
    headers: Headers,
    body: bytes,
    *,
    rewrite: Rewrite | None = None,
    owned: bool = False,
) -> Answer:
    """One request handed on, its answer streamed back. `owned`: the transport is closed afterwards. Raises ApiError."""
    try:
        response = await transport.request(method, target, headers, body)
    except (OSError, TimeoutError, ValueError) as error:
        if owned:
            await transport.close()
        raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error
    kept = passed_on(response.headers)
    change = rewrite(response.status, kept) if rewrite is not None else None
    whole = change is not None or _is_short(response) or method == "HEAD"
    chunks = response.chunks()
    try:
        body = await _beginning(chunks, _REWRITTEN) if whole else b""
    except (OSError, TimeoutError) as error:
        await response.close()
        if owned:
            await transport.close()
        raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error
    if whole and len(body) <= _REWRITTEN:
        if owned:
            await transport.close()
        return Response(response.status, kept, change(body) if change is not None else body)

    async def run(writer: Writer) -> None:
        try:
            await _copy(response, body, chunks, writer)
        finally:
            if owned:
                await transport.close()

    return Stream(response.status, kept, run)


def _is_short(response: ClientResponse) -> bool:
    length = response.header("content-length") or ""
    return length.isdecimal() and int(length) <= _WHOLE


async def _beginning(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """The whole body, or a bit more than `most` bytes of it."""
    parts: list[bytes] = []
    size = 0
    async for part in chunks:
        parts.append(part)
        size += len(part)
        if size > most:
            break
    return b"".join(parts)


async def _copy(response: ClientResponse, body: bytes, chunks: AsyncIterator[bytes], writer: Writer) -> None:
    """Until one side is gone; a client that goes away ends the other side too."""
    gone = asyncio.Event()
    writer.on_close(gone.set)
    async with Tasks() as tasks:
        copying = tasks.spawn(_pump(body, chunks, writer), "relay")
        leaving = tasks.spawn(gone.wait(), "client")
        await asyncio.wait([copying, leaving], return_when=asyncio.FIRST_COMPLETED)
    await response.close()
    if copying.done() and not copying.cancelled() and copying.result():
        raise ConnectionResetError("the backend broke off")


async def _pump(body: bytes, chunks: AsyncIterator[bytes], writer: Writer) -> bool:
    """Pass on until the end; True when either side broke off."""
    try:
        await _pass_on(body, chunks, writer)
    except ConnectionError:
        return True
    return False


async def _pass_on(body: bytes, chunks: AsyncIterator[bytes], writer: Writer) -> None:
    if body:
        writer.write(body)
    async for chunk in chunks:
        writer.write(chunk)
        await writer.drain()


async def tunnel(transport: Transport, request: Request, target: str, *, owned: bool = False) -> Answer:
    """An upgrade handed on: after the 101 bytes pass both ways untouched. Raises ApiError."""
    headers = passed_on(request.headers)
    for name in ("connection", "upgrade"):
        headers += [(name, value) for value in request.header_all(name)]
    try:
        response, duplex = await transport.upgrade(request.method, target, headers)
    except (OSError, TimeoutError, ValueError) as error:
        raise ApiError(500, "InternalError", f"error dialing backend: {error}") from error
    if duplex is None:
        try:
            return Response(response.status, passed_on(response.headers), await response.read())
        finally:
            if owned:
                await transport.close()
    kept = [(k, v) for k, v in response.headers if k not in ("content-length", "transfer-encoding")]
    return Upgrade(kept, lambda client: splice(client, duplex))


async def splice(one: Duplex, other: Duplex) -> None:
    """Copy both ways until both have ended, or one breaks."""
    async with Tasks() as tasks:
        pumps = [tasks.spawn(_flow(one, other), "up"), tasks.spawn(_flow(other, one), "down")]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(pumps, timeout=_DRAIN)
    other.close()
    one.close()


async def _flow(source: Duplex, sink: Duplex) -> None:
    try:
        while data := await source.read():
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except ConnectionError:
        sink.close()
