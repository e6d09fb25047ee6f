"""Who is at the other end of a request: by client certificate, by bearer token, and what he may do.

Owns `Caller`, and `Reviews`, which asks the API server (SubjectAccessReview, TokenReview) and remembers its answers for
a short while. Called by components that serve HTTPS themselves. Source: apiserver's delegated authentication and
authorization.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.resource import Resource
from steersman.client.client import Client
from steersman.lib.clock import Clock
from steersman.lib.http.messages import Request

log = logging.getLogger(__name__)

_ACCESS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
_TOKEN = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
_MOST = 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """The user that a verified client certificate names, or a token."""

    name: str
    groups: Sequence[str]


def caller(request: Request) -> Caller | None:
    """Who asks, or None without a certificate; remembered with the connection."""
    if request.peer.certificate is None:
        return None
    if not isinstance(request.peer.identity, Caller):
        request.peer.identity = _parse(request.peer.certificate)
    found: Caller = request.peer.identity
    return found


def bearer(request: Request) -> str:
    """The bearer token of a request, or ""."""
    scheme, _, token = (request.header("authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _parse(der: bytes) -> Caller:
    from cryptography import x509  # 40 ms to import, needed with the first request
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(der).subject
    names = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return Caller(names[0] if names else "", groups)


class Reviews:
    """Answers are good for so many seconds. When the API server cannot be asked, the answer is no."""

    def __init__(self, client: Client, clock: Clock, *, yes: float, no: float, identity: float) -> None:
        self._client = client
        self._clock = clock
        self._yes, self._no, self._identity = yes, no, identity
        self._memory: dict[Any, tuple[float, Any]] = {}  # key: good until, answer

    async def may(self, who: Caller, what: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether the caller may do what `what` says: resourceAttributes or nonResourceAttributes."""
        said = tuple((key, *sorted(value.items())) for key, value in what.items())
        key = (who.name, tuple(who.groups), said)
        known = self._recall(key)
        if known is not None:
            return bool(known)
        status = await self._ask(_ACCESS, {"user": who.name, "groups": list(who.groups), **what})
        if status is None:
            return False
        allowed = bool(status.get("allowed"))
        self._remember(key, allowed, self._yes if allowed else self._no)
        return allowed

    async def identify(self, token: str) -> Caller | None:
        """The user of a bearer token, or None."""
        key = hashlib.sha256(token.encode()).digest()
        known = self._recall(key)
        if isinstance(known, Caller):
            return known
        status = await self._ask(_TOKEN, {"token": token})
        if status is None or not status.get("authenticated"):
            return None
        user = status.get("user") or {}
        found = Caller(str(user.get("username", "")), [str(each) for each in user.get("groups") or ()])
        self._remember(key, found, self._identity)
        return found

    async def _ask(self, resource: Resource, spec: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = await self._client.create(resource, {"metadata": {}, "spec": spec})
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("cannot ask the API server for a %s: %s", resource.kind, error)
            return None
        return dict(answer.get("status") or {})

    def _recall(self, key: Any) -> Any:
        until, answer = self._memory.get(key, (0.0, None))
        return answer if self._clock.monotonic() < until else None

    def _remember(self, key: Any, answer: Any, seconds: float) -> None:
        if len(self._memory) >= _MOST:
            self._memory.clear()
        self._memory[key] = (self._clock.monotonic() + seconds, answer)
