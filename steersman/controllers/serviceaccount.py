"""Every namespace has the service account `default`.

Owns nothing else of service accounts. Source: kubernetes' pkg/controller/serviceaccount.
"""

from __future__ import annotations

from steersman.api.errors import ApiError
from steersman.api.resource import NAMESPACES, SERVICEACCOUNTS
from steersman.client.children import namespace_terminates
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch

_NAME = "default"
_AGAIN = 10.0  # seconds: what we made may go before we see it, and then nothing tells


async def reconcile(context: Context, key: Key) -> Result:
    """Create the account where it is missing."""
    namespace = context.informer(NAMESPACES).get(*key)
    if namespace is None or namespace["metadata"].get("deletionTimestamp"):
        return DONE
    if context.informer(SERVICEACCOUNTS).get(key.name, _NAME) is not None:
        return DONE
    try:
        await context.client.create(SERVICEACCOUNTS, {"metadata": {"name": _NAME}}, key.name)
    except ApiError as error:
        if error.reason != "AlreadyExists" and error.code != 404 and not namespace_terminates(error):
            raise
        if error.code == 404 or namespace_terminates(error):
            return DONE
    return Result(_AGAIN)


CONTROLLER = Controller(
    "serviceaccount-controller",
    reconcile,
    (For(NAMESPACES), Watch(SERVICEACCOUNTS, lambda _, obj: [Key("", obj["metadata"]["namespace"])])),
    workers=1,
)
