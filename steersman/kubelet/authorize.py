"""Who may use the kubelet's HTTPS server: the client certificate's user, and what a request means for RBAC.

Owns the attributes of a request and the default rule. Called by `server`. Source: pkg/kubelet/server/auth.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from steersman.lib.http.messages import Request

_API_SERVER = "kube-apiserver-kubelet-client"
_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = (  # what a path means; the last is asked when the others are refused
    ("/pods", ("pods", "proxy")),
    ("/runningpods", ("pods", "proxy")),
    ("/healthz", ("healthz", "proxy")),
    ("/configz", ("configz", "proxy")),
    ("/stats", ("stats",)),
    ("/metrics", ("metrics",)),
    ("/logs", ("log",)),
    ("/checkpoint", ("checkpoint",)),
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The user that a verified client certificate names."""

    name: str
    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class Attributes:
    """May `caller` do `verb` on `nodes/<subresource>` of this node? One of `subresources` is enough."""

    caller: Caller
    verb: str
    subresources: Sequence[str]


Allow = Callable[[Attributes], "bool | Awaitable[bool]"]
Identify = Callable[[str], Awaitable[Caller | None]]
"""The user of a bearer token, or None when it is nobody's."""


def api_server_only(attributes: Attributes) -> bool:
    """The rule without RBAC: the API server's client certificate, by its name, and whoever is in system:masters."""
    return "system:masters" in attributes.caller.groups or attributes.caller.name == _API_SERVER


def caller(request: Request) -> Caller | None:
    """Who asks, or None without a certificate; remembered with the connection."""
    if request.peer.certificate is None:
        return None
    if not isinstance(request.peer.identity, Caller):
        request.peer.identity = _parse(request.peer.certificate)
    found: Caller = request.peer.identity
    return found


def bearer(request: Request) -> str:
    """The bearer token of a request, or ""."""
    scheme, _, token = (request.header("authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _parse(der: bytes) -> Caller:
    from cryptography import x509  # 40 ms to import, needed with the first request
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(der).subject
    names = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return Caller(names[0] if names else "", groups)


def attributes(request: Request, who: Caller) -> Attributes:
    """What the request asks to do."""
    path = request.path.rstrip("/")
    for prefix, subresources in _SUBRESOURCES:
        if path == prefix or path.startswith(f"{prefix}/"):
            return Attributes(who, _VERBS.get(request.method, ""), subresources)
    return Attributes(who, _VERBS.get(request.method, ""), ("proxy",))
