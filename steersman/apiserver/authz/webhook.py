"""Authorization by webhook: another program is asked with a SubjectAccessReview.

Owns the review's form, how long answers are remembered and what a failure means. Source: apiserver's
plugin/pkg/authorizer/webhook; KEP-4601 (selectors).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from steersman.api import labels
from steersman.api.cel import CelError
from steersman.api.resource import Object
from steersman.apiserver.authz.conditions import Conditions
from steersman.apiserver.authz.opinions import Deny, Failed, FailedDeny
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.webhookclient import Webhook, WebhookFailed
from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_REMEMBERED = 8192
_OPERATORS = {
    "in": "In",
    "=": "In",
    "==": "In",
    "notin": "NotIn",
    "!=": "NotIn",
    "exists": "Exists",
    "!": "DoesNotExist",
}


class WebhookAuthorizer:
    """Implements `app.Authorizer`. Times are seconds; a failure has no opinion, or with `deny_on_error` refuses."""

    def __init__(
        self,
        webhook: Webhook,
        clock: Clock,
        *,
        version: str = "v1",
        allowed_for: float = 300.0,
        denied_for: float = 30.0,
        deny_on_error: bool = False,
        conditions: Conditions | None = None,
    ) -> None:
        """Where `conditions` do not hold it has no opinion; where they fail, as where the webhook does."""
        self._webhook = webhook
        self._clock = clock
        self._version = version
        self._times = {True: allowed_for, False: denied_for}
        self._deny_on_error = deny_on_error
        self._conditions = conditions
        self._known: dict[bytes, tuple[float, str | None]] = {}
        self._said: dict[bytes, str] = {}  # with what words it last allowed something

    def __call__(self, user: User, info: RequestInfo) -> str | Awaitable[str | None] | None:
        """None when allowed; a Deny is final."""
        key = _key(user, info)
        known = self._known.get(key)
        if known is not None and known[0] > self._clock.monotonic():
            return known[1]
        spec = _spec(user, info)
        if self._conditions is not None:
            try:
                if not self._conditions.hold(spec):
                    return ""
            except CelError as error:
                return self._failed(str(error))
        return self._ask(key, spec)

    async def close(self) -> None:
        """Nobody asks any more."""
        await self._webhook.close()

    def reason(self, user: User, info: RequestInfo) -> str:
        """With what words it allowed what it last allowed."""
        return self._said.get(_key(user, info), "")

    def _failed(self, why: str) -> str:
        log.warning("authorization webhook: %s", why)
        return FailedDeny("", why) if self._deny_on_error else Failed("", why)

    async def _ask(self, key: bytes, spec: Object) -> str | None:
        if self._version == "v1beta1":
            spec = {"group" if name == "groups" else name: value for name, value in spec.items()}
        review = {
            "apiVersion": f"authorization.k8s.io/{self._version}",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": spec,
            "status": {"allowed": False},
        }
        try:
            status = (await self._webhook.post(review)).get("status")
        except WebhookFailed as error:
            return self._failed(str(error))
        status = status if isinstance(status, dict) else {}
        allowed, reason = status.get("allowed") is True, str(status.get("reason") or "")
        why = Deny(reason) if status.get("denied") is True else (None if allowed else reason)
        if allowed and why is not None:
            why = FailedDeny(reason, "webhook subject access review returned both allow and deny response")
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
            self._said.clear()
        if why is None and reason:
            self._said[key] = reason
        else:
            self._said.pop(key, None)
        self._known[key] = self._clock.monotonic() + self._times[why is None], why
        return why


def _key(user: User, info: RequestInfo) -> bytes:
    return repr((user, info.is_resource, _attributes(info))).encode()


def _spec(user: User, info: RequestInfo) -> Object:
    spec: Object = {"user": user.name, "groups": list(user.groups)}
    if user.uid:
        spec["uid"] = user.uid
    if user.extra:
        spec["extra"] = {name: list(values) for name, values in user.extra.items()}
    spec["resourceAttributes" if info.is_resource else "nonResourceAttributes"] = _attributes(info)
    return spec


def _attributes(info: RequestInfo) -> Object:
    if not info.is_resource:
        return {"path": info.path, "verb": info.verb}
    found: Object = {
        "namespace": info.namespace,
        "verb": info.verb,
        "group": info.group,
        "version": info.version,
        "resource": info.resource,
        "subresource": info.subresource,
        "name": info.about,
    }
    fields, chosen = info.selectors
    out = {key: value for key, value in found.items() if value}
    if fields and (terms := _fields(fields)):
        out["fieldSelector"] = {"requirements": terms}
    if chosen and (terms := _labels(chosen)):
        out["labelSelector"] = {"requirements": terms}
    return out


def _fields(text: str) -> list[Object]:
    terms: list[Object] = []
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if equals:
            operator = "NotIn" if key.endswith("!") else "In"
            terms.append({"key": key.rstrip("!"), "operator": operator, "values": [value.removeprefix("=")]})
    return terms


def _labels(text: str) -> list[Object]:
    try:
        selector = labels.parse(text)
    except ValueError:
        return []
    return [
        {"key": term.key, "operator": _OPERATORS[term.operator]}
        | ({"values": sorted(term.values)} if term.values else {})
        for term in selector.requirements or ()
        if term.operator in _OPERATORS
    ]
