"""Paths that are no resource: version, health, metrics, OpenAPI, the service-account issuer's documents.

Owns their answers; discovery is `api.discovery`'s. Listed in order by whoever makes the API server. Source: apiserver's
pkg/server (healthz, version), KEP-1393 (issuer discovery).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any

import msgspec

from steersman.api.discovery import Discovery
from steersman.api.errors import no_such_method
from steersman.api.openapi import OpenApi, speaks
from steersman.api.registry import Registry
from steersman.apiserver.call import User
from steersman.apiserver.negotiate import routed
from steersman.apiserver.request import Query
from steersman.lib.http.messages import Request, Response

_JSON = ("content-type", "application/json")
_ALWAYS = (
    "/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/", "/openapi/v2", "/openapi/v3",
    "/openapi/v3/", "/openid/v1/jwks", "/version",
)  # fmt: skip
_HOUR = ("cache-control", "public, max-age=3600")
_EMULATED = (1, 33)  # the release from which on a server says what it emulates


def version_info(release: str, patch: int = 0) -> dict[str, str]:
    """`kubectl version` shows this as the server's."""
    major, minor = release.split(".")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    emulated = {
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
    }
    return {
        "major": major,
        "minor": minor,
        **(emulated if (int(major), int(minor)) >= _EMULATED else {}),
        "gitVersion": f"v{release}.{patch}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "cpython",
        "platform": f"linux/{machine}",
    }


def _only_get(request: Request, media: str) -> None:
    """Raises ApiError: 405 for another method, 406 for a client that does not read `media`."""
    if request.method != "GET":
        raise no_such_method()
    routed(request.header("accept") or "", (media,))


class Version:
    """/version."""

    def __init__(self, release: str) -> None:
        self._body = msgspec.json.format(msgspec.json.encode(version_info(release)), indent=2)

    def __call__(self, request: Request, user: User) -> Response | None:
        """The version, for anybody. Raises ApiError 405, 406."""
        if request.path not in ("/version", "/version/"):
            return None
        _only_get(request, "application/json")
        return Response(200, [_JSON], self._body)


_VARIED = [("vary", "Accept"), ("vary", "Accept-Encoding")]


class OpenApiPaths:
    """/openapi/v2 and /openapi/v3."""

    def __init__(self, registry: Registry) -> None:
        self.documents = OpenApi(registry)

    def __call__(self, request: Request, user: User) -> Response | None:
        """A document, cacheable for good when its hash is in the URL."""
        if not request.path.startswith("/openapi/"):
            return None
        wanted, accept = Query(request.query).get("hash"), request.header("accept") or ""
        path = request.path
        if (path == "/openapi/v2" or path.startswith("/openapi/v3/")) and not speaks(accept):
            return Response(406, _VARIED if path == "/openapi/v2" else _VARIED[:1])
        found = self.documents.answer(path, accept, wanted)
        if found is None:
            return Response(404) if path.startswith("/openapi/v3/") else None
        headers = [("content-type", found.content_type), *(() if path == "/openapi/v3" else _VARIED[:1])]
        if path == "/openapi/v2":
            headers.append(_VARIED[1])
        headers.append(("cache-control", "public, immutable" if found.immutable else "no-cache, private"))
        if found.etag:
            headers.append(("etag", found.etag))
            if request.header("if-none-match") == found.etag:
                return Response(304, headers)
        return Response(200, headers, found.body)


class Issuer:
    """The documents by which others verify service-account tokens."""

    def __init__(self, tokens: Any) -> None:
        self._tokens = tokens

    def __call__(self, request: Request, user: User) -> Response | None:
        """The discovery document and the keys. Raises ApiError 405, 406."""
        if request.path.rstrip("/") == "/.well-known/openid-configuration":
            media, document = "application/json", self._tokens.discovery
        elif request.path.rstrip("/") == "/openid/v1/jwks":
            media, document = "application/jwk-set+json", self._tokens.jwks
        else:
            return None
        _only_get(request, media)
        return Response(200, [_HOUR, ("content-type", media)], msgspec.json.encode(document()))


class Root:
    """/: every path there is."""

    def __init__(self, discovery: Discovery, more: Iterable[str]) -> None:
        """`more`: paths that somebody else answers."""
        self._discovery = discovery
        self._more = (*more, *_ALWAYS)

    def __call__(self, request: Request, user: User) -> Response | None:
        """A list of paths."""
        if request.path not in ("/", "", "/index.html"):
            return None
        groups = [group for group in self._discovery.groups() if group]
        versions = [f"/apis/{group}/{version}" for group in groups for version in self._discovery.versions(group)]
        found = sorted({*(f"/apis/{group}" for group in groups), *versions, *self._more})
        return Response(200, [_JSON], msgspec.json.format(msgspec.json.encode({"paths": found}), indent=2))
