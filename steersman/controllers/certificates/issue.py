"""The certificate for a request: what the cluster's CA signs.

Pure but for the signature's and serial number's randomness. Source: pkg/controller/certificates/authority, RFC 5280.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from steersman.controllers.certificates.requests import alternatives

_BACKDATE, _SHORT = timedelta(minutes=5), timedelta(hours=8)
_LONGEST = timedelta(days=365)
_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "data encipherment": "data_encipherment",
    "key agreement": "key_agreement",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_EXTENDED: dict[str, ObjectIdentifier] = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
}


def sign(
    parsed: x509.CertificateSigningRequest,
    usages: Sequence[str],
    seconds: float | None,
    authority: tuple[str, str],
    now: float,
    longest: timedelta = _LONGEST,
) -> bytes:
    """A PEM certificate; `authority` is the CA's certificate and key in PEM, `now` Unix seconds. Raises ValueError."""
    ca = x509.load_pem_x509_certificate(authority[0].encode())
    key = serialization.load_pem_private_key(authority[1].encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("the CA's key is neither an elliptic-curve nor an RSA key")
    begin, end = lifetime(datetime.fromtimestamp(int(now), UTC), seconds, ca.not_valid_after_utc, longest)
    flags = dict.fromkeys(_KEY_USAGES.values(), False)
    flags |= {_KEY_USAGES[usage]: True for usage in usages if usage in _KEY_USAGES}
    purposes = [_EXTENDED[usage] for usage in usages if usage in _EXTENDED]
    builder = (
        x509.CertificateBuilder()
        .subject_name(parsed.subject)
        .issuer_name(ca.subject)
        .public_key(parsed.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if any(flags.values()):
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if (names := alternatives(parsed)) is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def lifetime(
    now: datetime, seconds: float | None, ca_end: datetime, longest: timedelta = _LONGEST
) -> tuple[datetime, datetime]:
    """From when to when: `longest`, or the `seconds` asked for, ten minutes at least, never beyond the CA."""
    wanted = longest if seconds is None else min(longest, max(timedelta(minutes=10), timedelta(seconds=seconds)))
    begin = now - _BACKDATE
    end = (now if wanted < _SHORT else begin) + wanted
    return begin, min(end, ca_end)
