"""Users by client certificate: the subject's common name is the user, its organizations are the groups.

The TLS server has verified the chain. Parsed once per connection. Source: apiserver's pkg/authentication/request/x509.
"""

from __future__ import annotations

from steersman.apiserver.call import User
from steersman.lib.http.messages import Request

AUTHENTICATED = "system:authenticated"


def user_of(der: bytes) -> User:
    """The user that a certificate names."""
    from cryptography import x509  # 40 ms to import, needed with the first certificate
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(der).subject
    names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return User(names[0] if names else "", (*groups, AUTHENTICATED))


class CertificateAuthenticator:
    """Implements `app.Authenticator`."""

    def __init__(self) -> None:
        self._known: dict[bytes, User] = {}

    def __call__(self, request: Request) -> User | None:
        """The user of the connection's certificate; None without one."""
        peer = request.peer
        if peer.identity is not None:
            return peer.identity if isinstance(peer.identity, User) else None
        if peer.certificate is None:
            return None
        user = self._known.get(peer.certificate)
        if user is None:
            user = user_of(peer.certificate)
            if len(self._known) < 10_000:
                self._known[peer.certificate] = user
        peer.identity = user
        return user if user.name else None
