"""Tokens of service accounts for pods, asked for by TokenRequest and renewed in time.

Owns the cache: one token for (pod, audience, lifetime), asked for again when 80 % of its life or 24 hours have passed.
Called by the projected volume type. Source: KEP-1205.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from steersman.api.errors import ApiError
from steersman.api.resource import SERVICEACCOUNTS, Object
from steersman.kubelet import podspec
from steersman.lib.clock import parse_rfc3339

if TYPE_CHECKING:
    from steersman.client.client import Client
    from steersman.lib.clock import Clock

_LONGEST_USE = 24 * 3600.0
RENEW_CHECK = 300.0
"""Seconds between looks at whether a pod's tokens are due."""


class Tokens:
    """Bound service account tokens (`volumes.context.TokenSource`)."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._tokens: dict[tuple[str, str, int], tuple[str, float]] = {}  # token, when to renew

    async def token(self, pod: Object, audience: str, seconds: int) -> str:
        """A token that is good for a while yet. Raises ApiError or OSError when there is none and none can be had."""
        key = (podspec.uid(pod), audience, seconds)
        cached = self._tokens.get(key)
        now = self._clock.now()
        if cached is not None and now < cached[1]:
            return cached[0]
        try:
            answer = await self._request(pod, audience, seconds)
        except (ApiError, OSError):
            if cached is not None:  # an old token is better than none: it may live on for a fifth of its time
                return cached[0]
            raise
        status = answer["status"]
        life = parse_rfc3339(status["expirationTimestamp"]) - now
        self._tokens[key] = (status["token"], now + min(life * 0.8, _LONGEST_USE))
        return str(status["token"])

    async def _request(self, pod: Object, audience: str, seconds: int) -> Object:
        namespace, name = podspec.key(pod)
        account = pod["spec"].get("serviceAccountName") or "default"
        body: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": namespace},
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": podspec.uid(pod)},
            },
        }
        return await self._client.create(SERVICEACCOUNTS, body, namespace, name=account, subresource="token")

    def forget(self, uid: str) -> None:
        """A pod is gone."""
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]
