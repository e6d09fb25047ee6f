"""What the server serves, as the documents that clients discover it from.

Owns /api, /apis, /apis/G, /apis/G/V and /api/v1, plain and aggregated (apidiscovery.k8s.io v2 and v2beta1), built from
the registry and from what other API servers serve, and kept until that changes. Called by the API server for those
paths; it passes the Accept header and sends what it gets. Source: apimachinery's metav1 discovery types, KEP-3352
(aggregated discovery), kube-aggregator's handler_apis.go.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from steersman.api import schema
from steersman.api.kind import Kind, Subresource
from steersman.api.priorities import BUILT_IN, CUSTOM, Priority
from steersman.api.registry import Registry, version_priority

Document = dict[str, Any]
GroupVersion = tuple[str, str]
_GROUP = "apidiscovery.k8s.io"
_LIST = "APIGroupDiscoveryList"


_SINCE = {"v2": (1, 30), "v2beta1": (1, 27)}
"""Releases from which on a version of aggregated discovery is served by default; v2beta1 until 1.32."""


Release = tuple[int, int]
_SINGULAR: Release = (1, 27)
"""The release from which on built-in kinds say what one of them is called."""
_ALWAYS = {(1, minor): "v1beta1" for minor in range(25, 38)}
_STORED: dict[tuple[str, str], dict[Release, str]] = {
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _ALWAYS,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): {(1, 26): "v1beta2", (1, 29): "v1beta3"},
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): {(1, 26): "v1beta2", (1, 29): "v1beta3"},
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): {(1, 30): "v1beta1"},
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): {(1, 30): "v1beta1"},
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): {(1, 36): "v1beta1"},
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): {(1, 36): "v1beta1"},
    ("networking.k8s.io", "IPAddress"): {(1, 33): "v1beta1"},
    ("networking.k8s.io", "ServiceCIDR"): {(1, 33): "v1beta1"},
    ("storage.k8s.io", "VolumeAttributesClass"): {(1, 34): "v1beta1"},
    **{
        ("resource.k8s.io", kind): {(1, 34): "v1beta1"}
        for kind in ("DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice")
    },
    ("resource.k8s.io", "DeviceTaintRule"): {(1, 37): "v1beta2"},
    ("certificates.k8s.io", "ClusterTrustBundle"): {(1, 37): "v1beta1"},
    ("certificates.k8s.io", "PodCertificateRequest"): {(1, 37): "v1beta1"},
    ("storagemigration.k8s.io", "StorageVersionMigration"): {(1, 37): "v1beta1"},
}
"""In which version the original's hash says that a kind is stored, where that is not the preferred one: in the release
that brings a version, the one before it, so that a server can still go back."""


class Answer(NamedTuple):
    """A document as sent. `etag` is a quoted hash, empty for plain documents."""

    content_type: str
    body: bytes
    etag: str = ""


class Others(Protocol):
    """What APIService objects say: priorities, and what other API servers serve. `revision` grows with every change."""

    revision: int
    priorities: Mapping[GroupVersion, Priority]

    def versions(self) -> Mapping[GroupVersion, Document]:
        """The group versions of other servers, as aggregated discovery writes a version."""
        ...


class Nobody:
    """Implements `Others` where there are none."""

    revision = 0
    priorities: Mapping[GroupVersion, Priority] = {}

    def versions(self) -> Mapping[GroupVersion, Document]:
        """None."""
        return {}


class Discovery:
    """The discovery documents of one registry, and of the servers behind it."""

    def __init__(self, registry: Registry, server_address: str = "127.0.0.1:6443") -> None:
        """`server_address` (host:port) is what /api says."""
        self._registry = registry
        self._address = server_address
        self._cache: dict[tuple[str, str], Answer | None] = {}
        self._revision = (-1, -1)
        self.others: Others = Nobody()
        self._release = release = schema.number(registry.release)
        self._served = frozenset(
            version for version, since in _SINCE.items() if release >= since and (version == "v2" or release < (1, 33))
        )

    def negotiated(self, accept: str) -> str:
        """The version of aggregated discovery that an Accept header asks for and this release has, else ""."""
        return negotiate(accept, self._served)

    def custom(self, path: str) -> bool:
        """Whether `path` is that of a group version of custom resources."""
        group, _, version = path.removeprefix("/apis/").partition("/")
        kinds = self._registry.of_group(group, version)
        return bool(kinds) and all(kind.custom for kind in kinds)

    def answer(self, path: str, accept: str = "") -> Answer | None:
        """The document at `path` in the form that the Accept header prefers; None when there is none."""
        if self._revision != (revision := (self._registry.revision, self.others.revision)):
            self._cache.clear()
            self._revision = revision
        path = path.rstrip("/")
        key = (path, self.negotiated(accept) if path in ("/api", "/apis") else "")
        if key not in self._cache:
            if len(self._cache) > 1000:  # paths come from outside
                self._cache.clear()
            self._cache[key] = self._build(*key)
        return self._cache[key]

    def _build(self, path: str, version: str) -> Answer | None:
        if version:
            body = msgspec.json.encode(self.aggregated(version, core=path == "/api")) + b"\n"
            etag = f'"{hashlib.sha512(body).hexdigest().upper()}"'
            return Answer(aggregated_type("application/json", version), body, etag)
        document = self.document(path)
        return None if document is None else Answer("application/json", msgspec.json.encode(document) + b"\n")

    def document(self, path: str) -> Document | None:
        """The plain document at `path`, which has no slash at its end."""
        if path == "/api":
            return self._core()
        parts = path.split("/")[1:] or [""]
        if parts[0] == "api" and len(parts) == 2:
            return self.resources("", parts[1])
        if parts[0] != "apis" or len(parts) > 3:
            return None
        if len(parts) == 1:
            groups = [self._group(group) for group in self.groups() if group]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if not parts[1] or not self.versions(parts[1]):
            return None
        if len(parts) == 2:
            return {"kind": "APIGroup", "apiVersion": "v1", **self._group(parts[1])}
        return self.resources(parts[1], parts[2])

    def _core(self) -> Document:
        addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}]
        versions = self._registry.versions("")
        return {"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": addresses}

    def groups(self) -> list[str]:
        """Every group, by priority and name."""
        found: dict[str, int] = {}
        own = {(kind.group, version.name) for kind in self._registry for version in kind.versions if version.served}
        for group, version in own.union(self.others.versions()):
            found[group] = max(found.get(group, 0), self._priority(group, version)[0])
        return sorted(found, key=lambda group: (-found[group], group))

    def versions(self, group: str) -> list[str]:
        """A group's versions, the preferred one first."""
        found = {
            *self._registry.versions(group),
            *(version for owner, version in self.others.versions() if owner == group),
        }
        return sorted(found, key=lambda version: (-self._priority(group, version)[1], version_priority(version)))

    def _priority(self, group: str, version: str) -> Priority:
        where = group, version
        return self.others.priorities.get(where) or BUILT_IN.get(where) or CUSTOM

    def _group(self, group: str) -> Document:
        versions = [{"groupVersion": f"{group}/{name}", "version": name} for name in self.versions(group)]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def resources(self, group: str, version: str) -> Document | None:
        """The metav1.APIResourceList of one group and version; None when it is not served."""
        kinds = self._registry.of_group(group, version)
        if not kinds:
            return None
        rows = [row for kind in kinds for row in _plain(kind, version, self._release)]
        head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api_version(version)}
        if not group:
            del head["apiVersion"]  # the core group's list says no version of its own
        return {**head, "resources": rows}

    def aggregated(self, version: str, *, core: bool) -> Document:
        """The APIGroupDiscoveryList in `version` (v2, v2beta1) of the core group, or of all others."""
        groups = [group for group in self.groups() if bool(group) != core]
        items = [{"metadata": {"name": group} if group else {}, "versions": self._versions(group)} for group in groups]
        return {"kind": _LIST, "apiVersion": f"{_GROUP}/{version}", "metadata": {}, "items": items}

    def _versions(self, group: str) -> list[Document]:
        others = self.others.versions()
        return [others.get((group, version)) or self._own(group, version) for version in self.versions(group)]

    def _own(self, group: str, version: str) -> Document:
        kinds = self._registry.of_group(group, version)
        return {
            "version": version,
            "resources": [_aggregated(kind, version) for kind in kinds],
            "freshness": "Current",
        }


