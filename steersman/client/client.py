"""Typed calls to the API server: get, list, watch, create, update, patch, delete.

Owns URLs, query parameters, JSON bodies and the mapping from Status answers to ApiError. Called by every component. It
keeps no state but its transport; retrying is the caller's business.
"""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

import msgspec

from steersman.api import errors
from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.api.term import Term
from steersman.lib.clock import Clock
from steersman.lib.http.messages import ClientResponse, Headers, Transport

PatchType = Literal["merge", "json", "strategic", "apply"]

_PATCH_TYPES: Mapping[PatchType, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_JSON = ("content-type", "application/json")
_ACCEPT = ("accept", "application/json")
Decode = Callable[[bytes | memoryview], Object]
"""Reads one object from its JSON; it may leave out what its caller does not need."""

_METADATA = "application/json;as={};g=meta.k8s.io;v=v1"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_EVENT = re.compile(rb'\{"type":"(ADDED|MODIFIED|DELETED)","object":(?=\{)')  # as every API server writes it


class _Meta(msgspec.Struct):
    """What a list says of itself."""

    resourceVersion: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Items(msgspec.Struct):
    """A list whose items somebody else decodes."""

    metadata: _Meta = msgspec.field(default_factory=_Meta)
    items: list[msgspec.Raw] | None = None


_decode_items = msgspec.json.Decoder(_Items).decode


@dataclass(frozen=True, slots=True)
class ListPage:
    """Some objects of a collection; `continue_` asks for the rest."""

    items: list[Object]
    resource_version: str
    continue_: str = ""


class WatchEvent(NamedTuple):
    """ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR is raised as ApiError instead."""

    type: str
    object: Object


def target(path: str, query: Mapping[str, str | int | bool | None]) -> str:
    """A path with a query, without the parameters that are empty."""
    given = {
        key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in query.items() if value
    }
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path


class Client:
    """Calls one API server over a transport. Every call raises ApiError for a Status, OSError for transport trouble."""

    def __init__(
        self, transport: Transport, *, clock: Clock, user_agent: str, headers: Headers = (), local: bool = False
    ) -> None:
        """`local`: the server is in this process, where a watch does not hang unnoticed."""
        self.local = local
        self.transport = transport
        self.clock = clock
        self._headers = [("user-agent", user_agent), _ACCEPT, *headers]

    def named(self, part: str) -> Client:
        """The same for one part of a component, which the end of its user agent tells."""
        made = copy.copy(self)
        (name, agent), *others = self._headers
        made._headers = [(name, f"{agent}/{part}"), *others]
        return made

    def leading(self, term: Term) -> Client:
        """The same, of a leader: its writes are refused (409) when the term is over."""
        (_, agent), _, *others = self._headers
        return Client(
            self.transport, clock=self.clock, user_agent=agent, headers=[*others, term.header()], local=self.local
        )

    async def raw(
        self, method: str, path: str, body: bytes = b"", headers: Headers = (), *, accept: str = ""
    ) -> tuple[ClientResponse, bytes]:
        """One request and its whole body, whatever the status. `accept` replaces the usual Accept."""
        usual = self._headers
        if accept:
            usual = [*(header for header in usual if header[0] != "accept"), ("accept", accept)]
        response = await self.transport.request(method, path, [*usual, *headers], body)
        return response, await response.read()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "",
        *,
        accept: str = "",
        quiet: bool = False,
    ) -> Object:
        """One request with JSON both ways. Raises ApiError for every status of 400 and above.

        `quiet`: nobody wants to see the answer of a success, and {} is returned.
        """
        data = b"" if body is None else _encode(body)
        headers = [("content-type", content_type)] if content_type else ([_JSON] if data else [])
        answer = await self._answer(method, path, data, headers, accept=accept)
        decoded: Object = _decode(answer) if answer and not quiet else {}
        return decoded

    async def _answer(self, method: str, path: str, body: bytes, headers: Headers, *, accept: str = "") -> bytes:
        """The body of a success. Raises ApiError for every status of 400 and above."""
        response, answer = await self.raw(method, path, body, headers, accept=accept)
        if response.status >= 400:
            raise error_of(response.status, answer)
        return answer

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        """One object, or one of its subresources."""
        return await self.call("GET", resource.path(namespace, name, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str = "",
        metadata_only: bool = False,
        decode: Decode | None = None,
    ) -> ListPage:
        """A collection, or `limit` objects of it, each read by `decode` where there is one."""
        query = {
            "labelSelector": labels,
            "fieldSelector": fields,
            "limit": limit,
            "continue": continue_,
            "resourceVersion": resource_version,
        }
        accept = _METADATA.format("PartialObjectMetadataList") if metadata_only else ""
        answer = await self._answer("GET", target(resource.path(namespace), query), b"", (), accept=accept)
        if decode is not None:
            page = _decode_items(answer)
            items = [decode(memoryview(raw)) for raw in page.items or ()]
            version, continue_ = page.metadata.resourceVersion, page.metadata.continue_
        else:
            found = _decode(answer)
            meta, items = found.get("metadata") or {}, found.get("items") or []
            version, continue_ = str(meta.get("resourceVersion", "")), str(meta.get("continue") or "")
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return ListPage(items, version, continue_)

    async def create(
        self, resource: Resource, obj: Object, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object:
        """Create an object, or POST to a subresource of `name`."""
        where = namespace or (obj.get("metadata") or {}).get("namespace", "")
        return await self.call("POST", resource.path(where, name, subresource), _typed(resource, obj, subresource))

    async def post(
        self, resource: Resource, obj: Object, namespace: str, *, name: str = "", subresource: str = ""
    ) -> None:
        """`create`, by one who does not want to see what became of the object."""
        await self._answer("POST", resource.path(namespace, name, subresource), _encode(obj), [_JSON])

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        """Replace an object; its resourceVersion, when set, must be the current one."""
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace", ""), meta["name"], subresource)
        return await self.call("PUT", path, _typed(resource, obj, subresource))

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        body: Any,
        *,
        type: PatchType = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        quiet: bool = False,
    ) -> Object:
        """Change an object. `apply` needs a field manager. `quiet` as of `call`."""
        path = target(resource.path(namespace, name, subresource), {"fieldManager": field_manager, "force": force})
        return await self.call("PATCH", path, body, _PATCH_TYPES[type], quiet=quiet)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
        quiet: bool = False,
    ) -> Object:
        """Delete an object; `uid` and `resource_version` are preconditions. `quiet` as of `call`."""
        options = _delete_options(grace_seconds, propagation, uid, resource_version)
        return await self.call("DELETE", resource.path(namespace, name), options, quiet=quiet)

    async def delete_collection(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", propagation: str = ""
    ) -> Object:
        """Delete every object that the selectors match."""
        path = target(resource.path(namespace), {"labelSelector": labels, "fieldSelector": fields})
        return await self.call("DELETE", path, _delete_options(None, propagation, "", ""))

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        labels: str = "",
        fields: str = "",
        timeout_seconds: int = 0,
        bookmarks: bool = True,
        metadata_only: bool = False,
        decode: Decode | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after `resource_version`, their objects read by `decode`. Close it with `aclose`."""
        query = {
            "watch": True,
            "resourceVersion": resource_version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "timeoutSeconds": timeout_seconds,
            "allowWatchBookmarks": bookmarks,
        }
        headers = [header for header in self._headers if header is not _ACCEPT]
        headers.append(("accept", _METADATA.format("PartialObjectMetadata")) if metadata_only else _ACCEPT)
        response = await self.transport.request("GET", target(resource.path(namespace), query), headers)
        try:
            if response.status >= 400:
                raise error_of(response.status, await response.read())
            async for line in _lines(response):
                if decode is not None and (plain := _EVENT.match(line)) is not None:
                    yield WatchEvent(plain[1].decode(), decode(memoryview(line)[plain.end() : -1]))
                    continue
                event = _decode(line)
                if event["type"] == "ERROR":
                    raise errors.from_status(int(event["object"].get("code", 500)), event["object"])
                yield WatchEvent(event["type"], event["object"])
        finally:
            await response.close()


async def _lines(response: ClientResponse) -> AsyncIterator[bytes]:
    """The JSON documents of a watch, one a line."""
    rest = b""
    async for chunk in response.chunks():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
    if rest.strip():
        raise ConnectionResetError("the watch broke off within an event")


def _typed(resource: Resource, obj: Object, subresource: str) -> Object:
    """The object with apiVersion and kind, which objects from lists lack."""
    if subresource not in ("", "status") or ("kind" in obj and "apiVersion" in obj):
        return obj
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _delete_options(grace: int | None, propagation: str, uid: str, resource_version: str) -> Object:
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    if propagation:
        options["propagationPolicy"] = propagation
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    if given := {key: value for key, value in preconditions.items() if value}:
        options["preconditions"] = given
    return options


def error_of(status: int, body: bytes) -> ApiError:
    """The exception for an answer that is not a success, Status or not."""
    try:
        decoded = _decode(body)
    except msgspec.DecodeError:
        decoded = None
    if isinstance(decoded, dict) and decoded.get("kind") == "Status":
        return errors.from_status(status, decoded)
    return ApiError(status, "", body[:200].decode(errors="replace").strip() or f"the server answered {status}")
