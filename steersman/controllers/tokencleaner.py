"""Bootstrap tokens that have expired are deleted.

Owns that deletion of Secrets in kube-system. Source: kubernetes' pkg/controller/bootstrap/tokencleaner.go.
"""

from __future__ import annotations

import base64

from steersman.api.errors import ApiError
from steersman.api.resource import SECRETS, Object
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of
from steersman.lib.clock import parse_rfc3339

TYPE = "bootstrap.kubernetes.io/token"


def expires(secret: Object) -> float | None:
    """Unix seconds when the token ends, 0 when its end cannot be read; None when it has none or is no token."""
    encoded = (secret.get("data") or {}).get("expiration")
    if secret.get("type") != TYPE or not encoded:
        return None
    try:
        return parse_rfc3339(base64.b64decode(encoded).decode())
    except ValueError:
        return 0.0


async def reconcile(context: Context, key: Key) -> Result:
    """Delete one token when its time has come."""
    secret = WATCH.informer(context).get(*key)
    at = expires(secret) if secret is not None else None
    if secret is None or at is None:
        return DONE
    left = at - context.clock.now()
    if left > 0:
        return Result(left)
    try:
        await context.client.delete(SECRETS, key.name, key.namespace, uid=secret["metadata"]["uid"])
    except ApiError as error:
        if error.code != 404:
            raise
    return DONE


WATCH = Watch(SECRETS, lambda _, secret: (key_of(secret),), namespace="kube-system", fields=f"type={TYPE}")
CONTROLLER = Controller("token-cleaner-controller", reconcile, (WATCH,), workers=1)
