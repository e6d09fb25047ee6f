"""Asking the API server who may use the kubelet's HTTPS server, and whose a bearer token is.

Owns the questions (SubjectAccessReview, TokenReview) and a short memory of their answers. Called by `server` through
its seams `allow` and `identify`; the API server's own certificate needs no question. Source: the kubelet's webhook
authentication and authorization, with its default cache times.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from steersman.api.errors import ApiError
from steersman.api.resource import Resource
from steersman.kubelet.authorize import Attributes, Caller, api_server_only

if TYPE_CHECKING:
    from steersman.client.client import Client
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_ACCESS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
_TOKEN = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
_YES, _NO, _IDENTITY = 300.0, 30.0, 120.0  # seconds that an answer is good for
_MOST = 1024


class Reviews:
    """Answers for one node. When the API server cannot be asked, the answer is no."""

    def __init__(self, client: Client, clock: Clock, node_name: str) -> None:
        self._client = client
        self._clock = clock
        self._node = node_name
        self._memory: dict[Any, tuple[float, Any]] = {}  # key: good until, answer

    async def allow(self, wants: Attributes) -> bool:
        """Whether one of the subresources may be used (`authorize.Allow`)."""
        if api_server_only(wants):
            return True
        for subresource in wants.subresources:
            if await self._may(wants.caller, wants.verb, subresource):
                return True
        return False

    async def _may(self, who: Caller, verb: str, subresource: str) -> bool:
        key = (who.name, tuple(who.groups), verb, subresource)
        known = self._recall(key)
        if known is not None:
            return bool(known)
        attributes = {
            "verb": verb,
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": self._node,
        }
        spec = {"user": who.name, "groups": list(who.groups), "resourceAttributes": attributes}
        status = await self._ask(_ACCESS, spec)
        if status is None:
            return False
        allowed = bool(status.get("allowed"))
        self._remember(key, allowed, _YES if allowed else _NO)
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
        self._remember(key, found, _IDENTITY)
        return found

    async def _ask(self, resource: Resource, spec: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = await self._client.create(resource, {"metadata": {}, "spec": spec})
        except (ApiError, OSError) as error:
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
