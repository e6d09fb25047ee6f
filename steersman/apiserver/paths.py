"""Paths that are no resource: version, health, metrics, OpenAPI, the service-account issuer's documents.

Owns their answers; discovery is `api.discovery`'s. Listed in order by whoever makes the API server. Source: apiserver's
pkg/server (healthz, version), KEP-1393 (issuer discovery).
"""

from __future__ import annotations

import platform
from typing import Any

import msgspec

from steersman.api.errors import forbidden
from steersman.api.openapi import OpenApi
from steersman.api.registry import Registry
from steersman.apiserver.call import User
from steersman.apiserver.request import Query
from steersman.lib.http.messages import Request, Response

_TEXT = ("content-type", "text/plain; charset=utf-8")
_JSON = ("content-type", "application/json")
_HEALTH = ("/healthz", "/livez", "/readyz")


def version_info(release: str, patch: int = 0) -> dict[str, str]:
    """`kubectl version` shows this as the server's."""
    major, minor = release.split(".")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": f"v{release}.{patch}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "cpython",
        "platform": f"linux/{machine}",
    }


class Version:
    """/version."""

    def __init__(self, release: str) -> None:
        self._body = msgspec.json.format(msgspec.json.encode(version_info(release)), indent=2)

    def __call__(self, request: Request, user: User) -> Response | None:
        """The version, for anybody."""
        return Response(200, [_JSON], self._body) if request.path in ("/version", "/version/") else None


class OpenApiPaths:
    """/openapi/v2 and /openapi/v3."""

    def __init__(self, registry: Registry) -> None:
        self.documents = OpenApi(registry)

    def __call__(self, request: Request, user: User) -> Response | None:
        """A document, cacheable for good when its hash is in the URL."""
        if not request.path.startswith("/openapi/"):
            return None
        wanted = Query(request.query).get("hash")
        found = self.documents.answer(request.path.rstrip("/"), request.header("accept") or "", wanted)
        if found is None:
            return None
        headers = [("content-type", found.content_type), ("vary", "Accept")]
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
        """The discovery document and the keys."""
        if request.path == "/.well-known/openid-configuration":
            return Response(200, [_JSON], msgspec.json.encode(self._tokens.discovery()))
        if request.path == "/openid/v1/jwks":
            return Response(
                200, [("content-type", "application/jwk-set+json")], msgspec.json.encode(self._tokens.jwks())
            )
        return None


class Root:
    """/: every path there is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self, request: Request, user: User) -> Response | None:
        """A list of paths."""
        if request.path not in ("/", ""):
            return None
        if request.method not in ("GET", "HEAD"):
            raise forbidden("", "", "", "only GET")
        paths = ["/api", "/api/v1", "/apis"]
        for group in self._registry.groups():
            if group:
                paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in self._registry.versions(group))]
        paths += [*_HEALTH, "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/version"]
        return Response(200, [_JSON], msgspec.json.encode({"paths": sorted(paths)}))
