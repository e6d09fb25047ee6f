"""ValidatingAdmissionPolicy: rules in CEL, bound to what they hold for.

Owns which bindings concern a request, with which parameters, and what a violation does. Called by the admission chain.
Source: apiserver's pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from steersman.api import cel, errors, policies
from steersman.api.cel.syntax import CostError
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.admission import asking, bindings, matching, rights
from steersman.apiserver.admission.bindings import Bound
from steersman.apiserver.call import Call
from steersman.apiserver.telemetry.plugins import METRICS, PluginMetrics

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_MOST_MESSAGE, _MOST_ANNOTATION = 5 * 1024, 10 * 1024  # bytes
_FAILURE = "validation.policy.admission.k8s.io/validation_failure"


@dataclass(slots=True)
class _Found:
    """What one policy says with one parameter."""

    denials: list[tuple[int, str, str]] = field(default_factory=list)  # the validation's place, reason, message
    annotations: list[tuple[str, str]] = field(default_factory=list)
    unannotated: list[str] = field(default_factory=list)  # annotations that could not be made: always a denial


def validate(call: Call, obj: Object | None, old: Object | None) -> Awaitable[None] | None:
    """Run every policy that concerns the request. Raises ApiError with the first denial's reason."""
    every = list(bindings.bound(call, "validatingadmissionpolicies"))
    return _validate(call, every, obj, old) if every else None


async def _validate(call: Call, every: Sequence[Bound], obj: Object | None, old: Object | None) -> None:
    denied: list[tuple[str, str]] = []
    annotations: dict[str, list[str]] = {}
    metrics: PluginMetrics | None = call.services.extras.get(METRICS)
    for bound in every:
        version = bindings.version_for(call, bound, obj, old)
        if not version:
            continue
        where = "ValidatingAdmissionPolicy '{}' with binding '{}'".format(*bound.names)
        try:
            chosen = bindings.params(call, bound)
        except bindings.Misconfigured as error:
            if bound.strict:
                denied.append(("", f"{where} denied request: failed to configure binding: {error}"))
            continue
        given = asking.values(call, obj, old, version)
        for params in chosen:
            named = {**given, "params": params} if bound.policy["spec"].get("paramKind") else given
            began = metrics.now() if metrics is not None else 0.0
            found = await rights.settled(call, partial(_evaluated, bound, named))
            if metrics is not None:
                _measure(metrics, bound, found, began)
            denied += [(reason, f"{where} denied request: {why}") for reason, why in _acted(call, bound, found)]
            denied += [("", f"{where} denied request: {why}") for why in found.unannotated]
            for key, value in found.annotations:
                texts = annotations.setdefault(f"{bound.names[0]}/{key}", [])
                if value not in texts:
                    texts.append(value)
    for key, texts in annotations.items():
        call.annotate(key, ", ".join(texts))
    if denied:
        raise _refused(call, matching.name_of(call, obj), *denied[0])


def _measure(metrics: PluginMetrics, bound: Bound, found: _Found, began: float) -> None:
    metrics.evaluated(began)
    for _, reason, _ in found.denials:
        for action in bound.binding["spec"].get("validationActions") or ():
            metrics.checked(bound.names, began, "no_error" if reason else "invalid_error", action.lower())


def _acted(call: Call, bound: Bound, found: _Found) -> list[tuple[str, str]]:
    """Warn and audit as the binding wants it; gives what it denies: reasons and messages."""
    denied: list[tuple[str, str]] = []
    policy, binding = bound.names
    actions = bound.binding["spec"].get("validationActions") or []
    for at, reason, message in found.denials:
        for action in actions:
            if action == "Deny":
                denied.append((reason, message))
            elif action == "Warn":
                text = f"Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}'"
                call.warnings.append(f"{text}: {message}")
            elif action == "Audit":
                value = {"message": message, "policy": policy, "binding": binding, "expressionIndex": at}
                shown = json.dumps([{**value, "validationActions": actions}], separators=(",", ":"), ensure_ascii=False)
                call.annotate(_FAILURE, shown)
    return denied


def _evaluated(bound: Bound, given: Mapping[str, Any]) -> _Found:
    spec, strict, found = bound.policy["spec"], bound.strict, _Found()
    variables = policies.variables_of(spec)
    wanted = spec.get("matchConditions") or ()
    holds, failures = policies.conditions(wanted, policies.Run(given, variables, policies.CONDITIONS_BUDGET))
    if not holds:
        if failures and strict:
            found.denials.append((0, "", failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]"))
        return found
    run = policies.Run(given, variables)
    for at, each in enumerate(spec.get("validations") or ()):
        try:
            if run.value(each["expression"], ("bool",)) is not True:
                found.denials.append((at, each.get("reason") or "Invalid", _message(each, run)))
        except CostError as error:  # nothing else is said then
            return _Found([(0, "", str(error))]) if strict else _Found()
        except cel.CelError as error:
            if strict:
                found.denials.append((at, "", str(error)))
    _annotate(spec, policies.Run(given, variables), found, strict=strict)
    return found


def _annotate(spec: Object, run: policies.Run, found: _Found, *, strict: bool) -> None:
    for each in spec.get("auditAnnotations") or ():
        try:
            value = run.value(each["valueExpression"], ("string", "null_type"))
        except cel.CelError as error:
            if strict:
                found.unannotated.append(str(error))
            continue
        if text := value.strip() if isinstance(value, str) else "":
            found.annotations.append((each["key"], text.encode()[:_MOST_ANNOTATION].decode(errors="ignore")))


def _message(validation: Object, run: policies.Run) -> str:
    said = ""
    if validation.get("messageExpression"):
        try:
            found = run.value(validation["messageExpression"], ("string",), authorizer=False)
            said = found.strip() if isinstance(found, str) else ""
        except cel.CelError:
            said = ""
        if "\n" in said or len(said.encode()) > _MOST_MESSAGE:
            said = ""
    return said or (validation.get("message") or "").strip() or f"failed expression: {validation['expression'].strip()}"


def _refused(call: Call, name: str, reason: str, message: str) -> ApiError:
    reason = reason or "Invalid"
    error = errors.forbidden(call.kind.group, call.kind.plural, name, message)
    details = {**error.details, "causes": [{"message": message}]}
    return ApiError(_CODES.get(reason, 422), reason, error.message, details)
