"""Tokens in Secrets: a Secret of the type service-account-token gets its token, and goes with its account.

Owns the data of such Secrets. The API server signs; a token lives as long as its Secret. Setting: `root-ca` (PEM).
Source: kubernetes' pkg/controller/serviceaccount/tokens_controller.go.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from steersman.api.errors import ApiError
from steersman.api.resource import SECRETS, SERVICEACCOUNTS, Object
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of

_TYPE = "kubernetes.io/service-account-token"
_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
_FIELDS = f"type={_TYPE}"
_LONGEST = 1 << 32  # seconds


async def reconcile(context: Context, key: Key) -> Result:
    """Fill one Secret, or delete it when its account is gone."""
    secret = context.informers.informer(SECRETS, fields=_FIELDS).get(*key)
    if secret is None or secret["metadata"].get("deletionTimestamp"):
        return DONE
    annotations = secret["metadata"].get("annotations") or {}
    account = context.informer(SERVICEACCOUNTS).get(key.namespace, annotations.get(_NAME, ""))
    expected = annotations.get(_UID)
    if account is None or (expected and expected != account["metadata"]["uid"]):
        if await _is_gone(context, key, annotations.get(_NAME, ""), expected):
            await _delete(context, secret)
        return DONE
    wanted = {"ca.crt": _encode(context.config.get("root-ca", "")), "namespace": _encode(key.namespace)}
    data = secret.get("data") or {}
    if data.get("token") and all(data.get(name) == value for name, value in wanted.items()) and expected:
        return DONE
    token = data.get("token") or _encode(await _sign(context, key, account, secret))
    meta = {**secret["metadata"], "annotations": {**annotations, _UID: account["metadata"]["uid"]}}
    await context.client.update(SECRETS, {**secret, "metadata": meta, "data": {**data, **wanted, "token": token}})
    return DONE


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def _sign(context: Context, key: Key, account: Object, secret: Object) -> str:
    meta = secret["metadata"]
    bound = {"apiVersion": "v1", "kind": "Secret", "name": meta["name"], "uid": meta["uid"]}
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": _LONGEST, "boundObjectRef": bound},
    }
    name = account["metadata"]["name"]
    answer = await context.client.create(SERVICEACCOUNTS, request, key.namespace, name=name, subresource="token")
    return str(answer["status"]["token"])


async def _is_gone(context: Context, key: Key, name: str, uid: str | None) -> bool:
    """Ask the API server itself: a Secret may be made just after its account."""
    try:
        account = await context.client.get(SERVICEACCOUNTS, name, key.namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        return True
    return bool(uid) and account["metadata"]["uid"] != uid


async def _delete(context: Context, secret: Object) -> None:
    meta = secret["metadata"]
    try:
        await context.client.delete(SECRETS, meta["name"], meta["namespace"], uid=meta["uid"])
    except ApiError as error:
        if error.code not in (404, 409):
            raise


def _of_account(context: Context, account: Object) -> Iterable[Key]:
    meta = account["metadata"]
    for secret in context.informers.informer(SECRETS, fields=_FIELDS).list(meta["namespace"]):
        if (secret["metadata"].get("annotations") or {}).get(_NAME) == meta["name"]:
            yield key_of(secret)


CONTROLLER = Controller(
    "serviceaccount-token-controller",
    reconcile,
    (Watch(SECRETS, lambda _, secret: [key_of(secret)], fields=_FIELDS), Watch(SERVICEACCOUNTS, _of_account)),
    workers=1,
)
