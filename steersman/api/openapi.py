"""The OpenAPI documents: v3 by group and version, v2 whole.

Owns /openapi/v3, /openapi/v3/<group version> and /openapi/v2 (JSON, and gnostic's protobuf for older kubectl). Each
document is built when first asked for and the last few are kept; a change of the registry, or of what other API
servers document, drops them. Called by the API server for those paths. Source: KEP-2896 (OpenAPI
v3), kube-openapi's handlers.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from steersman.api import openapi_protobuf
from steersman.api.kind import Kind
from steersman.api.openapi_merge import merge, to_v3
from steersman.api.openapi_paths import DELETE_OPTIONS, META, PARAMETERS, PATCH, Operation, operations, tag
from steersman.api.openapi_protobuf import CONTENT_TYPE
from steersman.api.openapi_schemas import V2, V3, built_in, closure, custom
from steersman.api.registry import Registry

Document = dict[str, Any]
FORMAT = "3"
"""Grows when the same registry gives other documents than before: clients keep documents by their hash."""

PRODUCES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_STRATEGIC = "application/strategic-merge-patch+json"
ALWAYS = tuple(f"{META}.{name}" for name in ("ObjectMeta", "ListMeta", "WatchEvent", "APIResourceList"))
_KEPT = 6


class Answer(NamedTuple):
    """A document as sent. `etag` is a quoted hash; `immutable` says that the URL named the hash."""

    content_type: str
    body: bytes
    etag: str
    immutable: bool = False


class Others(Protocol):
    """The documents of other API servers. `revision` grows with every change."""

    revision: int

    def parts(self) -> Iterable[Document]:
        """Their parts of the v2 document."""
        ...

    def places(self) -> Mapping[str, str]:
        """`apis/G/V` of each that has a v3 document, and the URL of that here."""
        ...

    def converted(self, place: str) -> Document | None:
        """The part of the v2 document of a place whose server has no v3."""
        ...


class Nobody:
    """Implements `Others` where there are none."""

    revision = 0

    def parts(self) -> Iterable[Document]:
        """None."""
        return ()

    def places(self) -> Mapping[str, str]:
        """None."""
        return {}

    def converted(self, place: str) -> Document | None:
        """None."""
        return None


class OpenApi:
    """The documents of one registry, and of the servers behind it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.others: Others = Nobody()
        self._kept: OrderedDict[tuple[str, tuple[int, int]], bytes] = OrderedDict()

    def answer(self, path: str, accept: str = "", hash: str = "") -> Answer | None:
        """The document at `path`; None when there is none. `hash` is the query parameter of that name."""
        path = path.rstrip("/")
        if path == "/openapi/v3":
            return self._made("v3", "application/json", lambda: msgspec.json.encode(self.index()))
        if path == "/openapi/v2":
            if _wants_protobuf(accept):
                return self._made("v2pb", CONTENT_TYPE, lambda: openapi_protobuf.encode(self.v2()))
            return self._made("v2", "application/json", lambda: msgspec.json.encode(self.v2()))
        place = path.removeprefix("/openapi/v3/")
        group_version = self._places().get(place) if place != path else None
        if (part := self.others.converted(place)) is not None:
            return self._made(place, "application/json", lambda: msgspec.json.encode(to_v3(part, self._info())))
        if group_version is None:
            return None
        found = self._made(place, "application/json", lambda: msgspec.json.encode(self.v3(*group_version)))
        current = self.hash(*group_version)
        return found._replace(etag=f'"{current}"', immutable=hash == current)

    def index(self) -> Document:
        """What /openapi/v3 says: where each group and version has its document."""
        paths = {
            place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={self.hash(*group_version)}"}
            for place, group_version in self._places().items()
        }
        for place, url in self.others.places().items():
            paths[place] = {"serverRelativeURL": url}
        return {"paths": paths}

    def hash(self, group: str, version: str) -> str:
        """Changes whenever the document may; known without building it."""
        digest = hashlib.sha256(f"{FORMAT} {self._registry.release} {group}/{version}".encode())
        for kind in self._registry.of_group(group, version):
            found = kind.version(version)
            subresources = [sub.name for sub in kind.subresources_of(version)]
            schema = found.schema if found is not None and kind.custom else None
            digest.update(msgspec.json.encode([kind.kind, kind.plural, kind.namespaced, subresources, schema]))
        return digest.hexdigest().upper()

    def v3(self, group: str, version: str) -> Document:
        """The document of one group and version."""
        kinds = self._registry.of_group(group, version)
        found = [op for kind in kinds for op in operations(self._registry.schemas, kind, version)]
        return {
            "openapi": "3.0.0",
            "info": self._info(),
            "paths": _paths(found, _v3_operation, _v3_parameter),
            "components": {
                "schemas": self._definitions(kinds, found, V3, version),
                "securitySchemes": {"BearerToken": _BEARER},
            },
        }

    def v2(self) -> Document:
        """The document of everything."""
        found: list[Operation] = []
        definitions: Document = {}
        for group in self._registry.groups():
            for version in self._registry.versions(group):
                kinds = self._registry.of_group(group, version)
                own = [op for kind in kinds for op in operations(self._registry.schemas, kind, version)]
                definitions |= self._definitions(kinds, own, V2, version)
                found += own
        document = {"paths": _paths(found, _v2_operation, _v2_parameter), "definitions": definitions}
        for part in self.others.parts():
            merge(document, part)
        return {
            "swagger": "2.0",
            "info": self._info(),
            "paths": document["paths"],
            "definitions": dict(sorted(definitions.items())),
            "securityDefinitions": {"BearerToken": _BEARER},
            "security": [{"BearerToken": []}],
        }

    def _info(self) -> Document:
        return {"title": "Kubernetes", "version": f"v{self._registry.release}.0"}

    def _definitions(self, kinds: Iterable[Kind], found: Iterable[Operation], prefix: str, version: str) -> Document:
        schemas = self._registry.schemas
        used = {name for op in found for name in (op.body, op.answer)}
        out = {name: built_in(schemas, name, prefix) for name in closure(schemas, [*used, *ALWAYS])}
        for kind in kinds:
            if kind.custom:
                out |= custom(schemas, kind, version, prefix)
        return out

    def _places(self) -> dict[str, tuple[str, str]]:
        """`apis/apps/v1` and its like, with group and version."""
        return {
            f"apis/{group}/{version}" if group else f"api/{version}": (group, version)
            for group in self._registry.groups()
            for version in self._registry.versions(group)
        }

    def _made(self, name: str, content_type: str, make: Callable[[], bytes]) -> Answer:
        key = (name, (self._registry.revision, self.others.revision))
        if key not in self._kept:
            for old in [old for old in self._kept if old[1] != key[1]]:
                del self._kept[old]
            self._kept[key] = make()
            self._registry.schemas.forget_descriptions()
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        body = self._kept[key]
        return Answer(content_type, body, f'"{hashlib.sha256(body).hexdigest().upper()}"')


