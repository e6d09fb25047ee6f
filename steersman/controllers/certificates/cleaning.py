"""Cleaning: certificate requests that nobody needs any more are deleted.

Owns those deletions: an hour after an answer, a day without one, and when the certificate has expired.
Source: kubernetes' pkg/controller/certificates/cleaner.
"""

from __future__ import annotations

import base64

from cryptography import x509

from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result
from steersman.controllers.certificates.requests import REQUESTS
from steersman.lib.clock import parse_rfc3339

_ANSWERED, _PENDING = 3600.0, 24 * 3600.0  # seconds


def expires(request: Object) -> float | None:
    """Unix seconds after which the request goes; None when nothing can be told of it."""
    status = request.get("status") or {}
    conditions = status.get("conditions") or []
    if not conditions:
        return parse_rfc3339(request["metadata"]["creationTimestamp"]) + _PENDING
    issued = bool(status.get("certificate"))
    ends = [_end(status["certificate"])] if issued and any(each["type"] == "Approved" for each in conditions) else []
    for each in conditions:
        if each.get("lastUpdateTime"):
            patience = _PENDING if each["type"] == "Approved" and not issued else _ANSWERED
            ends.append(parse_rfc3339(each["lastUpdateTime"]) + patience)
    return min((each for each in ends if each is not None), default=None)


def _end(certificate: str) -> float | None:
    try:
        return x509.load_pem_x509_certificate(base64.b64decode(certificate)).not_valid_after_utc.timestamp()
    except ValueError:
        return None  # another signer's, in a form of its own


async def reconcile(context: Context, key: Key) -> Result:
    """Delete one request when its time has come."""
    request = context.informer(REQUESTS).get(*key)
    at = expires(request) if request is not None else None
    if request is None or at is None:
        return DONE
    left = at - context.clock.now()
    if left >= 0:
        return Result(left + 1)
    try:
        await context.client.delete(REQUESTS, key.name, uid=request["metadata"]["uid"])
    except ApiError as error:
        if error.code != 404:
            raise
    return DONE


CONTROLLER = Controller("certificatesigningrequest-cleaner-controller", reconcile, (For(REQUESTS),), workers=1)
