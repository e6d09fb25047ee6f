"""One extension API server: requests handed on to the Service that an APIService names.

Owns the connections to it, who the front proxy says is asking, and how long an answer may take. Called by `app.py` for
requests and by the aggregator for its own questions. It does not decide whether the server is available. Source:
kube-aggregator's pkg/apiserver/handler_proxy.go; client-go's transport.SetAuthProxyHeaders.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver import serviceref
from steersman.apiserver.call import Services, User
from steersman.apiserver.dialing import dial
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.subresources.tunnel import passed_on, relay, tunnel
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import Answer, Request, Response, Stream, Writer, read_at_most

_LATE = "Timeout: request did not complete within the allotted timeout"
_HEADER_SAFE = "!#$&'*+-.^_`|~"  # RFC 9110's token, without the % that escapes
MOST = 32 << 20  # bytes of a document that is read whole


@dataclass(frozen=True, slots=True)
class Proxy:
    """The front proxy's own certificate, by which extension servers know that it is us."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds: as the original does."""

    dial: float = 30.0
    discovery: float = 5.0
    answer: float = 60.0
    resync: float = 30.0  # between looks at a server that nothing has happened to
    refresh: float = 60.0  # for which what a server says it serves is believed


USUAL = Patience()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer."""

    status: int
    content_type: str
    etag: str
    body: bytes


class Backend:
    """The server behind one APIService. `available` is what the object's condition says."""

    def __init__(self, services: Services, proxy: Proxy, spec: Object, patience: Patience) -> None:
        self.available = False
        self.spec = spec
        self._services = services
        self._proxy = proxy
        self._patience = patience
        reference = spec["service"]
        self.namespace, self.name = reference["namespace"], reference["name"]
        self.port = reference.get("port") or 443
        self._tls: ssl.SSLContext | None = None
        self._client: HttpClient | None = None

    # Handing on ------------------------------------------------------------------------------------------------------

    def serve(self, request: Request, user: User, info: RequestInfo) -> Answer | Awaitable[Answer]:
        """The extension server's answer, or 503 in the original's words."""
        if not self.available:
            return _refusal(503, "service unavailable")
        return self._serve(request, user, info)

    async def _serve(self, request: Request, user: User, info: RequestInfo) -> Answer:
        try:
            client = self._connected()
        except serviceref.Unroutable:
            return _refusal(503, "service unavailable")
        except ValueError as error:
            return _refusal(500, str(error))
        target = f"{request.path}?{request.query}" if request.query else request.path
        sent = Request(request.method, request.path, request.query, _headers(request, user), request.body)
        try:
            if request.header("upgrade"):
                return await self._upgraded(client, sent, target)
            return await self._asked(client, sent, target, info)
        except ApiError as error:
            if error.code == 504:
                raise
            return _refusal(503, error.message)

    async def _asked(self, client: HttpClient, request: Request, target: str, info: RequestInfo) -> Answer:
        discovery = _is_discovery(info)
        until: float | None = None
        if not info.long_running:
            seconds = self._patience.discovery if discovery else self._patience.answer
            until = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(until):
                answer = await relay(client, request.method, target, request.headers, request.body)
        except TimeoutError:
            if discovery:
                return _refusal(503, "error trying to reach service: context deadline exceeded")
            raise ApiError(504, "Timeout", _LATE) from None
        return _bounded(answer, until) if isinstance(answer, Stream) and until is not None else answer

    async def _upgraded(self, client: HttpClient, request: Request, target: str) -> Answer:
        try:
            async with asyncio.timeout(self._patience.answer):
                return await tunnel(client, request, target)
        except TimeoutError:
            return _refusal(503, "error dialing backend: timed out")

    def _connected(self) -> HttpClient:
        """A client of where the Service is now. Raises Unroutable, and ValueError for a bad caBundle."""
        host, port = serviceref.resolve(self._services, self.namespace, self.name, self.port)
        client = self._client
        if client is None or (client.address.host, client.address.port) != (host, port):
            if client is not None:
                client.close_idle()
            name = f"{self.name}.{self.namespace}.svc"
            address = Address(host, port, self._context(), server_name=name)
            client = self._client = HttpClient(
                address, connect_timeout=self._patience.dial, answer_timeout=None, dial=dial
            )
        return client

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            bundle = self.spec.get("caBundle")
            try:
                self._tls = client_tls(
                    authority_data=base64.b64decode(bundle).decode() if bundle else "",
                    certificate=self._proxy.certificate,
                    key=self._proxy.key,
                    verify=not self.spec.get("insecureSkipTLSVerify"),
                )
            except (ssl.SSLError, binascii.Error, UnicodeDecodeError) as error:
                raise ValueError("unable to load root certificates: unable to parse bytes as PEM block") from error
        return self._tls

    async def close(self) -> None:
        """Break every connection."""
        if self._client is not None:
            await self._client.close()

    # Own questions ---------------------------------------------------------------------------------------------------

    def url(self, path: str) -> str:
        """Where `path` is asked for, as messages show it. Raises Unroutable."""
        host, port = serviceref.resolve(self._services, self.namespace, self.name, self.port)
        return f"https://{host}:{port}{path}"

    async def fetch(self, path: str, user: User, accept: str, *, etag: str = "", document: bool = False) -> Fetched:
        """An answer, asked for as `user`; a `document` may take longer.

        Raises Unroutable, OSError, TimeoutError, and ValueError (too large).
        """
        headers = [("accept", accept), *identity(user)]
        if etag:
            headers.append(("if-none-match", etag))
        async with asyncio.timeout(self._patience.answer if document else self._patience.discovery):
            response = await self._connected().request("GET", path, headers)
            data = await read_at_most(response, MOST)
        content_type, tag = response.header("content-type") or "", response.header("etag") or ""
        return Fetched(response.status, content_type, tag, data)


def identity(user: User) -> list[tuple[str, str]]:
    """Who asks, as extension servers read it from a front proxy."""
    found = [("x-remote-user", user.name)]
    if user.uid:
        found.append(("x-remote-uid", user.uid))
    found += [("x-remote-group", group) for group in user.groups]
    for key, values in user.extra.items():
        found += [(f"x-remote-extra-{quote(key, safe=_HEADER_SAFE)}", value) for value in values]
    return [(name, value.encode().decode("latin-1")) for name, value in found]


def _headers(request: Request, user: User) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in passed_on(request.headers) if not name.startswith("x-remote-")]
    for name in ("connection", "upgrade") if request.header("upgrade") else ():
        kept += [(name, value) for value in request.header_all(name)]
    kept += identity(user)
    if request.peer.address:
        kept.append(("x-forwarded-for", request.peer.address))
    return kept


def _is_discovery(info: RequestInfo) -> bool:
    return not info.is_resource and len(info.path.strip("/").split("/")) == 3


def _bounded(answer: Stream, until: float) -> Stream:
    """What has begun in time must end in time, or it is broken off."""

    async def run(writer: Writer) -> None:
        try:
            async with asyncio.timeout_at(until):
                await answer.run(writer)
        except TimeoutError:
            raise ConnectionResetError("the extension server took too long") from None

    return Stream(answer.status, answer.headers, run)


def _refusal(status: int, text: str) -> Response:
    """As Go's http.Error writes it."""
    headers = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
    return Response(status, headers, f"{text}\n".encode())
