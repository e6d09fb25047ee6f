"""Front proxies: a proxy with a certificate of its own authority tells in headers who asks.

Owns the headers' names and whom to believe. The TLS server has verified the certificate; here it must also be of the
proxies' authority. Source: apiserver's pkg/authentication/request/headerrequest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from steersman.apiserver.authn.certificate import AUTHENTICATED, Authorities
from steersman.apiserver.call import User
from steersman.lib.http.messages import Request


@dataclass(frozen=True)
class Headers:
    """The names of the headers, lower case, and the proxies' common names (empty: any)."""

    users: Sequence[str] = ("x-remote-user",)
    uids: Sequence[str] = ()
    groups: Sequence[str] = ("x-remote-group",)
    extras: Sequence[str] = ("x-remote-extra-",)
    allowed: Sequence[str] = field(default=())


class RequestHeader:
    """Implements `app.Authenticator`."""

    def __init__(self, authorities: Authorities, headers: Headers) -> None:
        self._authorities = authorities
        self._headers = headers

    def __call__(self, request: Request) -> User | None:
        """The user that a known proxy names; None from anybody else, or without a user."""
        certificate = request.peer.certificate
        if certificate is None:
            return None
        name = next((value for key in self._headers.users if (value := request.header(key))), "")
        if not name or not self._trusted(certificate):
            return None
        groups = [value for key in self._headers.groups for value in request.header_all(key)]
        uid = next((value for key in self._headers.uids if (value := request.header(key))), "")
        extra: dict[str, tuple[str, ...]] = {}
        for key, value in request.headers:
            for prefix in self._headers.extras:
                if key.startswith(prefix):
                    plain = unquote(key.removeprefix(prefix))
                    extra[plain] = (*extra.get(plain, ()), value)
        return User(name, tuple(dict.fromkeys([*groups, AUTHENTICATED])), uid, extra)

    def _trusted(self, certificate: bytes) -> bool:
        common = self._authorities.signed(certificate)
        return common is not None and (not self._headers.allowed or common in self._headers.allowed)
