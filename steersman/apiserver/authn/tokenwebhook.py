"""Tokens that another program knows: it is asked with a TokenReview.

Owns the review's form and how long answers are remembered. Source: apiserver's plugin/pkg/authenticator/token/webhook.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Sequence
from typing import Any

from steersman.api.resource import Object
from steersman.apiserver.authn.bearer import Verified
from steersman.apiserver.authn.certificate import AUTHENTICATED
from steersman.apiserver.authn.serviceaccount import BadToken
from steersman.apiserver.call import User
from steersman.apiserver.webhookclient import Webhook, WebhookFailed
from steersman.lib.clock import Clock

_REMEMBERED = 4096


class TokenWebhook:
    """A source of tokens. `own` are the API server's audiences; good answers are remembered `kept` seconds."""

    def __init__(
        self, webhook: Webhook, clock: Clock, own: Sequence[str], *, version: str = "v1beta1", kept: float = 120.0
    ) -> None:
        self._webhook = webhook
        self._clock = clock
        self._own = own
        self._version = version
        self._kept = kept
        self._known: dict[tuple[bytes, tuple[str, ...]], tuple[float, Verified]] = {}

    def __call__(self, token: str, audiences: Sequence[str]) -> Verified | Awaitable[Verified | None]:
        """What the other program says. Raises BadToken, also when it cannot be asked."""
        key = hashlib.sha256(token.encode(errors="surrogateescape")).digest(), tuple(audiences)
        known = self._known.get(key)
        if known is not None and known[0] > self._clock.monotonic():
            return known[1]
        return self._ask(key, token, audiences)

    async def _ask(self, key: tuple[bytes, tuple[str, ...]], token: str, audiences: Sequence[str]) -> Verified | None:
        review = {
            "apiVersion": f"authentication.k8s.io/{self._version}",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": list(audiences)},
            "status": {"user": {}},
        }
        try:
            status = (await self._webhook.post(review)).get("status")
        except WebhookFailed as error:
            raise BadToken(str(error)) from None
        status = status if isinstance(status, dict) else {}
        if status.get("authenticated") is not True:
            if problem := status.get("error"):
                raise BadToken(str(problem))
            return None
        told = status.get("audiences") or self._own  # a webhook that knows no audiences means the API server's
        shared = [audience for audience in audiences if audience in told]
        if not shared:
            return None
        verified = Verified(_user(status.get("user")), shared)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = self._clock.monotonic() + self._kept, verified
        return verified


def _user(info: Any) -> User:
    try:
        found: Object = info
        groups = dict.fromkeys([*(found.get("groups") or ()), AUTHENTICATED])
        extra = {str(key): tuple(map(str, values)) for key, values in (found.get("extra") or {}).items()}
        return User(str(found["username"]), tuple(map(str, groups)), str(found.get("uid") or ""), extra)
    except (AttributeError, KeyError, TypeError) as error:
        raise BadToken(f"the webhook's user cannot be read: {error}") from None
