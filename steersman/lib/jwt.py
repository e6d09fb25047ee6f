"""JSON web tokens under one key: signed, verified, and the key as others may know it.

Owns ES256 and the encodings around it. Called by whoever hands out such tokens; it looks at no claim. The key is loaded
when it is first needed. Source: RFC 7515, 7517, 7518.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

Claims = dict[str, Any]


class BadSignature(Exception):
    """The token is not one that the key signed; the text says why."""


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    """Bytes of base64url without padding. Raises ValueError."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def issuer_of(token: str) -> str:
    """Who a token says that it is from, unverified; empty when it says nothing or is no JWT (RFC 7519)."""
    try:
        _, body, _ = token.split(".")
        claims = msgspec.json.decode(decode(body))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return ""
    found = claims.get("iss") if isinstance(claims, dict) else None
    return found if isinstance(found, str) else ""


class SigningKey:
    """An elliptic curve's private key, P-256."""

    def __init__(self, pem: bytes) -> None:
        self._pem = pem
        self._loaded: tuple[EllipticCurvePrivateKey, str] | None = None

    def _key(self) -> tuple[EllipticCurvePrivateKey, str]:
        """The key and its id."""
        if self._loaded is None:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec

            key = serialization.load_pem_private_key(self._pem, None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            der = key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self._loaded = key, encode(hashlib.sha256(der).digest())
        return self._loaded

    def sign(self, claims: Claims) -> str:
        """A token that says so."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        key, number = self._key()
        head = encode(msgspec.json.encode({"alg": "ES256", "kid": number}))
        text = f"{head}.{encode(msgspec.json.encode(claims))}"
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def verify(self, token: str) -> Claims:
        """The claims of a token that this key signed. Raises BadSignature."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        try:
            head, body, signature = token.split(".")
            if msgspec.json.decode(decode(head)).get("alg") != "ES256":
                raise BadSignature("not signed with ES256")
            raw = decode(signature)
            if len(raw) != 64:
                raise BadSignature("the signature has the wrong length")
            der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
            self._key()[0].public_key().verify(der, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
            claims = msgspec.json.decode(decode(body))
        except InvalidSignature:
            raise BadSignature("the signature is not ours") from None
        except (ValueError, AttributeError, binascii.Error, msgspec.DecodeError) as error:
            raise BadSignature(f"malformed: {error}") from None
        if not isinstance(claims, dict):
            raise BadSignature("malformed: no claims")
        return claims

    def public(self) -> Claims:
        """The public key as a JSON web key for signatures."""
        key, number = self._key()
        numbers = key.public_key().public_numbers()
        x, y = (encode(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
        return {"use": "sig", "kty": "EC", "kid": number, "crv": "P-256", "alg": "ES256", "x": x, "y": y}
