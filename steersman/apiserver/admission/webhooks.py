"""Admission webhooks: other programs that change or refuse what is written.

Owns which webhooks a request concerns, in what order they are asked, and what follows from their answers and their
failures. Called by the admission chain. Source: apiserver's pkg/admission/plugin/webhook.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass

from steersman.api import errors, policies
from steersman.api.errors import ApiError
from steersman.api.patch import json
from steersman.api.resource import Object
from steersman.apiserver.admission import answers, asking, matching, rights
from steersman.apiserver.admission.answers import Answer, Garbage
from steersman.apiserver.call import Call
from steersman.apiserver.telemetry.plugins import METRICS, PluginMetrics
from steersman.apiserver.webhookpost import CallFailed, post

_DEFAULT_TIMEOUT = 10  # seconds
_UNAVAILABLE = 503  # what a webhook that gave no answer counts as
_VERSIONS = ("v1", "v1beta1")
_MUTATION = "mutation.webhook.admission.k8s.io/"
_PATCH = "patch.webhook.admission.k8s.io/"
_VALIDATION = "validating.webhook.admission.k8s.io/"


MUTATING, VALIDATING = "MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of one configuration; `index` is its place among all of its sort."""

    configuration: str
    spec: Object
    index: int
    validates: bool

    @property
    def name(self) -> str:
        """The webhook's own name, as errors say it."""
        return str(self.spec["name"])

    @property
    def plugin(self) -> str:
        """Which of the two plugins asks it."""
        return VALIDATING if self.validates else MUTATING

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.configuration, self.name

    @property
    def lenient(self) -> bool:
        """Whether its failures are ignored."""
        return self.spec.get("failurePolicy") == "Ignore"


def _hooks(call: Call, plural: str) -> Iterator[Hook]:
    kind = call.services.registry.find(matching.GROUP, plural)
    if kind is None or call.kind.group == matching.GROUP:
        return
    index = 0
    for item in call.storage.objects(kind):
        for spec in item.obj().get("webhooks") or ():
            yield Hook(item.name, spec, index, plural.startswith("validating"))
            index += 1


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
    metrics: PluginMetrics | None = call.services.extras.get(METRICS)
    began = metrics.now() if metrics is not None else 0.0
    holds, failures = await rights.settled(
        call, lambda: policies.conditions(wanted, policies.Run(given, (), policies.CONDITIONS_BUDGET))
    )
    if metrics is not None:
        type = "validating" if hook.validates else "admit"
        metrics.conditions(hook.name, "webhook", type, call.operation, began, len(failures), held=holds)
    if failures and not hook.lenient:
        said = failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]"
        raise errors.forbidden(call.kind.group, call.kind.plural, matching.name_of(call, obj), said)
    return holds


def mutate(call: Call, obj: Object | None, old: Object | None) -> Awaitable[None] | None:
    """Let every mutating webhook change the object; those that ask for it see a later one's changes once more."""
    hooks = list(_hooks(call, "mutatingwebhookconfigurations"))
    return _mutate(call, hooks, obj, old) if hooks else None


async def _mutate(call: Call, hooks: Sequence[Hook], obj: Object | None, old: Object | None) -> None:
    rounds, asked = call.rounds, call.rounds.asked("MutatingAdmissionWebhook")
    if rounds.second and obj is not None:
        asked.resume(obj)
    for hook in hooks:
        version = await _version_for(call, hook, obj, old)
        if not version or (rounds.second and not asked.due(hook.key)):
            continue
        if await _mutate_one(call, hook, obj, old, version):
            asked.changed()
            rounds.wanted = True
        if hook.spec.get("reinvocationPolicy") == "IfNeeded":
            asked.willing(hook.key)
    if obj is not None:
        asked.leave(obj)


async def _mutate_one(call: Call, hook: Hook, obj: Object | None, old: Object | None, version: str) -> bool:
    """Ask one webhook and do what it says; whether that changed anything. Raises ApiError."""
    place = f"round_{int(call.rounds.second)}_index_{hook.index}"
    what = {"configuration": hook.configuration, "webhook": hook.name}
    changed = False
    try:
        answer = await _measured(call, hook, obj, old, version)
        operations = answer.operations()
        if operations:
            changed = _patch(call, hook, obj, version, operations)
            shown = _compact({**what, "patch": operations, "patchType": "JSONPatch"})
            call.annotate(f"{_PATCH}{place}", shown, "Request")
    except Garbage as error:
        _failed(call, hook, error, f"failed-open.{_MUTATION}{place}")
    finally:
        call.annotate(f"{_MUTATION}{place}", _compact({**what, "mutated": changed}))
    return changed


