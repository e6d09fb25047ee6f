"""Admission webhooks: other programs that change or refuse what is written.

Owns which webhooks a request concerns, the AdmissionReview each gets, and what its answer means. Called by the
admission chain. Source: apiserver's pkg/admission/plugin/webhook.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json as jsonlib
from collections.abc import Iterator
from dataclasses import dataclass

from steersman.api import errors, policies
from steersman.api.errors import ApiError
from steersman.api.patch import json
from steersman.api.resource import Object
from steersman.apiserver.admission import asking, matching, rights
from steersman.apiserver.call import Call
from steersman.apiserver.webhookpost import CallFailed, post

_DEFAULT_TIMEOUT = 10


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of one configuration."""

    configuration: str
    spec: Object

    @property
    def name(self) -> str:
        """The webhook's own name, as errors say it."""
        return str(self.spec["name"])

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.configuration, self.name


class _CallFailed(Exception):
    """The webhook did not answer, or not sensibly."""


def _hooks(call: Call, plural: str) -> Iterator[Hook]:
    kind = call.services.registry.find(matching.GROUP, plural)
    if kind is None or call.kind.group == matching.GROUP:
        return
    for _, item in list(call.storage.cache(kind).items(call.storage.prefix(kind))):
        for spec in item.obj().get("webhooks") or ():
            yield Hook(item.name, spec)


async def _version_for(call: Call, hook: Hook, obj: Object | None, old: Object | None) -> str:
    """The version in which the webhook wants to be asked; empty when it does not."""
    policy = hook.spec.get("matchPolicy") or "Equivalent"
    version = matching.version_for(call, hook.spec.get("rules") or (), policy, obj)
    if not version or not matching.selected(call, hook.spec, obj, old):
        return ""
    return version if await _meets_conditions(call, hook, obj, old, version) else ""


async def _meets_conditions(call: Call, hook: Hook, obj: Object | None, old: Object | None, version: str) -> bool:
    """Whether the match conditions hold. Raises ApiError when one has no value and the webhook may not be missed."""
    wanted = hook.spec.get("matchConditions")
    if not wanted:
        return True
    given = asking.values(call, obj, old, version)
    holds, failures = await rights.settled(
        call, lambda: policies.conditions(wanted, policies.Run(given, (), policies.CONDITIONS_BUDGET))
    )
    if failures and hook.spec.get("failurePolicy") != "Ignore":
        said = failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]"
        raise errors.forbidden(call.kind.group, call.kind.plural, call.info.name, said)
    return holds


async def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Let every mutating webhook change the object; those that ask for it see a later one's changes once more."""
    if obj is None:
        return
    rounds, asked = call.rounds, call.rounds.asked("MutatingAdmissionWebhook")
    if rounds.second:
        asked.resume(obj)
    for hook in list(_hooks(call, "mutatingwebhookconfigurations")):
        version = await _version_for(call, hook, obj, old)
        if not version or (rounds.second and not asked.due(hook.key)):
            continue
        if await _mutate_one(call, hook, obj, old, version):
            asked.changed()
            rounds.wanted = True
        if hook.spec.get("reinvocationPolicy") == "IfNeeded":
            asked.willing(hook.key)
    asked.leave(obj)


async def _mutate_one(call: Call, hook: Hook, obj: Object, old: Object | None, version: str) -> bool:
    response = await _ask(call, hook, obj, old, version)
    if response is None or not response.get("patch"):
        return False
    try:
        patch = jsonlib.loads(base64.b64decode(response["patch"]))
    except (ValueError, binascii.Error) as error:
        raise errors.internal(f'webhook "{hook.name}" sent a malformed patch: {error}') from error
    shown = matching.in_version(call, obj, version)
    patched = json.apply(jsonlib.loads(jsonlib.dumps(shown)), patch)
    if patched == shown:
        return False
    matching.replace(call, obj, patched)
    return True


async def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Ask every validating webhook, all at once. Raises ApiError when one refuses."""
    hooks = [
        (hook, version)
        for hook in _hooks(call, "validatingwebhookconfigurations")
        if (version := await _version_for(call, hook, obj, old))
    ]
    results = await asyncio.gather(*(_ask(call, hook, obj, old, at) for hook, at in hooks), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _ask(call: Call, hook: Hook, obj: Object | None, old: Object | None, version: str) -> Object | None:
    """The response of one webhook; None when it failed and may be ignored. Raises ApiError when it refuses."""
    if call.dry_run and hook.spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
        text = f'admission webhook "{hook.name}" does not support dry run'
        raise errors.bad_request(text)
    request = asking.review(call, obj, old, version)
    asked = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    try:
        response = await _post(call, hook, asked)
    except _CallFailed as error:
        if hook.spec.get("failurePolicy") == "Ignore":
            return None
        raise errors.internal(f'failed calling webhook "{hook.name}": {error}') from error
    call.warnings += response.get("warnings") or []
    if not response.get("allowed"):
        raise _refused(hook, response.get("status") or {})
    return response


def _refused(hook: Hook, status: Object) -> ApiError:
    said = status.get("message") or status.get("reason")
    text = f'admission webhook "{hook.name}" denied the request'
    text += f": {said}" if said else " without explanation"
    code = int(status.get("code") or 403)
    return ApiError(code if code >= 400 else 403, str(status.get("reason") or "Forbidden"), text, status.get("details"))


async def _post(call: Call, hook: Hook, review: Object) -> Object:
    timeout = hook.spec.get("timeoutSeconds") or _DEFAULT_TIMEOUT
    try:
        status, body = await post(call.services, hook.spec["clientConfig"], timeout, review)
    except CallFailed as error:
        raise _CallFailed(f"failed to call webhook: {error}") from error
    if status != 200:
        raise _CallFailed("failed to call webhook: the server could not find the requested resource"
                          if status == 404 else f"the server answered {status}")  # fmt: skip
    return _response(body, review["request"]["uid"])


def _response(body: bytes, uid: str) -> Object:
    try:
        response = jsonlib.loads(body)["response"]
        if response.get("uid") != uid:
            raise ValueError("expected response.uid to be that of the request")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _CallFailed(f"received invalid webhook response: {error}") from error
    found: Object = response
    return found
