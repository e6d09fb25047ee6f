"""Who asks for a certificate: written into each CertificateSigningRequest when it is made, whatever its body says.

Owns spec.username, uid, groups and extra. Signers and approvers trust them, so nobody may choose them.
Source: kubernetes' pkg/registry/certificates/certificates/strategy.go (PrepareForCreate).
"""

from __future__ import annotations

from typing import Any

from steersman.api.resource import Object
from steersman.apiserver.call import Call


def install(extras: dict[str, Any]) -> None:
    """Tie it to the creation of requests."""
    at = ("certificates.k8s.io", "CertificateSigningRequest")
    extras.setdefault("before_create", {}).setdefault(at, []).append(asked)


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
