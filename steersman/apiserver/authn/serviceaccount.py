"""Service-account tokens: signed here, verified here, dead with what they are bound to.

Owns the JWTs (ES256), the issuer's discovery documents, and the check that account, pod, secret and node still are what
they were. Source: KEP-1205, KEP-1393; pkg/serviceaccount/claims.go.
"""

from __future__ import annotations

import base64
import hmac
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.apiserver.authn.certificate import AUTHENTICATED, CREDENTIAL_ID
from steersman.apiserver.cache import Item
from steersman.apiserver.call import User
from steersman.apiserver.storage import Storage
from steersman.lib.clock import Clock, parse_rfc3339
from steersman.lib.http.messages import Request
from steersman.lib.jwt import BadSignature, SigningKey, decode, issuer_of

_SUBPROTOCOL = "base64url.bearer.authorization.k8s.io."
_WARN_AFTER = 3607  # seconds: what is asked for every pod's token; such tokens are made to last longer
_EXTENDED = 365 * 24 * 3600  # seconds
_LEEWAY = 60.0  # seconds, for clocks that differ and for objects that are being deleted
_REMEMBERED = 4096
_GONE = "service account token has been invalidated"
_BOUND = {"pod": "pods", "secret": "secrets"}
_LEGACY = "kubernetes/serviceaccount"
_LEGACY_CLAIMS = {
    "namespace": "namespace",
    "secret.name": "secretName",
    "service-account.name": "serviceAccountName",
    "service-account.uid": "serviceAccountUID",
}
_NEVER = 1 << 53  # seconds
_KEEPER = "kubernetes.io/service-account-token"
_EXTRA = "authentication.kubernetes.io"


Used = Callable[[Object], str]
"""Told the Secret whose own token somebody uses; returns why the token is not good, or nothing."""


class BadToken(Exception):
    """The token is not good; the text is for the log."""


