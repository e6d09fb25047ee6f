"""What is told about a Secret of type kubernetes.io/tls whose certificate and key do not make a pair.

Owns the texts of Go's crypto/tls for the two halves. Called for the warnings of a write; such a Secret is stored all
the same. Pure.
"""

from __future__ import annotations

import re

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)


def complain(certificate: bytes, key: bytes) -> str:
    """Why these are no pair; empty when they are, or when only a parser could tell."""
    kinds = [match.decode() for match in _BLOCK.findall(certificate)]
    if "CERTIFICATE" not in kinds:
        return _no_certificate(kinds)
    kinds = [match.decode() for match in _BLOCK.findall(key)]
    if not any(kind == "PRIVATE KEY" or kind.endswith(" PRIVATE KEY") for kind in kinds):
        return _no_key(kinds)
    return _match(certificate, key)


def _no_certificate(kinds: list[str]) -> str:
    if not kinds:
        return "tls: failed to find any PEM data in certificate input"
    if len(kinds) == 1 and kinds[0].endswith("PRIVATE KEY"):
        return (
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; "
            "PEM inputs may have been switched"
        )
    return (
        'tls: failed to find "CERTIFICATE" PEM block in certificate input after skipping PEM blocks of the following '
        f"types: [{' '.join(kinds)}]"
    )


def _no_key(kinds: list[str]) -> str:
    if not kinds:
        return "tls: failed to find any PEM data in key input"
    if kinds == ["CERTIFICATE"]:
        return "tls: found a certificate rather than a key in the PEM for the private key"
    return (
        'tls: failed to find PEM block with type ending in "PRIVATE KEY" in key input after skipping PEM blocks of '
        f"the following types: [{' '.join(kinds)}]"
    )


def _match(certificate: bytes, key: bytes) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm  # here: few writes come to this
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates

    try:
        public = load_pem_x509_certificates(certificate)[0].public_key()
        private = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return ""
    if type(public) is not type(private):
        return "tls: private key type does not match public key type"
    return "" if public == private else "tls: private key does not match public key"
