"""Bootstrap tokens: short secrets of kube-system with which a new node says hello.

Owns the reading of their Secrets. Called for bearer tokens that look like one. It changes nothing: the token cleaner
removes what has expired. Source: plugin/pkg/auth/authenticator/token/bootstrap; cluster-bootstrap's token/util.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re

from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.apiserver.authn.certificate import AUTHENTICATED
from steersman.apiserver.call import User
from steersman.apiserver.storage import Storage
from steersman.lib.clock import parse_rfc3339

FORM = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
TYPE = "bootstrap.kubernetes.io/token"
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_EVERYONE = "system:bootstrappers"


def user_of(token: str, storage: Storage, registry: Registry, now: float) -> User | None:
    """The user of a token, `now` in Unix seconds; None when there is no such token or it is no good."""
    form, kind = FORM.fullmatch(token), registry.find("", "secrets")
    if form is None or kind is None:
        return None
    number, secret = form.groups()
    item = storage.find(kind, "kube-system", f"bootstrap-token-{number}")
    if item is None:
        return None
    obj = item.obj()
    if obj["metadata"].get("deletionTimestamp") or obj.get("type") != TYPE:
        return None
    data = {key: _text(value) for key, value in (obj.get("data") or {}).items()}
    if not hmac.compare_digest(data.get("token-secret", ""), secret) or data.get("token-id") != number:
        return None
    groups = _groups(data)
    if groups is None or _expired(data, now) or data.get("usage-bootstrap-authentication") != "true":
        return None
    return User(f"system:bootstrap:{number}", (*groups, AUTHENTICATED))


def _text(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode("ascii")
    except (ValueError, binascii.Error):
        return ""


def _expired(data: Object, now: float) -> bool:
    until = data.get("expiration")
    try:
        return bool(until) and parse_rfc3339(until) <= now
    except ValueError:
        return True  # what cannot be read is over, to be safe


def _groups(data: Object) -> list[str] | None:
    """The token's groups; None when some are not allowed."""
    extra = data.get("auth-extra-groups")
    named = extra.split(",") if extra else []
    if not all(_GROUP.fullmatch(group) for group in named):
        return None
    return sorted({_EVERYONE, *named})
