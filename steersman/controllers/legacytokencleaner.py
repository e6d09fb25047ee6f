"""Tokens that were made for every account once, and that nobody uses, become invalid and then go.

Owns the label kubernetes.io/legacy-token-invalid-since, and deletes Secrets of type service-account-token that carry it
for long enough. Only those that their account lists: what somebody made by hand stays. The API server notes each use.
Settings: `legacy-service-account-token-clean-up-period` in seconds (8760 hours).
Source: KEP-2799; kubernetes' pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, PODS, SECRETS, SERVICEACCOUNTS, Object
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of
from steersman.client.workload import created_at
from steersman.lib.clock import rfc3339

_LAST_USED = "kubernetes.io/legacy-token-last-used"
_INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
_TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
_YEAR = 8760 * 3600.0  # seconds
_DAY = 86_400.0  # seconds: how often is looked


def day_of(text: object) -> float | None:
    """Unix seconds of a date's first moment; None for what is no date."""
    try:
        return datetime.strptime(str(text), "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def idle(secret: Object, since: float) -> bool:
    """Whether the token was neither made nor used after `since`; an unreadable last use counts as one."""
    meta = secret["metadata"]
    if meta.get("deletionTimestamp") or created_at(secret) >= since:
        return False
    used = (meta.get("labels") or {}).get(_LAST_USED)
    return used is None or (day_of(used) is not None and used < rfc3339(since)[:10])


def listed(secret: Object, account: Object | None) -> bool:
    """Whether the account names the Secret as its own, as it did when every account was given a token."""
    meta = secret["metadata"]
    uid = (meta.get("annotations") or {}).get(_UID)
    if account is None or (uid and uid != account["metadata"]["uid"]):
        return False
    return any(each.get("name") == meta["name"] for each in account.get("secrets") or ())


def due(secret: Object, since: float) -> Literal["invalidate", "delete", ""]:
    """What is to be done with a token that nobody uses."""
    marked = (secret["metadata"].get("labels") or {}).get(_INVALID_SINCE, "")
    if day_of(marked) is None:
        return "invalidate"
    return "delete" if marked < rfc3339(since)[:10] else ""


def mounts(pod: Object, name: str) -> bool:
    """Whether a pod uses the Secret."""
    found: set[str] = set()
    pods.references(pod["spec"], lambda kind, each: found.add(each) if kind == "Secret" else None)
    return name in found


async def reconcile(context: Context, key: Key) -> Result:
    """Look at one token, and again a day later."""
    secret = _SECRETS.informer(context).get(*key)
    if secret is None:
        return DONE
    tracked = _TRACKED.informer(context).get("kube-system", _TRACKING)
    period = float(context.config.get("legacy-service-account-token-clean-up-period", _YEAR))
    began = day_of(((tracked or {}).get("data") or {}).get("since"))
    now = context.clock.now()
    since, again = now - period, Result(_DAY)
    if began is None or began + _DAY > since or not idle(secret, since):
        return again
    name = (secret["metadata"].get("annotations") or {}).get(_NAME, "")
    if not listed(secret, context.informer(SERVICEACCOUNTS).get(key.namespace, name)):
        return again
    if any(mounts(pod, key.name) for pod in context.informer(PODS).list(key.namespace)):
        return again
    match due(secret, since):
        case "invalidate":
            await _invalidate(context, secret, rfc3339(now)[:10])
        case "delete":
            await _delete(context, secret)
    return again


async def _invalidate(context: Context, secret: Object, day: str) -> None:
    meta = secret["metadata"]
    body = {"metadata": {"uid": meta["uid"], "labels": {_INVALID_SINCE: day}}}
    await context.client.patch(SECRETS, meta["name"], meta["namespace"], body)


async def _delete(context: Context, secret: Object) -> None:
    """Unless it was used meanwhile, which changes it."""
    meta = secret["metadata"]
    try:
        await context.client.delete(SECRETS, meta["name"], meta["namespace"], resource_version=meta["resourceVersion"])
    except ApiError as error:
        if error.code not in (404, 409):
            raise


def _every(context: Context, _: Object) -> Iterable[Key]:
    return map(key_of, _SECRETS.informer(context).list())


_SECRETS = Watch(SECRETS, lambda _, secret: (key_of(secret),), fields="type=kubernetes.io/service-account-token")
_TRACKED = Watch(CONFIGMAPS, _every, namespace="kube-system", fields=f"metadata.name={_TRACKING}")
CONTROLLER = Controller(
    "legacy-serviceaccount-token-cleaner-controller",
    reconcile,
    (_SECRETS, _TRACKED),
    workers=1,
    indexes={SERVICEACCOUNTS: {}, PODS: {}},
)
