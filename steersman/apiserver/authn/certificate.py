"""Users by client certificate: the subject's common name is the user, its organizations are the groups.

The TLS server has verified the chain. Parsed once per connection. Source: apiserver's pkg/authentication/request/x509.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from steersman.api.errors import unauthorized
from steersman.apiserver.call import User
from steersman.lib.http.messages import Request

AUTHENTICATED = "system:authenticated"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
_UID = "1.3.6.1.4.1.57683.2"  # KEP-5018
_REMEMBERED = 10_000


def user_of(der: bytes) -> User | None:
    """The user that a certificate names; None without a common name. Raises ApiError 401."""
    from cryptography import x509  # 40 ms to import, needed with the first certificate
    from cryptography.x509.oid import NameOID

    try:
        subject = x509.load_der_x509_certificate(der).subject
    except ValueError:
        raise unauthorized() from None

    def values(oid: x509.ObjectIdentifier) -> list[str]:
        return [str(attribute.value) for attribute in subject.get_attributes_for_oid(oid)]

    names, uids = values(NameOID.COMMON_NAME), values(x509.ObjectIdentifier(_UID))
    if not names or not names[-1]:  # of several the last counts, as in Go's pkix.Name
        return None
    if len(uids) > 1 or uids == [""]:
        raise unauthorized()
    groups = dict.fromkeys([*values(NameOID.ORGANIZATION_NAME), AUTHENTICATED])
    extra = {CREDENTIAL_ID: (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)}
    return User(names[-1], tuple(groups), uids[0] if uids else "", extra)


class Authorities:
    """The certificates of one file, and what they have signed themselves (not through others)."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, and ValueError without a certificate in the file."""
        self._path = path
        self.reload()

    def reload(self) -> None:
        """Read the file anew. Raises as at the start; then those of before stay."""
        from cryptography import x509

        self._certificates = x509.load_pem_x509_certificates(self._path.read_bytes())
        self._known: dict[bytes, str | None] = {}

    def signed(self, der: bytes) -> str | None:
        """The common name of a certificate (may be empty); None when none of these authorities signed it."""
        if der not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[der] = self._verified(der)
        return self._known[der]

    def _verified(self, der: bytes) -> str | None:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature
        from cryptography.x509.oid import NameOID

        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            return None
        for authority in self._certificates:
            try:
                certificate.verify_directly_issued_by(authority)
            except (ValueError, TypeError, InvalidSignature):
                continue
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return str(names[-1].value) if names else ""
        return None


class CertificateAuthenticator:
    """Implements `app.Authenticator`. Where TLS lets others in too, `authorities` says who signs users."""

    def __init__(self, authorities: Authorities | None = None) -> None:
        self._known: dict[bytes, User] = {}
        self._authorities = authorities
        self._uses = Counter[bytes]()  # requests since somebody last asked, by certificate

    def __call__(self, request: Request) -> User | None:
        """The user of the connection's certificate; None without one."""
        peer = request.peer
        if peer.certificate is None:
            return peer.identity if isinstance(peer.identity, User) else None
        if isinstance(peer.identity, User):
            self._uses[peer.certificate] += 1
            return peer.identity
        if self._authorities is not None and self._authorities.signed(peer.certificate) is None:
            return None
        user = self._known.get(peer.certificate) or user_of(peer.certificate)
        if user is not None:
            if len(self._known) < _REMEMBERED:
                self._known[peer.certificate] = user
            peer.identity = user
            if len(self._uses) < _REMEMBERED:
                self._uses[peer.certificate] += 1
        return user

    def taken(self) -> Iterator[tuple[float, int]]:
        """Until when certificates are good, in Unix seconds, and for how many requests each served since then."""
        from cryptography import x509

        uses, self._uses = self._uses, Counter()
        for der, times in uses.items():
            yield x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp(), times
