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

from steersman.api import openapi_protobuf, openapi_roots, schema
from steersman.api.kind import Kind
from steersman.api.openapi_merge import merge, to_v3
from steersman.api.openapi_paths import DELETE_OPTIONS, META, PARAMETERS, PATCH, Operation, operations, tag
from steersman.api.openapi_protobuf import CONTENT_TYPE
from steersman.api.openapi_roots import Root
from steersman.api.openapi_schemas import V2, V3, built_in, closure, custom
from steersman.api.registry import Registry

Document = dict[str, Any]
FORMAT = "4"
"""Grows when the same registry gives other documents than before: clients keep documents by their hash."""

PRODUCES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_WATCHED = (
    *PRODUCES,
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
)
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
        if path == "/openapi/v3":
            return self._made("v3", "text/plain; charset=utf-8", lambda: msgspec.json.encode(self.index()))
        if path == "/openapi/v2":
            if _wants_protobuf(accept):
                return self._made("v2pb", CONTENT_TYPE, lambda: openapi_protobuf.encode(self.v2()))
            return self._made("v2", "application/json", lambda: msgspec.json.encode(self.v2()))
        place = path.removeprefix("/openapi/v3/")
        group_version = self._places().get(place) if place != path else None
        if (root := openapi_roots.documents(self._own_groups()).get(place)) is not None:
            found = self._made(place, "application/json", lambda: msgspec.json.encode(self._root(root)))
            current = self._root_hash(root)
            return found._replace(etag=f'"{current}"', immutable=hash == current)
        if (part := self.others.converted(place)) is not None:
            return self._made(place, "application/json", lambda: msgspec.json.encode(to_v3(part, self._info())))
        if group_version is None:
            return None
        found = self._made(place, "application/json", lambda: msgspec.json.encode(self.v3(*group_version)))
        current = self.hash(*group_version)
        return found._replace(etag=f'"{current}"', immutable=hash == current)

    def index(self) -> Document:
        """What /openapi/v3 says: where each group and version has its document."""
        hashes = {place: self.hash(*group_version) for place, group_version in self._places().items()}
        for root in openapi_roots.documents(self._own_groups()).values():
            hashes[root.place] = self._root_hash(root)
        paths = {place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={hashes[place]}"} for place in sorted(hashes)}
        for place, url in self.others.places().items():
            paths[place] = {"serverRelativeURL": url}
        return {"paths": dict(sorted(paths.items()))}

    def _own_groups(self) -> list[str]:
        """Groups with a kind that is built in: those of custom ones alone have no document."""
        return [group for group in self._registry.groups() if any(not kind.custom for kind in self._kinds(group))]

    def _kinds(self, group: str) -> Iterable[Kind]:
        return (kind for each in self._registry.versions(group) for kind in self._registry.of_group(group, each))

    def _root(self, root: Root) -> Document:
        """The v3 document of a path that is no resource."""
        names = closure(self._registry.schemas, [root.answer]) if root.answer else []
        schemas = {name: built_in(self._registry.schemas, name, V3) for name in names}
        return {
            "openapi": "3.0.0",
            "info": self._info(),
            "paths": {root.path: {"get": _v3_root(root)}},
            "components": {**({"schemas": schemas} if schemas else {}), "securitySchemes": {"BearerToken": _BEARER}},
        }

    def _root_hash(self, root: Root) -> str:
        return hashlib.sha512(f"{FORMAT} {self._registry.release} {root}".encode()).hexdigest().upper()

    def hash(self, group: str, version: str) -> str:
        """Changes whenever the document may; known without building it."""
        digest = hashlib.sha512(f"{FORMAT} {self._registry.release} {group}/{version}".encode())
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
            "paths": self._discovery(kinds, group, version, _v3_root) | _paths(found, _v3_operation, _v3_parameter),
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
        roots = [*openapi_roots.documents(self._own_groups()).values()]
        for root in roots:
            for name in closure(self._registry.schemas, [root.answer]) if root.answer else ():
                definitions[name] = built_in(self._registry.schemas, name, V2)
        paths = {root.path: {"get": _v2_root(root)} for root in roots}
        for group in self._registry.groups():
            for version in self._registry.versions(group):
                paths |= self._discovery(self._registry.of_group(group, version), group, version, _v2_root)
        paths |= _paths(found, _v2_operation, _v2_parameter)
        document = {"paths": dict(sorted(paths.items())), "definitions": definitions}
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

    @staticmethod
    def _discovery(kinds: Iterable[Kind], group: str, version: str, write: Callable[[Root], Document]) -> Document:
        """The path of a group version's own discovery; that of custom kinds alone is not documented."""
        if all(kind.custom for kind in kinds):
            return {}
        root = openapi_roots.of_version(group, version)
        return {root.path: {"get": write(root)}}

    def _info(self) -> Document:
        release = self._registry.release
        emulated = schema.number(release) >= _EMULATED
        return {"title": "Kubernetes", "version": release if emulated else f"v{release}.0"}

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
        return Answer(content_type, body, f'"{hashlib.sha512(body).hexdigest().upper()}"')


def _v3_root(root: Root) -> Document:
    schema = {"$ref": V3 + root.answer} if root.answer else {"type": "string"}
    answer = {"description": "OK", "content": {media: {"schema": schema} for media in root.medias}}
    said = {"tags": [root.tag], "description": root.description, "operationId": root.id}
    return {**said, "responses": {"200": answer, "401": {"description": "Unauthorized"}}}


def _v2_root(root: Root) -> Document:
    schema = {"$ref": V2 + root.answer} if root.answer else {"type": "string"}
    answers = {"200": {"description": "OK", "schema": schema}, "401": {"description": "Unauthorized"}}
    medias = {"consumes": root.medias} if root.answer else {}
    said = {"description": root.description, "tags": [root.tag], "operationId": root.id, "schemes": ["https"]}
    return {**said, **medias, "produces": root.medias, "responses": answers}


_EMULATED = (1, 31)  # the release from which on documents name the release alone
_V3_PROTOBUF = ("application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
                "application/com.github.proto-openapi.spec.v3.v1.0+protobuf")  # fmt: skip
_SPOKEN = {"application/json", "application/*", "*/*", *openapi_protobuf.ASKED, *_V3_PROTOBUF}  # v3 is JSON to all
_BEARER = {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}


def speaks(accept: str) -> bool:
    """Whether a document can be had in anything that an Accept header names."""
    wanted = {clause.partition(";")[0].strip() for clause in accept.split(",")}
    return not accept.strip() or not wanted.isdisjoint(_SPOKEN)


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
            named = [name for name in ("name", "namespace", "path") if f"{{{name}}}" in op.path]
            in_path = [parameter(name, "path") for name in named]
            of_all = [] if op.action == "connect" else [parameter("pretty", "query")]
            out[op.path] = {"parameters": [*in_path, *of_all]}
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
        return _WATCHED if op.action in ("list", "watch", "watchlist") and not op.custom else PRODUCES
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