_BEARER = {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}


def _wants_protobuf(accept: str) -> bool:
    """True when the first thing asked for that can be served is gnostic's protobuf."""
    for clause in accept.split(","):
        media = clause.partition(";")[0].strip().lower()
        if media in openapi_protobuf.ASKED:
            return True
        if media in ("application/json", "application/*", "*/*"):
            return False
    return False


def _paths(found: Iterable[Operation], write: Callable[..., Document], parameter: Callable[..., Document]) -> Document:
    out: Document = {}
    for op in found:
        if op.path not in out:
            named = [name for name in ("name", "namespace") if f"{{{name}}}" in op.path]
            in_path = [parameter(name, "path") for name in named]
            out[op.path] = {"parameters": [*in_path, parameter("pretty", "query")]}
        out[op.path][op.method] = write(op)
    return out


def _common(op: Operation) -> Document:
    group, version = op.path.split("/")[2:4] if op.path.startswith("/apis/") else ("", op.path.split("/")[2])
    return {
        "tags": [f"{tag(group)}_{version}"],
        "description": op.description,
        "operationId": op.id,
        "x-kubernetes-action": op.action,
        "x-kubernetes-group-version-kind": {"group": op.group, "version": op.version, "kind": op.kind},
    }


def _codes(op: Operation) -> list[tuple[str, str]]:
    texts = {"200": "OK", "201": "Created", "202": "Accepted"}
    more = {"post": ("201", "202"), "put": ("201",), "patch": ("201",), "delete": ("202",)}.get(op.method, ())
    return [
        (code, texts[code]) for code in ("200", *(more if op.action not in ("connect", "deletecollection") else ()))
    ]


def _medias(op: Operation) -> tuple[str, ...]:
    if op.answer:
        return PRODUCES
    return ("*/*",) if op.action == "connect" else (*PRODUCES, "text/plain")


def _bodies(op: Operation) -> tuple[str, ...]:
    """What a body may be. kubectl looks here whether a kind takes strategic merge patches, as no custom one does."""
    if op.body != PATCH:
        return ("*/*",)
    return tuple(media for media in PATCHES if not (op.custom and media == _STRATEGIC))


def _v3_parameter(name: str, where: str) -> Document:
    kind, text = PARAMETERS[name]
    out = {"name": name, "in": where, "description": text, "schema": {"type": kind, "uniqueItems": True}}
    return {**out, "required": True} if where == "path" else out


def _v3_operation(op: Operation) -> Document:
    out = _common(op)
    if op.query:
        out["parameters"] = [_v3_parameter(name, "query") for name in op.query]
    if op.body:
        medias = _bodies(op)
        schema = {"schema": {"$ref": V3 + op.body}}
        out["requestBody"] = {"content": dict.fromkeys(medias, schema), "required": op.body != DELETE_OPTIONS}
    schema = {"$ref": V3 + op.answer} if op.answer else {"type": "string"}
    content = {media: {"schema": schema} for media in _medias(op)}
    out["responses"] = {code: {"description": text, "content": content} for code, text in _codes(op)}
    out["responses"]["401"] = {"description": "Unauthorized"}
    return out


def _v2_parameter(name: str, where: str) -> Document:
    kind, text = PARAMETERS[name]
    out = {"name": name, "in": where, "description": text, "type": kind, "uniqueItems": True}
    return {**out, "required": True} if where == "path" else out


def _v2_operation(op: Operation) -> Document:
    out = _common(op)
    out["consumes"] = _bodies(op)
    out["produces"] = _medias(op)
    parameters = [_v2_parameter(name, "query") for name in op.query]
    if op.body:
        body = {"name": "body", "in": "body", "required": op.body != DELETE_OPTIONS, "schema": {"$ref": V2 + op.body}}
        parameters.insert(0, body)
    if parameters:
        out["parameters"] = parameters
    schema = {"$ref": V2 + op.answer} if op.answer else {"type": "string"}
    out["responses"] = {code: {"description": text, "schema": schema} for code, text in _codes(op)}
    out["responses"]["401"] = {"description": "Unauthorized"}
    return out
