"""Service-account tokens: signed here, verified here, dead with what they are bound to.

Owns the JWTs (ES256), the issuer's discovery documents, and the check that account, pod, secret and node still are what
they were. Source: KEP-1205, KEP-1393; pkg/serviceaccount/claims.go.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from steersman.api.errors import unauthorized
from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.apiserver.authn.certificate import AUTHENTICATED
from steersman.apiserver.call import User
from steersman.apiserver.storage import Storage
from steersman.lib.clock import Clock
from steersman.lib.http.messages import Request

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_PREFIX = "Bearer "
_WARN_AFTER = 3607  # seconds: what kubelets ask for; such tokens are made to last longer
_REMEMBERED = 4096
_KINDS = {"pod": "pods", "secret": "secrets", "node": "nodes"}


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


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
        """A token for `account`, good for `seconds`; `bound` is (kind, name, uid, object), `node_uid` its node's."""
        meta = account["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        kubernetes: Object = {"namespace": namespace, "serviceaccount": {"name": name, "uid": meta["uid"]}}
        if bound is not None:
            kind, bound_name, uid, obj = bound
            kubernetes[kind.lower()] = {"name": bound_name, "uid": uid}
            node = ((obj or {}).get("spec") or {}).get("nodeName")
            if kind == "Pod" and node:
                kubernetes["node"] = {"name": node} | ({"uid": node_uid} if node_uid else {})
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


class TokenAuthenticator:
    """Implements `app.Authenticator` for bearer tokens."""

    def __init__(self, tokens: Tokens, storage: Storage, registry: Registry, clock: Clock) -> None:
        self._tokens = tokens
        self._storage = storage
        self._registry = registry
        self._clock = clock
        self._verified: dict[str, Object] = {}

    def __call__(self, request: Request) -> User | None:
        """The account of a good token; None without one. Raises ApiError 401 for a bad one."""
        given = request.header("authorization")
        if given is None or not given.startswith(_PREFIX):
            return None
        token = given[len(_PREFIX) :].strip()
        if not token:
            return None
        try:
            return self.user(token)
        except BadToken:
            raise unauthorized() from None

    def user(self, token: str) -> User:
        """Whose token it is. Raises BadToken."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._tokens.verify(token)
            if len(self._verified) >= _REMEMBERED:
                self._verified.clear()
            self._verified[token] = claims
        now = self._clock.now()
        if claims.get("exp", 0) < now or claims.get("nbf", 0) > now + 1:
            raise BadToken("expired or not yet valid")
        if not set(claims.get("aud") or ()) & set(self._tokens.audiences):
            raise BadToken("for another audience")
        return self._user(claims)

    def _user(self, claims: Object) -> User:
        ours = claims.get("kubernetes.io") or {}
        namespace, account = ours.get("namespace", ""), ours.get("serviceaccount") or {}
        self._check("serviceaccounts", namespace, account)
        extra: dict[str, tuple[str, ...]] = {
            "authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti', '')}",)
        }
        for kind in ("pod", "secret"):
            if bound := ours.get(kind):
                self._check(_KINDS[kind], namespace, bound)
        if pod := ours.get("pod"):
            extra["authentication.kubernetes.io/pod-name"] = (pod["name"],)
            extra["authentication.kubernetes.io/pod-uid"] = (pod["uid"],)
        if node := ours.get("node"):
            extra["authentication.kubernetes.io/node-name"] = (node["name"],)
            if node.get("uid"):
                extra["authentication.kubernetes.io/node-uid"] = (node["uid"],)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        name = f"system:serviceaccount:{namespace}:{account.get('name', '')}"
        return User(name, groups, account.get("uid", ""), extra)

    def _check(self, plural: str, namespace: str, bound: Any) -> None:
        kind = self._registry.find("", plural)
        item = self._storage.find(kind, namespace, bound.get("name", "")) if kind is not None else None
        if item is None or item.obj()["metadata"]["uid"] != bound.get("uid"):
            raise BadToken(f"{plural} {namespace}/{bound.get('name')} is gone")
