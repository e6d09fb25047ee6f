"""What the API server writes into CertificateSigningRequests: who asks, and when something was decided.

Owns spec.username, uid, groups and extra, which signers and approvers trust, so nobody may choose them, and the times
of conditions that come without. Source: kubernetes' pkg/registry/certificates/certificates/strategy.go.
"""

from __future__ import annotations

from typing import Any

from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.lib.clock import rfc3339


def install(extras: dict[str, Any]) -> None:
    """Tie it to the creation of requests."""
    at = ("certificates.k8s.io", "CertificateSigningRequest")
    extras.setdefault("before_create", {}).setdefault(at, []).append(asked)
    extras.setdefault("before_update", {}).setdefault(at, []).append(dated)


async def asked(call: Call, request: Object) -> None:
    """Fill in the user."""
    spec, user = request.setdefault("spec", {}), call.user
    for name in ("username", "uid", "groups", "extra"):
        spec.pop(name, None)
    spec["username"] = user.name
    if user.uid:
        spec["uid"] = user.uid
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}


async def dated(call: Call, request: Object, old: Object) -> None:
    """Say when each condition came, and when it was last said."""
    now = rfc3339(call.services.clock.now())
    before = {
        (each.get("type"), each.get("status")): each for each in (old.get("status") or {}).get("conditions") or ()
    }
    for each in (request.get("status") or {}).get("conditions") or ():
        same = before.get((each.get("type"), each.get("status"))) or {}
        each["lastUpdateTime"] = each.get("lastUpdateTime") or now
        each["lastTransitionTime"] = each.get("lastTransitionTime") or same.get("lastTransitionTime") or now
