"""What OpenAPI says of paths that are no resource: discovery, the version, the token issuer's documents.

Owns `Root` and where each is documented. Called by `openapi.py`. The names and places are those of kube-apiserver's
published documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from steersman.api.openapi_paths import META, tag

_EVERY = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")


class Root(NamedTuple):
    """One GET. `place` is its v3 document; `answer` a definition's name, empty for a text."""

    place: str
    path: str
    tag: str
    id: str
    description: str
    answer: str
    medias: tuple[str, ...] = _EVERY


ALONE = (
    Root(
        ".well-known/openid-configuration", "/.well-known/openid-configuration/", "WellKnown",
        "getServiceAccountIssuerOpenIDConfiguration", "where the issuer of service accounts' tokens says what it does",
        "", ("application/json",),
    ),
    Root("api", "/api/", "core", "getCoreAPIVersions", "versions of the core group", f"{META}.APIVersions"),
    Root("apis", "/apis/", "apis", "getAPIVersions", "groups and their versions", f"{META}.APIGroupList"),
    Root(
        "openid/v1/jwks", "/openid/v1/jwks/", "openid", "getServiceAccountIssuerOpenIDKeyset",
        "keys by which service accounts' tokens are verified", "", ("application/jwk-set+json",),
    ),
    Root(
        "version", "/version/", "version", "getCodeVersion", "the server's version",
        "io.k8s.apimachinery.pkg.version.Info", ("application/json",),
    ),
)  # fmt: skip
"""Those that every server has."""


def of_group(group: str) -> Root:
    """Discovery of a group."""
    word = _word(group)
    place = f"apis/{group}"
    return Root(place, f"/{place}/", tag(group), f"get{word}APIGroup", "the group's versions", f"{META}.APIGroup")


def of_version(group: str, version: str) -> Root:
    """Discovery of a group version."""
    place = f"apis/{group}/{version}" if group else f"api/{version}"
    id = f"get{_word(group)}{version.capitalize()}APIResources"
    return Root(place, f"/{place}/", f"{tag(group)}_{version}", id, "available resources", f"{META}.APIResourceList")


def documents(groups: Iterator[str] | list[str]) -> dict[str, Root]:
    """Every root with a document of its own, by its place; `groups` are those with built-in kinds."""
    return {root.place: root for root in (*ALONE, *(of_group(group) for group in groups if group))}


def _word(group: str) -> str:
    found = tag(group)
    return found[0].upper() + found[1:]
