"""Admission webhooks: other programs that change or refuse what is written.

Owns which webhooks a request concerns, the AdmissionReview each gets, and what its answer means. Called by the
admission chain. Source: apiserver's pkg/admission/plugin/webhook.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json as jsonlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from steersman.api import errors, labels, policies
from steersman.api.errors import ApiError
from steersman.api.patch import json
from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.apiserver.subresources.reviews import user_info
from steersman.apiserver.webhookpost import CallFailed, post

GROUP = "admissionregistration.k8s.io"
_DEFAULT_TIMEOUT = 10
_CONNECTS = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions"}
_MOST = 100_000_000


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of one configuration."""

    configuration: str
    spec: Object

    @property
    def name(self) -> str:
        """The webhook's own name, as errors say it."""
        return str(self.spec["name"])


class _CallFailed(Exception):
    """The webhook did not answer, or not sensibly."""


def _hooks(call: Call, plural: str) -> Iterator[Hook]:
    kind = call.services.registry.find(GROUP, plural)
    if kind is None or call.kind.group == GROUP:
        return
    for _, item in list(call.storage.cache(kind).items(call.storage.prefix(kind))):
        for spec in item.obj().get("webhooks") or ():
            yield Hook(item.name, spec)


def _concerns(call: Call, hook: Hook, obj: Object | None, old: Object | None) -> bool:
    if not any(rule_matches(call, rule) for rule in hook.spec.get("rules") or ()):
        return False
    return selected(call, hook.spec, obj, old) and _meets_conditions(call, hook, obj, old)


def _meets_conditions(call: Call, hook: Hook, obj: Object | None, old: Object | None) -> bool:
    """Whether the match conditions hold. Raises ApiError when one has no value and the webhook may not be missed."""
    wanted = hook.spec.get("matchConditions")
    if not wanted:
        return True
    run = policies.Run(values(call, obj, old), (), policies.CONDITIONS_BUDGET)
    holds, failures = policies.conditions(wanted, run)
    if failures and hook.spec.get("failurePolicy") != "Ignore":
        said = failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]"
        raise errors.forbidden(call.kind.group, call.kind.plural, call.info.name, said)
    return holds


def values(call: Call, obj: Object | None, old: Object | None) -> dict[str, Any]:
    """What an expression of admission may name."""
    request = review(call, None, None)["request"]
    is_namespace = (call.kind.group, call.kind.plural) == ("", "namespaces")
    return {
        "object": obj,
        "oldObject": old,
        "request": {key: value for key, value in request.items() if key not in ("object", "oldObject")},
        "namespaceObject": namespace(call) if call.info.namespace and not is_namespace else None,
    }


def rule_matches(call: Call, rule: Object) -> bool:
    """Whether a rule names the request's operation and resource."""

    def has(key: str, value: str) -> bool:
        return "*" in rule.get(key, ()) or value in rule.get(key, ())

    scope = rule.get("scope", "*")
    if (scope == "Cluster") == bool(call.info.namespace) and scope != "*":
        return False
    served = any(has("apiVersions", version.name) for version in call.kind.versions if version.served)
    if not (has("operations", call.operation) and has("apiGroups", call.kind.group) and served):
        return False
    plural, sub = call.kind.plural, call.info.subresource
    wanted = f"{plural}/{sub}" if sub else plural
    return any(
        each in ("*/*", wanted)
        or (each == "*" and not sub)
        or (each == f"{plural}/*")
        or (bool(sub) and each == f"*/{sub}")
        for each in rule.get("resources", ())
    )


def selected(call: Call, given: Object, obj: Object | None, old: Object | None) -> bool:
    """Whether the selectors of a webhook, or of a policy, take the request in."""
    selector = given.get("namespaceSelector")
    is_namespace = (call.kind.group, call.kind.plural) == ("", "namespaces")
    if selector and (call.info.namespace or is_namespace):
        found = (obj or old) if is_namespace else namespace(call)
        if not labels.from_object(selector).matches(((found or {}).get("metadata") or {}).get("labels")):
            return False
    wanted = given.get("objectSelector")
    if not wanted:
        return True
    chosen = labels.from_object(wanted)
    return any(chosen.matches((each.get("metadata") or {}).get("labels")) for each in (obj, old) if each is not None)


