"""From a connection's bytes to requests: parsing, limits, and the refusal of whatever two readers could read two ways.

Owns the parser (httptools) and the request that is arriving. Made by `connection.py` for one connection; it sends
nothing itself. Only the framing headers are looked at here, since everything here runs for every request.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Protocol

import httptools

from steersman.lib.http.head import BadRequest, check_framing
from steersman.lib.http.limits import Limits
from steersman.lib.http.messages import Peer, Request
from steersman.lib.http.streams import Incoming

_NOT_ENCODED = re.compile("%(?![0-9a-fA-F]{2})")
_ABSOLUTE = re.compile(rb"https?://[^/?#\s]+(?=[/?]|$)", re.IGNORECASE)
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "expect", "upgrade"})


def _path_of(target: bytes) -> bytes:
    """The path of a target in absolute form, which proxies send (RFC 9112, 3.2.2). Raises BadRequest."""
    found = _ABSOLUTE.match(target)
    if found is None:
        raise BadRequest(400, "the request target must be a path")
    rest = target[found.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


class Taker(Protocol):
    """Who takes the requests: the connection."""

    def wants_stream(self, request: Request) -> Incoming | None:
        """The head is whole: where the body goes as it comes, or None to collect it."""
        ...

    def invite(self) -> None:
        """The peer waits to be told that its body is welcome (Expect: 100-continue)."""
        ...

    def arrived(self, request: Request, version: str, *, keep: bool, upgrade: bool) -> None:
        """A request is whole, or its body streams."""
        ...


class RequestReader:
    """Feeds a parser and builds requests. `deadline` is when what is expected next must have come."""

    def __init__(self, limits: Limits, peer: Peer, taker: Taker, now: float) -> None:
        self._limits = limits
        self._peer = peer
        self._taker = taker
        self._parser = httptools.HttpRequestParser(self)
        self._now = now
        self._incoming: Incoming | None = None
        self._reset()
        self.deadline = now + limits.head_seconds

    def _reset(self) -> None:
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._framing: list[tuple[str, str]] = []
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._request: Request | None = None
        self._version = ""
        self.in_message = False

    def feed(self, data: bytes, now: float) -> bytes | None:
        """Read bytes. Raises BadRequest; then nothing more can be read. When a request asks for an upgrade, reading
        stops and what came behind it is returned."""
        self._now = now
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            return bytes(data[switch.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, BadRequest):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise BadRequest(400, str(error) or "malformed request") from error
        return None

    @property
    def streams(self) -> bool:
        """Whether a body is arriving in pieces."""
        return self._incoming is not None

    @property
    def in_body(self) -> bool:
        """Whether a head is whole, and its body is not."""
        return self.in_message and self._request is not None

    def restart(self) -> None:
        """Read on after an upgrade that was not made."""
        self._parser = httptools.HttpRequestParser(self)
        self._reset()

    def abandon(self, error: ConnectionError) -> None:
        """A body that streams will not come to its end."""
        if self._incoming is not None:
            self._incoming.end(error)

    # What the parser calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._reset()
        self.in_message = True
        self.deadline = self._now + self._limits.head_seconds

    def on_url(self, url: bytes) -> None:
        """Some of the target."""
        self._target += url
        if len(self._target) > self._limits.target:
            raise BadRequest(414, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field. The parser has checked its characters (RFC 9110 section 5)."""
        size = self._header_bytes = self._header_bytes + len(name) + len(value) + 4
        headers, limits = self._headers, self._limits
        if size > limits.headers or len(headers) >= limits.header_count:
            raise BadRequest(431, "the request's headers are too large")
        if self._request is not None:
            return  # a trailer: it must not pass for a header
        pair = (_name(name), value.decode("latin-1").strip())
        headers.append(pair)
        if pair[0] in _FRAMING:
            self._framing.append(pair)

    def on_headers_complete(self) -> None:
        """The head is whole: is it sound, and may the body come?"""
        limits, framing = self._limits, self._framing
        self._version = self._parser.get_http_version()
        plain = len(framing) == 1 and framing[0][0] == "host" and self._version == "1.1"
        expected = 0 if plain else check_framing(framing, self._version)
        self._request = request = self._head()
        if expected != 0:
            self.deadline = self._now + limits.body_seconds
        self._incoming = self._taker.wants_stream(request)
        if self._incoming is not None:
            request.stream = aiter(self._incoming)
            self._taker.arrived(request, self._version, keep=False, upgrade=False)
        elif expected is not None and expected > limits.body:
            raise BadRequest(413, f"the request body is larger than {limits.body} bytes")
        if not plain:
            self._invite(framing)

    def _head(self) -> Request:
        target = self._target
        if target[:1] != b"/" and target != b"*":
            target = _path_of(target)
        path, _, query = target.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("latin-1")
        if "%" in path and _NOT_ENCODED.search(path):
            raise BadRequest(400, "the request target has a broken percent-encoding")
        if method == "CONNECT":
            raise BadRequest(405, "CONNECT is not supported")
        return Request(method, path, query, self._headers, b"", self._peer)

    def _invite(self, framing: list[tuple[str, str]]) -> None:
        expectations = [value.lower() for name, value in framing if name == "expect"]
        if not expectations:
            return
        if expectations != ["100-continue"]:
            raise BadRequest(417, "only 100-continue can be expected")
        self._taker.invite()

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._body_bytes += len(body)
        if self._incoming is not None:
            if self._body_bytes > self._limits.streamed_body:
                raise BadRequest(413, "the request body is too large")
            self.deadline = self._now + self._limits.body_seconds
            self._incoming.feed(body)
            return
        if self._body_bytes > self._limits.body:
            raise BadRequest(413, f"the request body is larger than {self._limits.body} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        request, self._request = self._request, None
        self.in_message = False
        self.deadline = self._now + self._limits.idle_seconds
        if self._incoming is not None:
            self._incoming.end()
            self._incoming = None
            return
        assert request is not None
        if self._body:
            request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        parser = self._parser
        self._taker.arrived(
            request, self._version, keep=parser.should_keep_alive(), upgrade=bool(parser.should_upgrade())
        )


@lru_cache(1024)
def _name(name: bytes) -> str:
    return name.decode("latin-1").lower()
