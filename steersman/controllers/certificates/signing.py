"""Signing: approved requests for the built-in signers get their certificate from the cluster's CA.

Owns `status.certificate` and the Failed condition of those. It has the CA from `root-ca` and `root-ca-key` in its
settings, or what `signing-cert` and `signing-key` say, alone or with a signer's name behind; without, it signs nothing.
Source: kubernetes' pkg/controller/certificates/signer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta

from steersman.api.resource import Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result
from steersman.controllers.certificates.issue import sign
from steersman.controllers.certificates.requests import REQUESTS, SIGNERS, condition, parse, refusal
from steersman.lib.clock import rfc3339


def due(request: Object) -> bool:
    """Whether it is for one of us to sign now."""
    status = request.get("status") or {}
    if request["spec"]["signerName"] not in SIGNERS or status.get("certificate"):
        return False
    return condition(request, "Approved") is not None and condition(request, "Failed") is None


async def reconcile(context: Context, key: Key) -> Result:
    """Sign one request, or say why it cannot be signed."""
    request = context.informer(REQUESTS).get(*key)
    if request is None or not due(request):
        return DONE
    authority = _authority(context.config, request["spec"]["signerName"])
    if not all(authority):
        return DONE
    spec, status, now = request["spec"], request.get("status") or {}, context.clock.now()
    try:
        changed = {
            **status,
            "certificate": base64.b64encode(_signed(spec, authority, now, _longest(context.config))).decode(),
        }
    except ValueError as error:
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "SignerValidationFailure",
            "message": str(error),
            "lastUpdateTime": rfc3339(now),
            "lastTransitionTime": rfc3339(now),
        }
        changed = {**status, "conditions": [*(status.get("conditions") or ()), failed]}
    await context.client.update(REQUESTS, {**request, "status": changed}, subresource="status")
    return DONE


def _authority(config: Mapping[str, str], signer: str) -> tuple[str, str]:
    """Certificate and key for a signer; empty when only others have flags of their own."""
    own = signer.removeprefix("kubernetes.io/")
    for suffix in (f" {own}", ""):
        if f"signing-cert{suffix}" in config:
            return config[f"signing-cert{suffix}"], config.get(f"signing-key{suffix}", "")
    if any(name.startswith("signing-cert ") for name in config):
        return "", ""
    return config.get("root-ca", ""), config.get("root-ca-key", "")


def _longest(config: Mapping[str, str]) -> timedelta:
    return timedelta(seconds=float(config.get("cluster-signing-duration", 365 * 86400)))


def _signed(spec: Object, authority: tuple[str, str], now: float, longest: timedelta) -> bytes:
    usages = spec.get("usages") or []
    parsed = parse({"spec": spec})
    if refused := refusal(parsed, usages, spec["signerName"]):
        raise ValueError(refused)
    return sign(parsed, usages, spec.get("expirationSeconds"), authority, now, longest)


CONTROLLER = Controller(
    "certificatesigningrequest-signing-controller", reconcile, (For(REQUESTS),), retry=(0.2, 1000.0)
)
