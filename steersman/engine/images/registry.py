"""The client side of the distribution protocol: manifests and blobs of one repository, by way of its mirrors.

Owns which server is asked (`Registries`) and the requests (`Repository`): log in on 401, follow redirects, say what
went wrong in the words that containerd's users know. Called by `store` to pull and push. Source: OCI distribution
specification 1.1; containerd's `docker` resolver for the texts.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from steersman.engine.images.auth import Challenge, LoginFailed, Unauthorized, answer, challenges
from steersman.engine.images.manifest import MANIFESTS
from steersman.engine.images.reference import Reference, is_digest
from steersman.engine.interface import Credentials

if TYPE_CHECKING:
    from steersman.lib.http.client import Dial
    from steersman.lib.http.messages import ClientResponse, Headers, Transport

MAX_MANIFEST = 4 << 20
_MAX_TOKEN = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_STALLED = 60.0  # seconds without a byte of a blob
_UPSTREAM = {"docker.io": "https://registry-1.docker.io"}

T = TypeVar("T")
DENIED = "pull access denied, repository does not exist or may require authorization"

Connect = Callable[[str], "Transport"]
"""An origin, such as `https://registry.example:5000`, to a transport that reaches it."""
Body = bytes | Callable[[], AsyncIterator[bytes]]


class RegistryError(Exception):
    """A registry did not give what it was asked for; `status` is 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def connect(origin: str, dial: Dial | None = None) -> Transport:
    """A pooled HTTP(S) connection to an origin, certificates checked against the machine's authorities."""
    from steersman.lib.http.client import Address, HttpClient, client_tls

    url = urlsplit(origin)
    tls = client_tls() if url.scheme == "https" else None
    port = url.port or (443 if tls else 80)
    headers = [("user-agent", "steersman"), ("accept-encoding", "identity")]
    return HttpClient(Address(url.hostname or "", port, tls), pool=8, headers=headers, dial=dial)


