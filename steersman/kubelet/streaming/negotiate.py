"""From an HTTP request to a connection that carries streams: which protocol, and the head of the 101.

Pure but for the objects it makes. Owns the negotiation of SPDY/3.1 and WebSocket with their subprotocols. Called by
`server`. Source: k8s.io/streaming, httpstream.Handshake and wsstream; RFC 6455 section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steersman.lib.http.messages import Headers, Request, Response
from steersman.wire import websocket
from steersman.wire.websocket import ProtocolError

SPDY = "SPDY/3.1"


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides speak. `spdy` or else WebSocket; `headers` are the 101's."""

    spdy: bool
    protocol: str
    headers: Headers


def _upgrades(request: Request, to: str) -> bool:
    connection = ",".join(request.header_all("connection")).lower()
    return "upgrade" in connection and to.lower() in (request.header("upgrade") or "").lower()


def is_websocket(request: Request) -> bool:
    """Whether the client wants a WebSocket."""
    return _upgrades(request, "websocket")


def agree(request: Request, spdy: Sequence[str], channels: Sequence[str], *, bare: bool = True) -> Agreed | Response:
    """Choose a protocol that both sides know; the refusal when there is none.

    `spdy` and `channels` are what we speak over SPDY and WebSocket; `bare`: a WebSocket may name no subprotocol.
    """
    if is_websocket(request):
        return _websocket(request, channels, bare=bare)
    return _spdy(request, spdy)


def _spdy(request: Request, known: Sequence[str]) -> Agreed | Response:
    values = request.header_all("x-stream-protocol-version")
    offered = [name.strip() for value in values for name in value.split(",") if name.strip()]
    if not offered:
        text = "unable to upgrade: header X-Stream-Protocol-Version does not exist in request"
        return refusal(400, f"{text} with {len(request.headers)} headers")
    if not _upgrades(request, SPDY):
        return refusal(400, "unable to upgrade: missing upgrade headers in request")
    chosen = next((name for name in offered if name in known), None)
    if chosen is None:
        text = f"client supports [{' '.join(offered)}], server accepts [{' '.join(known)}]"
        accepted = [("x-accepted-stream-protocol-versions", name) for name in known]
        return refusal(403, f"unable to upgrade: unable to negotiate protocol: {text}", accepted)
    head = [("connection", "Upgrade"), ("upgrade", SPDY), ("x-stream-protocol-version", chosen)]
    return Agreed(True, chosen, head)


def _websocket(request: Request, known: Sequence[str], *, bare: bool) -> Agreed | Response:
    if request.method != "GET" or request.header("sec-websocket-version") != "13":
        return refusal(
            400, "unable to upgrade: a WebSocket needs GET and version 13", [("sec-websocket-version", "13")]
        )
    try:
        accept = websocket.accept_key(request.header("sec-websocket-key") or "")
    except ProtocolError as error:
        return refusal(400, f"unable to upgrade: {error}")
    offered = request.header_all("sec-websocket-protocol")
    chosen = websocket.choose_protocol(offered, lambda name: name in known)
    if chosen is None or (not chosen and not bare):
        text = f"requested protocol(s) are not supported: [{' '.join(offered)}]; supports [{' '.join(known)}]"
        return refusal(403, text)
    head = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", accept)]
    if chosen:
        head.append(("sec-websocket-protocol", chosen))
    return Agreed(False, chosen, head)


def refusal(status: int, text: str, headers: Headers = ()) -> Response:
    """A plain-text answer, as the kubelet gives them."""
    return Response(status, [("content-type", "text/plain; charset=utf-8"), *headers], f"{text}\n".encode())