AGGREGATED = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
"""What an aggregated document can be had in."""


def aggregated_type(media: str, version: str) -> str:
    """The Content-Type of an aggregated document."""
    return f"{media};g={_GROUP};v={version};as={_LIST}"


def negotiate(accept: str, served: Collection[str] = tuple(_SINCE)) -> str:
    """The aggregated version, of those served, that an Accept header asks for before anything else, "" for plain."""
    for clause in accept.split(","):
        media, *parameters = (part.strip().lower() for part in clause.split(";"))
        given = {key: value for key, _, value in (part.partition("=") for part in parameters)}
        if media in (*AGGREGATED, "application/*", "*/*"):
            if given.get("g") == _GROUP and given.get("as") == _LIST.lower():
                if given.get("v") in served:
                    return given["v"]
            elif "as" not in given:
                return ""
    return ""


def _plain(kind: Kind, version: str, release: Release) -> list[Document]:
    row: Document = {
        "name": kind.plural,
        "singularName": kind.singular if kind.custom or release >= _SINGULAR else "",
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    }
    if kind.short_names:
        row["shortNames"] = kind.short_names
    if kind.categories:
        row["categories"] = kind.categories
    if "delete" in kind.verbs:  # it is stored
        row["storageVersionHash"] = _storage_hash(kind, release)
    return [row, *(_plain_subresource(kind, sub) for sub in _subresources(kind, version))]


def _subresources(kind: Kind, version: str) -> Sequence[Subresource]:
    """In the order in which they are told: of custom resources the status comes first."""
    found = kind.subresources_of(version)
    return sorted(found, key=lambda sub: sub.name != "status") if kind.custom else found


def _storage_hash(kind: Kind, release: Release) -> str:
    """What changes when objects are stored in another version. Source: apiserver's pkg/endpoints/discovery."""
    version = kind.storage_version.name
    if (found := _STORED.get((kind.group, kind.kind))) is not None and release in found:
        version = found[release]
    text = f"{kind.storage_location[0]}/{version}/{kind.kind}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _plain_subresource(kind: Kind, sub: Subresource) -> Document:
    row: Document = {"name": f"{kind.plural}/{sub.name}", "singularName": "", "namespaced": kind.namespaced}
    if sub.version:
        row |= {"group": sub.group, "version": sub.version}
    return {**row, "kind": sub.kind or kind.kind, "verbs": sub.verbs}


def _aggregated(kind: Kind, version: str) -> Document:
    own = {"group": kind.group, "version": version} if kind.custom else {"group": "", "version": ""}
    row: Document = {
        "resource": kind.plural,
        "responseKind": {**own, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    }
    if kind.short_names:
        row["shortNames"] = kind.short_names
    if kind.categories:
        row["categories"] = kind.categories
    subresources = _subresources(kind, version)
    if subresources:
        row["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {
                    **({"group": sub.group, "version": sub.version} if sub.version else own),
                    "kind": sub.kind or kind.kind,
                },
                "verbs": sub.verbs,
            }
            for sub in subresources
        ]
    return row
