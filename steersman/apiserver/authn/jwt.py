"""JSON web tokens of others: signatures checked against an issuer's published keys.

Owns the algorithms, all asymmetric, and which key each of them takes: a token cannot choose another use for a key.
Called by `oidc.py`. Pure. Source: RFC 7515, 7517, 7518.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from steersman.api.resource import Object
from steersman.apiserver.authn.serviceaccount import BadToken

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": ("ES256", 32), "P-384": ("ES384", 48), "P-521": ("ES512", 66)}
_MOST = 64 * 1024  # characters of a token


@dataclass(frozen=True, slots=True)
class Key:
    """One public key. `size` is an elliptic curve's, in bytes; `algorithms` are those that it may verify."""

    id: str
    algorithms: Sequence[str]
    public: Any
    size: int = 0


def decoded(text: str) -> bytes:
    """base64url without padding. Raises BadToken."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise BadToken("malformed: not base64url") from None


def _json(text: str) -> Object:
    try:
        found = msgspec.json.decode(decoded(text))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadToken("malformed: not JSON") from None
    if not isinstance(found, dict):
        raise BadToken("malformed: not an object")
    return found


def unverified(token: str) -> tuple[Object, Object]:
    """Header and claims, not to be believed. Raises BadToken."""
    parts = token.split(".") if len(token) <= _MOST else ()
    if len(parts) != 3:
        raise BadToken("malformed: not three parts")
    return _json(parts[0]), _json(parts[1])


def key_of(jwk: Object) -> Key | None:
    """A key of a key set; None for one that signs nothing here, or is malformed."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if jwk.get("use", "sig") != "sig":
        return None
    try:
        if jwk.get("kty") == "RSA":
            number = rsa.RSAPublicNumbers(*(int.from_bytes(decoded(jwk[name])) for name in ("e", "n"))).public_key()
            fitting = [name for name in ALGORITHMS if name[0] in "RP"]
            key = Key(str(jwk.get("kid", "")), fitting, number)
        elif jwk.get("kty") == "EC" and jwk.get("crv") in _CURVES:
            algorithm, size = _CURVES[jwk["crv"]]
            curve = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}[jwk["crv"]]()
            point = (int.from_bytes(decoded(jwk[name])) for name in ("x", "y"))
            numbers = ec.EllipticCurvePublicNumbers(next(point), next(point), curve)
            key = Key(str(jwk.get("kid", "")), [algorithm], numbers.public_key(), size)
        else:
            return None
    except (BadToken, KeyError, TypeError, ValueError, AttributeError):
        return None
    declared = jwk.get("alg")
    if declared is None:
        return key
    return Key(key.id, [declared], key.public, key.size) if declared in key.algorithms else None


def verify(token: str, algorithm: str, key: Key) -> bool:
    """Whether `key` signed the token with this algorithm."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

    if algorithm not in key.algorithms:
        return False
    text, _, last = token.rpartition(".")
    signature, data = decoded(last), text.encode("ascii", "replace")
    digest = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}[algorithm[2:]]()
    try:
        if algorithm.startswith("ES"):
            if len(signature) != 2 * key.size:
                return False
            r, s = (int.from_bytes(half) for half in (signature[: key.size], signature[key.size :]))
            key.public.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(digest))
        elif algorithm.startswith("PS"):
            pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
            key.public.verify(signature, data, pss, digest)
        else:
            key.public.verify(signature, data, padding.PKCS1v15(), digest)
    except InvalidSignature:
        return False
    return True