class Registries:
    """Every registry there is. `mirrors`: host to base URLs that are asked in its place, in order."""

    def __init__(self, mirrors: Mapping[str, Sequence[str]] | None = None, connect: Connect = connect) -> None:
        self._mirrors = dict(mirrors or {})
        self._connect = connect
        self._transports: dict[str, Transport] = {}

    def bases(self, domain: str) -> list[str]:
        """Base URLs to ask for a registry host."""
        if self._mirrors.get(domain):
            return [url.rstrip("/").removesuffix("/v2") for url in self._mirrors[domain]]
        host = domain.rsplit(":", 1)[0] if not domain.endswith("]") else domain
        local = host in ("localhost", "[::1]") or host.startswith("127.")
        return [_UPSTREAM.get(domain) or f"{'http' if local else 'https'}://{domain}"]

    def repository(self, reference: Reference, credentials: Sequence[Credentials] = ()) -> Repository:
        """Where a reference's content is."""
        return Repository(self, reference, credentials)

    def transport(self, url: str) -> Transport:
        """The transport for a URL's origin. Raises RegistryError for what is not HTTP."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"unsupported URL {url!r}")
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if origin not in self._transports:
            self._transports[origin] = self._connect(origin)
        return self._transports[origin]

    async def close(self) -> None:
        """Close every connection."""
        for transport in self._transports.values():
            await transport.close()
        self._transports.clear()


class Repository:
    """One repository of one registry, with the logins to try. Remembers which login worked."""

    def __init__(self, registries: Registries, reference: Reference, credentials: Sequence[Credentials]) -> None:
        self._registries = registries
        self._reference = reference
        self._bases = registries.bases(reference.domain)
        self._logins: list[Credentials | None] = [*credentials] or [None]
        self._headers: dict[str, str] = {}  # base URL to Authorization
        self.pushes = False  # ask token servers for the right to push

    def url(self, base: str, *parts: str) -> str:
        """A URL below /v2/<repository>/."""
        return f"{base}/v2/{self._reference.path}/{'/'.join(quote(part, safe=':@') for part in parts)}"

    async def manifest(self, target: str) -> tuple[bytes, str, str]:
        """A manifest by tag or digest: (bytes, digest, media type as the server says). Raises RegistryError."""
        accept = [("accept", ", ".join((*MANIFESTS, "*/*")))]

        async def take(response: ClientResponse, url: str) -> tuple[bytes, str, str]:
            body = await _limited(response, MAX_MANIFEST)
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            said = response.header("docker-content-digest") or ""
            wanted = target if is_digest(target) else said
            if wanted and wanted != digest:
                raise RegistryError(f"unexpected digest {digest} of the manifest, expected {wanted}")
            kind = (response.header("content-type") or "").split(";")[0].strip()
            return body, digest, kind

        return await self._anywhere(("manifests", target), accept, take)

    async def blob(self, digest: str, write: Callable[[bytes], None], start: Callable[[], None]) -> None:
        """Stream a blob into `write`; `start` is called first, and for each further mirror. Raises RegistryError."""

        async def take(response: ClientResponse, url: str) -> None:
            start()
            chunks = response.chunks().__aiter__()
            while True:
                try:
                    async with asyncio.timeout(_STALLED):
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise RegistryError(f"failed to copy: no data from {url} for {_STALLED:.0f} s") from None
                except ConnectionError as error:
                    raise RegistryError(
                        f"failed to copy: httpReadSeeker: failed open: unexpected EOF: {error}"
                    ) from error
                write(chunk)

        await self._anywhere(("blobs", digest), (), take)

    async def has_blob(self, digest: str) -> bool:
        """Whether the registry holds the blob in this repository. Raises RegistryError."""
        response = await self._send("HEAD", self.url(self._bases[0], "blobs", digest), ())
        await response.close()
        return response.status == 200

    async def put_blob(self, digest: str, size: int, body: Body, mount_from: str = "") -> None:
        """Upload a blob in one request, or have it mounted from another repository. Raises RegistryError."""
        query = f"?mount={digest}&from={quote(mount_from)}" if mount_from else ""
        url = self.url(self._bases[0], "blobs", "uploads", "") + query
        response = await self._send("POST", url, ())
        await response.read()
        if response.status == 201:
            return
        if response.status != 202 or not response.header("location"):
            raise _unexpected("POST", url, response.status)
        place = urljoin(url, response.header("location") or "")
        place += f"{'&' if '?' in place else '?'}digest={digest}"
        headers = [("content-type", "application/octet-stream"), ("content-length", str(size))]
        response = await self._send("PUT", place, headers, body, base=self._bases[0])
        await response.read()
        if response.status != 201:
            raise _unexpected("PUT", place, response.status)

    async def put_manifest(self, target: str, body: bytes, media_type: str) -> None:
        """Upload a manifest under a tag or digest. Raises RegistryError."""
        url = self.url(self._bases[0], "manifests", target)
        response = await self._send("PUT", url, [("content-type", media_type)], body)
        await response.read()
        if response.status not in (200, 201, 202):
            raise _unexpected("PUT", url, response.status)

    async def _anywhere(
        self, parts: tuple[str, ...], headers: Headers, take: Callable[[ClientResponse, str], Awaitable[T]]
    ) -> T:
        """GET from the first base that has it. What is wrong with one base is said only if no other serves."""
        wrong: RegistryError | None = None
        for base in self._bases:
            url = self.url(base, *parts)
            try:
                response = await self._send("GET", url, headers)
                try:
                    if response.status == 404:
                        continue
                    if response.status != 200:
                        raise _unexpected("GET", url, response.status)
                    return await take(response, url)
                finally:
                    await response.close()
            except RegistryError as error:
                wrong = wrong or error
        raise wrong or RegistryError(f"{self._reference}: not found", 404)

    async def _send(
        self, method: str, url: str, headers: Headers, body: Body = b"", *, base: str = ""
    ) -> ClientResponse:
        """One request with login and redirects; 404 and success come back, other trouble too, for the caller to say."""
        base = base or url.partition("/v2/")[0]
        response = await self._follow(method, url, headers, body, self._headers.get(base, ""))
        if response.status not in (401, 403):
            return response
        if response.status == 403 and base in self._headers:
            return response
        offered = challenges([value for name, value in response.headers if name == "www-authenticate"])
        await response.close()
        if not offered:
            raise _unexpected(method, url, response.status)
        return await self._log_in(method, url, headers, body, base, offered)

    async def _log_in(
        self, method: str, url: str, headers: Headers, body: Body, base: str, offered: Sequence[Challenge]
    ) -> ClientResponse:
        actions = "pull" if method in ("GET", "HEAD") and not self.pushes else "pull,push"
        scope = f"repository:{self._reference.path}:{actions}"
        wrong: RegistryError | None = None
        for login in self._logins:
            try:
                header = await answer(offered, login, scope, self._ask)
            except Unauthorized as error:
                wrong = RegistryError(f"{DENIED}: authorization failed: {error}", 401)
                continue
            except LoginFailed as error:
                wrong = RegistryError(f"failed to authorize: {error}", 401)
                continue
            response = await self._follow(method, url, headers, body, header)
            if response.status not in (401, 403):
                self._headers[base] = header
                return response
            await response.close()
            wrong = _denied(method, url, response)
        raise wrong or _unexpected(method, url, 401)

    async def _ask(self, method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        response = await self._once(method, url, headers, body)
        try:
            return response.status, await _limited(response, _MAX_TOKEN)
        finally:
            await response.close()

    async def _follow(self, method: str, url: str, headers: Headers, body: Body, authorization: str) -> ClientResponse:
        origin = urlsplit(url)[:2]
        for _ in range(6):
            own = urlsplit(url)[:2] == origin
            sent = [*headers, ("authorization", authorization)] if authorization and own else headers
            response = await self._once(method, url, sent, body)
            location = response.header("location")
            if response.status not in _REDIRECTS or not location or method not in ("GET", "HEAD"):
                return response
            await response.close()
            url = urljoin(url, location)
        raise RegistryError(f"stopped after 5 redirects of {url}")

    async def _once(self, method: str, url: str, headers: Headers, body: Body) -> ClientResponse:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            sent = body if isinstance(body, bytes) else body()
            return await self._registries.transport(url).request(method, target, headers, sent)
        except (OSError, ValueError) as error:
            verb = method.capitalize()
            raise RegistryError(f'failed to do request: {verb} "{url}": {_dial(parts.netloc, error)}') from error


async def _limited(response: ClientResponse, limit: int) -> bytes:
    """A body that must be small. Raises RegistryError."""
    from steersman.lib.http.messages import TooLong, read_at_most

    try:
        async with asyncio.timeout(_STALLED):
            return await read_at_most(response, limit)
    except TooLong:
        raise RegistryError(f"rejecting an answer of more than {limit} bytes") from None
    except (ConnectionError, TimeoutError) as error:
        raise RegistryError(f"failed to read the answer: unexpected EOF: {error}") from error


def _unexpected(method: str, url: str, status: int) -> RegistryError:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return RegistryError(f"unexpected status from {method} request to {url}: {status} {phrase}".rstrip(), status)


def _denied(method: str, url: str, response: ClientResponse) -> RegistryError:
    offered = challenges([value for name, value in response.headers if name == "www-authenticate"])
    said = next((each.parameters["error"] for each in offered if "error" in each.parameters), "")
    if said == "insufficient_scope":
        return RegistryError(f"{DENIED}: server message: {said}: authorization failed", 401)
    return _unexpected(method, url, response.status)


def _dial(netloc: str, error: BaseException) -> str:
    """Go's words for why there is no connection."""
    host, port = urlsplit(f"//{netloc}").hostname or "", urlsplit(f"//{netloc}").port or 443
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {where}: connect: connection refused"
    if isinstance(error, socket.gaierror):
        known = error.errno == socket.EAI_NONAME
        return f"dial tcp: lookup {host}: {'no such host' if known else error.strerror}"
    if isinstance(error, TimeoutError):
        return f"dial tcp {where}: i/o timeout"
    return f"dial tcp {where}: {error}"
