"""ImagePolicyWebhook: another program says whether a pod's images may run.

Owns the ImageReview, how long answers are remembered, and what a failure means. Source:
plugin/pkg/admission/imagepolicy.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from steersman.api import durations, errors
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.apiserver.webhookclient import Webhook, WebhookFailed, from_kubeconfig
from steersman.lib.clock import Clock

NAME = "ImagePolicyWebhook"
_KEY = "imagepolicywebhook.image-policy.k8s.io/"
_FAILED_OPEN = "alpha.image-policy.k8s.io/failed-open"
_REMEMBERED = 1024
_MILLISECOND, _SECOND, _MINUTE = 0.001, 1.0, 60.0


@dataclass
class Policy:
    """The program that is asked. Times are seconds."""

    webhook: Webhook
    allowed_for: float
    denied_for: float
    back_off: float
    lenient: bool
    known: OrderedDict[bytes, tuple[float, Object]] = field(default_factory=OrderedDict)

    async def review(self, spec: Object, clock: Clock) -> Object:
        """The status of an ImageReview. Raises WebhookFailed."""
        key = msgspec.json.encode(spec)
        found = self.known.get(key)
        if found is not None and found[0] > clock.monotonic():
            return found[1]
        body = {
            "kind": "ImageReview",
            "apiVersion": "imagepolicy.k8s.io/v1alpha1",
            "metadata": {},
            "spec": spec,
            "status": {"allowed": False},
        }
        status = (await self.webhook.post(body, first_wait=self.back_off)).get("status") or {}
        if not isinstance(status, dict):
            raise WebhookFailed("the webhook's answer has no status")
        kept = self.allowed_for if status.get("allowed") is True else self.denied_for
        self.known[key] = clock.monotonic() + kept, status
        if len(self.known) > _REMEMBERED:
            self.known.popitem(last=False)
        return status


def configuration(given: Any, clock: Clock) -> Policy:
    """Read the settings' `imagePolicy`. Raises OSError, ValueError."""
    if given is None:
        raise ValueError("no config specified")
    stated = given.get("imagePolicy") or {}
    back_off = _seconds(stated, "retryBackoff", _MILLISECOND, (1e-9, 5 * _MINUTE), 0.5)
    allowed = _seconds(stated, "allowTTL", _SECOND, (_SECOND, 30 * _MINUTE), 5 * _MINUTE)
    denied = _seconds(stated, "denyTTL", _SECOND, (_SECOND, 30 * _MINUTE), 30.0)
    webhook = from_kubeconfig(Path(stated.get("kubeConfigFile") or ""), clock)
    return Policy(webhook, allowed, denied, back_off, bool(stated.get("defaultAllow")))


def _seconds(stated: Object, name: str, scale: float, bounds: tuple[float, float], otherwise: float) -> float:
    """A setting in units of `scale`: 0 stands for the default, -1 for none."""
    value = stated.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"imagePolicy.{name}: {value!r} is no whole number")
    if value in (0, -1):
        return otherwise if value == 0 else 0.0
    if not bounds[0] <= value * scale <= bounds[1]:
        low, high, got = (durations.show(round(each * 1e9)) for each in (*bounds, value * scale))
        raise ValueError(f"valid value is between {low} and {high}, got {got}")
    return value * scale


async def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Ask about a pod's images. Raises ApiError."""
    if obj is None or (call.kind.group, call.kind.plural) != ("", "pods"):
        return
    if call.info.subresource not in ("", "ephemeralcontainers") or call.operation not in ("CREATE", "UPDATE"):
        return
    policy: Policy | None = call.services.extras.get(NAME)
    if policy is None:
        return
    try:
        status = await policy.review(_spec(call, obj), call.services.clock)
    except WebhookFailed as error:
        if not policy.lenient:
            raise _refused(obj, str(error)) from error
        call.annotate(f"{_KEY}failed-open", "true")
        obj["metadata"].setdefault("annotations", {})[_FAILED_OPEN] = "true"
        return
    for key, value in (status.get("auditAnnotations") or {}).items():
        call.annotate(f"{_KEY}{key}", str(value))
    if status.get("allowed") is not True:
        reason = status.get("reason")
        denied = f"image policy webhook backend denied one or more images: {reason}"
        raise _refused(obj, denied if reason else "one or more images rejected by webhook backend")


def _spec(call: Call, pod: Object) -> Object:
    parts = ("containers", "initContainers") if not call.info.subresource else ("ephemeralContainers",)
    images = [{"image": each.get("image", "")} for part in parts for each in pod["spec"].get(part) or ()]
    annotations = pod["metadata"].get("annotations") or {}
    told = {key: value for key, value in annotations.items() if ".image-policy.k8s.io/" in key}
    spec: Object = {"containers": images}
    return spec | ({"annotations": told} if told else {}) | {"namespace": call.info.namespace}


def _refused(pod: Object, why: str) -> ApiError:
    return errors.forbidden("", "pods", pod["metadata"].get("name", ""), why)