class Tokens:
    """Signs and verifies with one key. `audiences` are the API server's own."""

    def __init__(self, private_key: bytes, issuer: str, audiences: Sequence[str]) -> None:
        """`private_key`: PEM, P-256."""
        self.issuer = issuer
        self.audiences = list(audiences)
        self._key = SigningKey(private_key)

    def sign(
        self,
        account: Object,
        audiences: Sequence[str],
        seconds: int,
        now: float,
        bound: tuple[str, str, str, Object | None] | None,
        node_uid: str = "",
    ) -> str:
        """A token for `account`, good for `seconds`; `bound` is (kind, name, uid, object), `node_uid` its node's.

        A pod's token for the API server itself lasts a year: programs that read it only once go on working, as in the
        original's --service-account-extend-token-expiration.
        """
        meta = account["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        kubernetes: Object = {"namespace": namespace, "serviceaccount": {"name": name, "uid": meta["uid"]}}
        if bound is not None:
            kind, bound_name, uid, obj = bound
            kubernetes[kind.lower()] = {"name": bound_name, "uid": uid}
            node = ((obj or {}).get("spec") or {}).get("nodeName")
            if kind == "Pod" and node:
                kubernetes["node"] = {"name": node} | ({"uid": node_uid} if node_uid else {})
            if kind == "Pod" and seconds == _WARN_AFTER and set(audiences) <= set(self.audiences):
                kubernetes["warnafter"] = int(now) + seconds
                seconds = _EXTENDED
        claims = {
            "aud": list(audiences),
            "exp": int(now) + seconds,
            "iat": int(now),
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": kubernetes,
            "nbf": int(now),
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        return self._key.sign(claims)

    def claimed(self, token: str) -> bool:
        """Whether a token says that it is of this server's making, which nobody has looked into yet."""
        return issuer_of(token) in (self.issuer, _LEGACY)

    def verify(self, token: str) -> Object:
        """The claims of a token that this key signed; times are not looked at. Raises BadToken."""
        try:
            claims = self._key.verify(token)
        except BadSignature as error:
            raise BadToken(str(error)) from None
        if claims.get("iss") == _LEGACY:
            return self._modern(claims)
        if claims.get("iss") != self.issuer:
            raise BadToken("another issuer")
        return claims

    def _modern(self, claims: Object) -> Object:
        """A token of the older form, as those of today are: for this server, without an end. Raises BadToken."""
        if not claims.get("sub"):
            raise BadToken("sub claim is missing")
        found = {}
        for key, shown in _LEGACY_CLAIMS.items():
            found[key] = claims.get(f"kubernetes.io/serviceaccount/{key}") or ""
            if not found[key]:
                raise BadToken(f"{shown} claim is missing")
        namespace, name = found["namespace"], found["service-account.name"]
        if claims.get("sub") != f"system:serviceaccount:{namespace}:{name}":
            raise BadToken("sub claim is invalid")
        account = {"name": name, "uid": found["service-account.uid"]}
        ours = {"namespace": namespace, "serviceaccount": account, "secret": {"name": found["secret.name"]}}
        return {"iss": _LEGACY, "aud": self.audiences, "exp": _NEVER, "sub": claims["sub"], "kubernetes.io": ours}

    def discovery(self) -> Object:
        """/.well-known/openid-configuration."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def jwks(self) -> Object:
        """/openid/v1/jwks."""
        return {"keys": [self._key.public()]}


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that was good, and the objects that it was good with: while they are the same, so is the user."""

    claims: Object
    user: User
    items: Sequence[tuple[str, str, str, Item]]  # plural, namespace, name, object
    kept_in: Object | None  # the Secret that keeps this very token


class AccountTokens:
    """A source of bearer tokens (`bearer.Source`): service accounts'."""

    def __init__(
        self, tokens: Tokens, storage: Storage, registry: Registry, clock: Clock, used: Used = lambda _: ""
    ) -> None:
        """`used` hears of every use of a token that a Secret keeps."""
        self._tokens = tokens
        self._used = used
        self._storage = storage
        self._registry = registry
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def user(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]]:
        """Whose token it is, and the wanted audiences that it is for. Raises BadToken."""
        known = self._known.get(token)
        claims = known.claims if known is not None else self._tokens.verify(token)
        now = self._clock.now()
        if _number(claims, "exp") + _LEEWAY < now:
            raise BadToken("service account token has expired")
        if _number(claims, "nbf") - _LEEWAY > now:
            raise BadToken("service account token is not valid yet")
        named = claims.get("aud") or []
        named = [named] if isinstance(named, str) else list(named)
        shared = [audience for audience in audiences if audience in named]
        if not shared:
            said, wanted = (" ".join(f'"{each}"' for each in group) for group in (named, audiences))
            raise BadToken(f"token audiences [{said}] is invalid for the target audiences [{wanted}]")
        if known is not None and all(self._find(*where) is item for *where, item in known.items):
            self._note(known.kept_in)
            return known.user, shared
        items = self._bound(claims, now)
        kept_in = _keeper(items, token)
        if kept_in is None and claims["iss"] == _LEGACY:
            raise BadToken("Token does not match server's copy")
        self._note(kept_in)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        user = user_of(claims)
        if all(b'"deletionTimestamp"' not in item.tail for *_, item in items):
            self._known[token] = _Known(claims, user, items, kept_in)
        return user, shared

    def _note(self, secret: Object | None) -> None:
        if secret is not None and (problem := self._used(secret)):
            raise BadToken(problem)

    def _find(self, plural: str, namespace: str, name: str) -> Item | None:
        kind = self._registry.find("", plural)
        return self._storage.find(kind, namespace, name) if kind is not None else None

    def _bound(self, claims: Object, now: float) -> list[tuple[str, str, str, Item]]:
        """What the token lives and dies with. Raises BadToken when some of it is gone."""
        ours = claims.get("kubernetes.io") or {}
        namespace = ours.get("namespace", "")
        wanted = [("serviceaccounts", namespace, ours.get("serviceaccount") or {})]
        wanted += [(plural, namespace, ours[kind]) for kind, plural in _BOUND.items() if ours.get(kind)]
        if (node := ours.get("node")) and not ours.get("pod"):  # a pod's node is only told, not checked
            wanted.append(("nodes", "", node))
        return [self._check(plural, where, bound, now) for plural, where, bound in wanted]

    def _check(self, plural: str, namespace: str, bound: Any, now: float) -> tuple[str, str, str, Item]:
        name = bound.get("name", "")
        item = self._find(plural, namespace, name)
        metadata = item.obj()["metadata"] if item is not None else {}
        uid = bound.get("uid", metadata.get("uid")) if plural == "secrets" else bound.get("uid")
        if item is None or metadata["uid"] != uid:
            if plural == "serviceaccounts" and item is not None:
                raise BadToken(f"service account UID ({metadata['uid']}) does not match claim ({bound.get('uid')})")
            raise BadToken(_GONE)
        deleted = metadata.get("deletionTimestamp")
        if deleted and parse_rfc3339(deleted) < now - _LEEWAY:
            raise BadToken(_GONE)
        return plural, namespace, name, item


def _keeper(items: Sequence[tuple[str, str, str, Item]], token: str) -> Object | None:
    """The Secret among `items` that keeps this very token for whoever reads it; others only limit a token's life."""
    for plural, _, _, item in items:
        if plural == "secrets" and (secret := item.obj()).get("type") == _KEEPER:
            kept = (secret.get("data") or {}).get("token", "")
            if hmac.compare_digest(kept.encode(), base64.b64encode(token.encode())):
                return secret
    return None


def _number(claims: Object, name: str) -> float:
    value = claims.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadToken(f"the claim {name} is no time")
    return float(value)


def user_of(claims: Object) -> User:
    """The user that a token's claims describe."""
    ours = claims.get("kubernetes.io") or {}
    namespace, account = ours.get("namespace", ""), ours.get("serviceaccount") or {}
    extra: dict[str, tuple[str, ...]] = {CREDENTIAL_ID: (f"JTI={claims['jti']}",)} if claims.get("jti") else {}
    if node := ours.get("node"):
        extra[f"{_EXTRA}/node-name"] = (node["name"],)
        if node.get("uid"):
            extra[f"{_EXTRA}/node-uid"] = (node["uid"],)
    if pod := ours.get("pod"):
        extra[f"{_EXTRA}/pod-name"] = (pod["name"],)
        extra[f"{_EXTRA}/pod-uid"] = (pod["uid"],)
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    name = f"system:serviceaccount:{namespace}:{account.get('name', '')}"
    return User(name, groups, account.get("uid", ""), extra)


def bearer(request: Request) -> str:
    """The bearer token of a request, empty without one. Raises BadToken when a WebSocket's is malformed.

    Browsers cannot set headers on a WebSocket; they send the token as a subprotocol.
    """
    parts = (request.header("authorization") or "").strip().split(" ", 2)
    if len(parts) > 1 and parts[0].lower() == "bearer" and parts[1]:
        return parts[1]
    if (request.header("upgrade") or "").lower() != "websocket":
        return ""
    offered = [part.strip() for text in request.header_all("sec-websocket-protocol") for part in text.split(",")]
    found = [part.removeprefix(_SUBPROTOCOL) for part in offered if part.startswith(_SUBPROTOCOL)]
    if not found:
        return ""
    if len(found) > 1 or len(found) == len(offered):
        raise BadToken("one token, and one subprotocol besides")
    try:
        return decode(found[0]).decode()
    except ValueError as error:
        raise BadToken(f"malformed: {error}") from None