def _patch(call: Call, hook: Hook, obj: Object | None, version: str, operations: list[Object]) -> bool:
    shown = matching.in_version(call, obj, version)
    if obj is None or shown is None:
        text = f'admission webhook "{hook.name}" attempted to modify the object'
        raise errors.internal(f"{text}, which is not supported for this operation")
    try:
        patched = json.perform(jsonlib.loads(jsonlib.dumps(shown)), operations)
    except json.Refused as error:
        raise errors.internal(str(error)) from None
    typed = matching.typed(call, patched, version, strict=False)
    if typed == shown:
        return False
    matching.replace(call, obj, typed)
    return True


def validate(call: Call, obj: Object | None, old: Object | None) -> Awaitable[None] | None:
    """Ask every validating webhook, all at once. Raises ApiError when one refuses."""
    hooks = list(_hooks(call, "validatingwebhookconfigurations"))
    return _validate(call, hooks, obj, old) if hooks else None


async def _validate(call: Call, given: Sequence[Hook], obj: Object | None, old: Object | None) -> None:
    hooks = [(hook, version) for hook in given if (version := await _version_for(call, hook, obj, old))]
    results = await asyncio.gather(
        *(_validate_one(call, hook, obj, old, version, at) for at, (hook, version) in enumerate(hooks)),
        return_exceptions=True,
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _validate_one(call: Call, hook: Hook, obj: Object | None, old: Object | None, version: str, at: int) -> None:
    try:
        await _measured(call, hook, obj, old, version)
    except Garbage as error:
        _failed(call, hook, error, f"failed-open.{_VALIDATION}round_0_index_{at}")


def _failed(call: Call, hook: Hook, error: Garbage, key: str) -> None:
    """A webhook that gave no answer: noted, or the end of the request (ApiError 500)."""
    if not hook.lenient:
        raise errors.internal(f'failed calling webhook "{hook.name}": {error}') from error
    call.annotate(key, hook.name)


async def _measured(call: Call, hook: Hook, obj: Object | None, old: Object | None, version: str) -> Answer:
    """As `_ask`, and counted."""
    metrics: PluginMetrics | None = call.services.extras.get(METRICS)
    if metrics is None:
        return await _ask(call, hook, obj, old, version)
    what = hook.name, "validating" if hook.validates else "admit", call.operation
    began = metrics.now()
    try:
        answer = await _ask(call, hook, obj, old, version)
    except Garbage:
        call.request.waited += metrics.now() - began
        metrics.webhook(*what, began, _UNAVAILABLE, rejected=not hook.lenient)
        if hook.lenient:
            metrics.webhook_open(*what[:2])
        else:
            metrics.webhook_refused(*what, "calling_webhook_error", _UNAVAILABLE)
        raise
    except ApiError as error:
        call.request.waited += metrics.now() - began
        metrics.webhook(*what, began, error.code, rejected=True)
        metrics.webhook_refused(*what, "no_error", error.code)
        raise
    call.request.waited += metrics.now() - began
    metrics.webhook(*what, began, 200, rejected=False)
    return answer


async def _ask(call: Call, hook: Hook, obj: Object | None, old: Object | None, version: str) -> Answer:
    """The answer of one webhook that allows the request. Raises Garbage, and ApiError when it refuses."""
    if call.dry_run and hook.spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
        raise errors.bad_request(f'admission webhook "{hook.name}" does not support dry run')
    given = hook.spec.get("admissionReviewVersions") or ()
    spoken = next((each for each in given if each in _VERSIONS), "")
    if not spoken:
        text = "webhook does not accept known AdmissionReview versions (v1, v1beta1)"
        raise Garbage(f"could not create admission objects: {text}")
    request = asking.review(call, obj, old, version)
    review = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{spoken}", "request": request}
    timeout = hook.spec.get("timeoutSeconds") or _DEFAULT_TIMEOUT
    try:
        body = await post(
            call.services, hook.spec["clientConfig"], timeout, review, call.services.extras.get(hook.plugin)
        )
    except CallFailed as error:
        raise Garbage(f"failed to call webhook: {error}") from error
    answer = answers.judged(body, request["uid"], spoken, mutating=not hook.validates)
    for key, value in (answer.audit_annotations or {}).items():
        call.annotate(f"{hook.name}/{key}", value)
    call.warnings += answer.warnings or []
    if not answer.allowed:
        raise answers.refusal(hook.name, answer.status)
    return answer


def _compact(value: Object) -> str:
    return jsonlib.dumps(value, separators=(",", ":"), ensure_ascii=False)
