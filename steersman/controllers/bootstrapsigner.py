"""kube-public/cluster-info is signed with every bootstrap token, so that who has a token can trust it.

Owns the signatures in that ConfigMap: detached JWS with HS256, one a token that may sign. The ConfigMap itself is
somebody else's. Source: kubernetes' pkg/controller/bootstrap/bootstrapsigner.go, RFC 7515 (appendix F).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable

from steersman.api.resource import CONFIGMAPS, SECRETS, Object
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch
from steersman.lib.clock import parse_rfc3339

_TYPE = "bootstrap.kubernetes.io/token"
_PREFIX = "bootstrap-token-"
_SIGNATURE = "jws-kubeconfig-"
_CLUSTER_INFO = Key("kube-public", "cluster-info")


def signature(content: str, token_id: str, secret: str) -> str:
    """The compact serialization of a JWS over `content`, without the content."""
    head = _base64(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signed = f"{head}.{_base64(content.encode())}".encode()
    return f"{head}..{_base64(hmac.digest(secret.encode(), signed, hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _signer(secret: Object, now: float) -> tuple[str, str] | None:
    """A token's id and secret; None when it may not sign."""
    data = {key: base64.b64decode(value).decode(errors="replace") for key, value in (secret.get("data") or {}).items()}
    token_id = data.get("token-id", "")
    if not token_id or secret["metadata"]["name"] != _PREFIX + token_id or not data.get("token-secret"):
        return None
    if data.get("usage-bootstrap-signing") != "true" or (data.get("expiration") and _ended(data["expiration"], now)):
        return None
    return token_id, data["token-secret"]


def _ended(stamp: str, now: float) -> bool:
    try:
        return parse_rfc3339(stamp) <= now
    except ValueError:
        return True


def signed(data: dict[str, str], secrets: Iterable[Object], now: float) -> dict[str, str]:
    """The ConfigMap's data with the signatures that it shall have, and no others."""
    plain = {key: value for key, value in data.items() if not key.startswith(_SIGNATURE)}
    signers = dict(each for secret in secrets if (each := _signer(secret, now)) is not None)
    marks = {_SIGNATURE + key: signature(plain["kubeconfig"], key, value) for key, value in signers.items()}
    return plain | marks


async def reconcile(context: Context, key: Key) -> Result:
    """Sign cluster-info, where there is one with a kubeconfig."""
    found = _INFO.informer(context).get(*_CLUSTER_INFO)
    if found is None or "kubeconfig" not in (found.get("data") or {}):
        return DONE
    wanted = signed(found["data"], _TOKENS.informer(context).list(), context.clock.now())
    if wanted != found["data"]:
        await context.client.update(CONFIGMAPS, {**found, "data": wanted})
    return DONE


_INFO = Watch(CONFIGMAPS, lambda *_: (_CLUSTER_INFO,), namespace="kube-public", fields="metadata.name=cluster-info")
_TOKENS = Watch(SECRETS, lambda *_: (_CLUSTER_INFO,), namespace="kube-system", fields=f"type={_TYPE}")
CONTROLLER = Controller("bootstrap-signer-controller", reconcile, (_INFO, _TOKENS), workers=1)
