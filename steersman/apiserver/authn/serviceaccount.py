"""Service-account tokens: signed here, verified here, dead with what they are bound to.

Owns the JWTs (ES256), the issuer's discovery documents, and the check that account, pod, secret and node still are what
they were. Source: KEP-1205, KEP-1393; pkg/serviceaccount/claims.go.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.apiserver.authn.certificate import AUTHENTICATED, CREDENTIAL_ID
from steersman.apiserver.cache import Item
from steersman.apiserver.call import User
from steersman.apiserver.storage import Storage
from steersman.lib.clock import Clock, parse_rfc3339
from steersman.lib.http.messages import Request

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_SUBPROTOCOL = "base64url.bearer.authorization.k8s.io."
_WARN_AFTER = 3607  # seconds: what is asked for every pod's token; such tokens are made to last longer
_EXTENDED = 365 * 24 * 3600  # seconds
_LEEWAY = 60.0  # seconds, for clocks that differ and for objects that are being deleted
_REMEMBERED = 4096
_GONE = "service account token has been invalidated"
_BOUND = {"pod": "pods", "secret": "secrets"}
_KEEPER = "kubernetes.io/service-account-token"
_EXTRA = "authentication.kubernetes.io"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


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
        self._pem = private_key
        self._loaded: tuple[EllipticCurvePrivateKey, str] | None = None

    def _key(self) -> tuple[EllipticCurvePrivateKey, str]:
        """The key and its id, loaded when first needed."""
        if self._loaded is None:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec

            key = serialization.load_pem_private_key(self._pem, None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            der = key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self._loaded = key, _encode(hashlib.sha256(der).digest())
        return self._loaded

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
        return self._signed(claims)

    def _signed(self, claims: Object) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        key, number = self._key()
        head = _encode(msgspec.json.encode({"alg": "ES256", "kid": number}))
        text = f"{head}.{_encode(msgspec.json.encode(claims))}"
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def verify(self, token: str) -> Object:
        """The claims of a token that this key signed; times are not looked at. Raises BadToken."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        try:
            head, body, signature = token.split(".")
            if msgspec.json.decode(_decode(head)).get("alg") != "ES256":
                raise BadToken("not signed with ES256")
            raw = _decode(signature)
            if len(raw) != 64:
                raise BadToken("the signature has the wrong length")
            der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
            self._key()[0].public_key().verify(der, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
            claims = msgspec.json.decode(_decode(body))
        except InvalidSignature:
            raise BadToken("the signature is not ours") from None
        except (ValueError, AttributeError, binascii.Error, msgspec.DecodeError) as error:
            raise BadToken(f"malformed: {error}") from None
        if not isinstance(claims, dict) or claims.get("iss") != self.issuer:
            raise BadToken("another issuer")
        return claims

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
        key, number = self._key()
        public = key.public_key().public_numbers()
        return {
            "keys": [
                {
                    "use": "sig",
                    "kty": "EC",
                    "kid": number,
                    "crv": "P-256",
                    "alg": "ES256",
                    "x": _encode(public.x.to_bytes(32, "big")),
                    "y": _encode(public.y.to_bytes(32, "big")),
                }
            ]
        }


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
        if item is None or metadata["uid"] != bound.get("uid"):
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
    extra: dict[str, tuple[str, ...]] = {CREDENTIAL_ID: (f"JTI={claims.get('jti', '')}",)}
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
        return _decode(found[0]).decode()
    except ValueError as error:
        raise BadToken(f"malformed: {error}") from None
