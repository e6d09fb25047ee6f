"""ValidatingAdmissionPolicy: rules in CEL, bound to what they hold for.

Owns which bindings concern a request, with which parameters, and what a violation does. Called by the admission chain.
Audit actions have no effect, as there is no audit log. Source: apiserver's pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import cel, errors, policies
from steersman.api.cel.syntax import CostError
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.admission import asking, bindings
from steersman.apiserver.admission.bindings import Bound
from steersman.apiserver.call import Call

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_MOST_MESSAGE = 5 * 1024


async def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Run every policy that concerns the request. Raises ApiError with the first denial's reason."""
    denied: list[tuple[str, str]] = []
    for found in bindings.bound(call, "validatingadmissionpolicies"):
        version = bindings.version_for(call, found, obj, old)
        if not version:
            continue
        where = "ValidatingAdmissionPolicy '{}' with binding '{}'".format(*found.names)
        actions = found.binding["spec"].get("validationActions") or ()
        for reason, message in _violations(call, found, asking.values(call, obj, old, version)):
            if "Warn" in actions:
                call.warnings.append(f"Validation failed for {where}: {message}")
            if "Deny" in actions:
                denied.append((reason, f"{where} denied request: {message}"))
    if denied:
        raise _refused(call, *denied[0])


def _violations(call: Call, found: Bound, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(reason, message) of every violation, for every parameter."""
    strict = found.strict
    try:
        chosen = bindings.params(call, found)
    except bindings.Misconfigured as error:
        return [("", f"failed to configure binding: {error}")] if strict else []
    out: list[tuple[str, str]] = []
    for each in chosen:
        named = {**given, "params": each} if found.policy["spec"].get("paramKind") else dict(given)
        out += _evaluated(found.policy["spec"], named, strict=strict)
    return out


def _evaluated(spec: Object, given: Mapping[str, Any], *, strict: bool) -> list[tuple[str, str]]:
    variables = policies.variables_of(spec)
    wanted = spec.get("matchConditions") or ()
    holds, failures = policies.conditions(wanted, policies.Run(given, (), policies.CONDITIONS_BUDGET))
    if not holds:
        return [("", failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]")] if failures and strict else []
    run, out = policies.Run(given, variables), []
    for each in spec.get("validations") or ():
        try:
            if run.value(each["expression"], ("bool",)) is not True:
                out.append((each.get("reason") or "Invalid", _message(each, run)))
        except CostError as error:
            return [*out, ("", str(error))] if strict else out
        except cel.CelError as error:
            if strict:
                out.append(("", str(error)))
    for each in spec.get("auditAnnotations") or ():
        try:
            run.value(each["valueExpression"], ("string", "null"))
        except cel.CelError as error:
            if strict:
                out.append(("", str(error)))
    return out


def _message(validation: Object, run: policies.Run) -> str:
    said = ""
    if validation.get("messageExpression"):
        try:
            found = run.value(validation["messageExpression"], ("string",))
            said = found.strip() if isinstance(found, str) else ""
        except cel.CelError:
            said = ""
        if "\n" in said or len(said.encode()) > _MOST_MESSAGE:
            said = ""
    return said or (validation.get("message") or "").strip() or f"failed expression: {validation['expression'].strip()}"


def _refused(call: Call, reason: str, message: str) -> ApiError:
    reason = reason or "Invalid"
    name = call.info.name or ""
    error = errors.forbidden(call.kind.group, call.kind.plural, name, message)
    details = {**error.details, "causes": [{"message": message}]}
    return ApiError(_CODES.get(reason, 422), reason, error.message, details)
