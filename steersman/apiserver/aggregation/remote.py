"""What an extension API server says that it serves, read with distrust.

Owns the asking (aggregated discovery, else plain) and the shape that is let through. Called by the aggregator. Source:
kube-aggregator's pkg/apiserver/handler_discovery.go; KEP-3352.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from steersman.api.resource import Object
from steersman.apiserver.aggregation.backend import Backend, Fetched
from steersman.apiserver.call import User

WHO = User("system:kube-aggregator", ("system:masters",))
_LIST = "as=APIGroupDiscoveryList"
_ACCEPT = ",".join(f"application/json;g=apidiscovery.k8s.io;v={version};{_LIST}" for version in ("v2", "v2beta1"))


class Unusable(Exception):
    """The server cannot be asked, or what it says is not understood."""


class _Kind(msgspec.Struct, frozen=True):
    group: str = ""
    version: str = ""
    kind: str = ""


class _Subresource(msgspec.Struct, frozen=True, rename="camel"):
    subresource: str
    response_kind: _Kind | None = None
    verbs: list[str] | None = None


class _Resource(msgspec.Struct, frozen=True, rename="camel"):
    resource: str
    scope: str = ""
    response_kind: _Kind | None = None
    singular_resource: str = ""
    verbs: list[str] | None = None
    short_names: list[str] | None = None
    categories: list[str] | None = None
    subresources: list[_Subresource] | None = None


class _Version(msgspec.Struct, frozen=True):
    version: str
    resources: list[_Resource] | None = None


class _Named(msgspec.Struct, frozen=True):
    name: str = ""


class _Group(msgspec.Struct, frozen=True):
    metadata: _Named = _Named()
    versions: list[_Version] | None = None


class _Groups(msgspec.Struct, frozen=True):
    items: list[_Group] | None = None


class _Plain(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    singular_name: str = ""
    namespaced: bool = False
    group: str = ""
    version: str = ""
    kind: str = ""
    verbs: list[str] | None = None
    short_names: list[str] | None = None
    categories: list[str] | None = None


class _PlainList(msgspec.Struct, frozen=True):
    resources: list[_Plain] | None = None


_groups = msgspec.json.Decoder(_Groups)
_plain = msgspec.json.Decoder(_PlainList)


async def resources_of(backend: Backend, group: str, version: str) -> list[Object]:
    """The resources of one group version, as aggregated discovery writes them. Raises Unusable, OSError,
    TimeoutError, Unroutable."""
    answer = await _fetched(backend, "/apis", _ACCEPT)
    if answer.status == 503:
        raise Unusable("service returned non-success response code: 503")
    if answer.status == 200 and _is_aggregated(answer.content_type):
        return _of_groups(answer.body, group, version)
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    answer = await _fetched(backend, path, "application/json")
    if answer.status != 200:
        raise Unusable(f"failed to download legacy discovery for {path}: {answer.status}")
    return _of_plain(answer.body)


async def _fetched(backend: Backend, path: str, accept: str) -> Fetched:
    try:
        return await backend.fetch(path, WHO, accept)
    except ValueError as error:
        raise Unusable(str(error)) from error


def _is_aggregated(content_type: str) -> bool:
    text = content_type.replace(" ", "").lower()
    return "g=apidiscovery.k8s.io" in text and "as=apigroupdiscoverylist" in text


def _of_groups(body: bytes, group: str, version: str) -> list[Object]:
    try:
        found = _groups.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unusable(f"unreadable discovery document: {error}") from None
    for each in found.items or ():
        if each.metadata.name == group:
            for one in each.versions or ():
                if one.version == version:
                    return [_written(resource) for resource in one.resources or ()]
    return []


def _written(one: _Resource) -> Object:
    row: Object = {
        "resource": one.resource,
        "responseKind": _kind(one.response_kind),
        "scope": "Namespaced" if one.scope == "Namespaced" else "Cluster",
        "singularResource": one.singular_resource,
        "verbs": one.verbs or [],
    }
    row |= _given(shortNames=one.short_names, categories=one.categories)
    subresources = [
        {"subresource": sub.subresource, "responseKind": _kind(sub.response_kind), "verbs": sub.verbs or []}
        for sub in one.subresources or ()
    ]
    return row | _given(subresources=subresources)


def _kind(kind: _Kind | None) -> Object:
    return msgspec.structs.asdict(kind or _Kind())


def _given(**fields: Sequence[object] | None) -> Object:
    return {key: value for key, value in fields.items() if value}


def _of_plain(body: bytes) -> list[Object]:
    """Source: apiserver's endpoints.ConvertGroupVersionIntoToDiscovery."""
    try:
        rows = _plain.decode(body).resources or ()
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unusable(f"unreadable discovery document: {error}") from None
    made: dict[str, Object] = {}
    for row in rows:
        if "/" not in row.name:
            made[row.name] = {
                "resource": row.name,
                "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
                "scope": _scope(row),
                "singularResource": row.singular_name,
                "verbs": row.verbs or [],
                **_given(shortNames=row.short_names, categories=row.categories),
            }
    for row in rows:
        parent, slash, name = row.name.partition("/")
        if not slash:
            continue
        orphan = {"resource": parent, "responseKind": _kind(None), "scope": _scope(row)}
        owner = made.setdefault(parent, {**orphan, "singularResource": "", "verbs": []})
        if owner["scope"] != _scope(row):
            raise Unusable(f"parent {parent} and subresource {name} have different scopes")
        kind = {"group": row.group, "version": row.version, "kind": row.kind}
        sub = {"subresource": name, "responseKind": kind, "verbs": row.verbs or []}
        owner.setdefault("subresources", []).append(sub)
    return list(made.values())


def _scope(row: _Plain) -> str:
    return "Namespaced" if row.namespaced else "Cluster"
