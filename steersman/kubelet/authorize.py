"""Who may use the kubelet's HTTPS server: the client certificate's user, and what a request means for RBAC.

Owns the attributes of a request and the default rule. Called by `server`. Source: pkg/kubelet/server/auth.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from steersman.client.callers import Caller, bearer, caller
from steersman.lib.http.messages import Request

__all__ = ["Allow", "Attributes", "Caller", "Identify", "api_server_only", "attributes", "bearer", "caller"]

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


def attributes(request: Request, who: Caller) -> Attributes:
    """What the request asks to do."""
    path = request.path.rstrip("/")
    for prefix, subresources in _SUBRESOURCES:
        if path == prefix or path.startswith(f"{prefix}/"):
            return Attributes(who, _VERBS.get(request.method, ""), subresources)
    return Attributes(who, _VERBS.get(request.method, ""), ("proxy",))
