"""Tokens in Secrets: a Secret of the type service-account-token gets its token, and goes with its account.

Owns the data of such Secrets, and signs their tokens, which live as long as the Secret.
Settings, both PEM: `root-ca` and `service-account-private-key`, without which there is nothing to do.
Source: kubernetes' pkg/controller/serviceaccount/tokens_controller.go.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from steersman.api.errors import ApiError
from steersman.api.resource import SECRETS, SERVICEACCOUNTS, Object
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of
from steersman.lib.jwt import SigningKey

_TYPE = "kubernetes.io/service-account-token"
_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
_FIELDS = f"type={_TYPE}"
_KEY = "service-account-private-key"
_AGAIN = 10.0  # seconds: an account that is there may go before we see it, and then nothing tells


async def reconcile(context: Context, key: Key) -> Result:
    """Fill one Secret, or delete it when its account is gone."""
    secret = context.informers.informer(SECRETS, fields=_FIELDS).get(*key)
    if secret is None or secret["metadata"].get("deletionTimestamp"):
        return DONE
    annotations = secret["metadata"].get("annotations") or {}
    account = context.informer(SERVICEACCOUNTS).get(key.namespace, annotations.get(_NAME, ""))
    expected = annotations.get(_UID)
    if account is None or (expected and expected != account["metadata"]["uid"]):
        if not await _is_gone(context, key, annotations.get(_NAME, ""), expected):
            return Result(_AGAIN)
        await _delete(context, secret)
        return DONE
    wanted = {"ca.crt": _encode(context.config.get("root-ca", "")), "namespace": _encode(key.namespace)}
    data = secret.get("data") or {}
    if data.get("token") and all(data.get(name) == value for name, value in wanted.items()) and expected:
        return DONE
    token = data.get("token") or _encode(_sign(context, account, secret))
    meta = {**secret["metadata"], "annotations": {**annotations, _UID: account["metadata"]["uid"]}}
    await context.client.update(SECRETS, {**secret, "metadata": meta, "data": {**data, **wanted, "token": token}})
    return DONE


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _sign(context: Context, account: Object, secret: Object) -> str:
    """A token without an end, good as long as the Secret keeps it."""
    key = context.memory.get("key")
    if key is None:
        key = context.memory["key"] = SigningKey(context.config[_KEY].encode())
    meta = account["metadata"]
    said = {
        "namespace": meta["namespace"],
        "secret.name": secret["metadata"]["name"],
        "service-account.name": meta["name"],
        "service-account.uid": meta["uid"],
    }
    claims = {f"kubernetes.io/serviceaccount/{name}": value for name, value in said.items()}
    who = f"system:serviceaccount:{meta['namespace']}:{meta['name']}"
    return str(key.sign({"iss": "kubernetes/serviceaccount", **claims, "sub": who}))


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
    asked_for=lambda config: _KEY in config,
    root=True,
)