def namespace(call: Call) -> Object | None:
    """The namespace that the request is in."""
    kind = call.services.registry.find("", "namespaces")
    item = call.storage.find(kind, "", call.info.namespace) if kind is not None else None
    return item.obj() if item is not None else None


async def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Let every mutating webhook change the object; those that ask for it see a later one's changes once more."""
    if obj is None:
        return
    hooks = list(_hooks(call, "mutatingwebhookconfigurations"))
    changed_after: set[int] = set()
    for at, hook in enumerate(hooks):
        if _concerns(call, hook, obj, old) and await _mutate_one(call, hook, obj, old):
            changed_after |= set(range(at))
    for at, hook in enumerate(hooks):
        again = at in changed_after and hook.spec.get("reinvocationPolicy") == "IfNeeded"
        if again and _concerns(call, hook, obj, old):
            await _mutate_one(call, hook, obj, old)


async def _mutate_one(call: Call, hook: Hook, obj: Object, old: Object | None) -> bool:
    response = await _ask(call, hook, obj, old)
    if response is None or not response.get("patch"):
        return False
    try:
        patch = jsonlib.loads(base64.b64decode(response["patch"]))
    except (ValueError, binascii.Error) as error:
        raise errors.internal(f'webhook "{hook.name}" sent a malformed patch: {error}') from error
    patched = json.apply(jsonlib.loads(jsonlib.dumps(obj)), patch)
    if patched == obj:
        return False
    obj.clear()
    obj.update(patched)
    call.kind.default(obj)
    return True


async def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Ask every validating webhook, all at once. Raises ApiError when one refuses."""
    hooks = [hook for hook in _hooks(call, "validatingwebhookconfigurations") if _concerns(call, hook, obj, old)]
    results = await asyncio.gather(*(_ask(call, hook, obj, old) for hook in hooks), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _ask(call: Call, hook: Hook, obj: Object | None, old: Object | None) -> Object | None:
    """The response of one webhook; None when it failed and may be ignored. Raises ApiError when it refuses."""
    if call.dry_run and hook.spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
        text = f'admission webhook "{hook.name}" does not support dry run'
        raise errors.bad_request(text)
    asked = review(call, obj, old)
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


def review(call: Call, obj: Object | None, old: Object | None) -> Object:
    """The AdmissionReview that asks about a request."""
    info, kind = call.info, call.kind
    group_kind = {"group": kind.group, "version": call.version, "kind": kind.kind}
    if obj is None and (connecting := connect_options(call)) is not None:
        obj = connecting
        group_kind["kind"] = connecting["kind"]
    resource = {"group": kind.group, "version": call.version, "resource": kind.plural}
    name = info.name or ((obj or {}).get("metadata") or {}).get("name", "")
    request: Object = {
        "uid": str(uuid.uuid4()),
        "kind": group_kind,
        "resource": resource,
        "requestKind": group_kind,
        "requestResource": resource,
        "name": name,
        "namespace": info.namespace,
        "operation": call.operation,
        "userInfo": user_info(call.user),
        "object": obj,
        "oldObject": old,
        "dryRun": call.dry_run,
        "options": None,
    }
    if info.subresource:
        request["subResource"] = request["requestSubResource"] = info.subresource
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def connect_options(call: Call) -> Object | None:
    """What is asked of a pod by exec, attach and portforward, as an object; None for everything else."""
    name = _CONNECTS.get(call.info.subresource) if call.operation == "CONNECT" and call.kind.plural == "pods" else None
    if name is None:
        return None
    found: Object = {"kind": name, "apiVersion": "v1"}
    if call.info.subresource == "portforward":
        ports = [int(port) for text in call.query.all("ports") for port in text.split(",") if port.isdecimal()]
        return found | ({"ports": ports} if ports else {})
    found |= {flag: True for flag in ("stdin", "stdout", "stderr", "tty") if call.query.flag(flag)}
    if container := call.query.get("container"):
        found["container"] = container
    if command := call.query.all("command"):
        found["command"] = command
    return found


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
