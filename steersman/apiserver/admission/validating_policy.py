"""ValidatingAdmissionPolicy: rules in CEL, bound to what they hold for.

Owns which bindings concern a request, with which parameters, and what a violation does. Called by the admission chain.
Audit actions have no effect, as there is no audit log. Source: apiserver's pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.api import cel, errors, labels, policies
from steersman.api.cel.syntax import CostError
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.admission import webhooks
from steersman.apiserver.call import Call

GROUP = webhooks.GROUP
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_MOST_MESSAGE = 5 * 1024


class Misconfigured(Exception):
    """A binding that cannot be used as it is: its failure policy decides."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One binding and its policy."""

    policy: Object
    binding: Object

    @property
    def where(self) -> str:
        """How messages name the two."""
        names = self.policy["metadata"]["name"], self.binding["metadata"]["name"]
        return f"ValidatingAdmissionPolicy '{names[0]}' with binding '{names[1]}'"


def bound(call: Call, kind: str) -> Iterator[Bound]:
    """The bindings of a plural (`validatingadmissionpolicies`) whose policies are there."""
    policies_kind = call.services.registry.find(GROUP, kind)
    bindings_kind = call.services.registry.find(GROUP, kind.removesuffix("ies") + "ybindings")
    if policies_kind is None or bindings_kind is None or call.kind.group == GROUP:
        return
    for _, item in list(call.storage.cache(bindings_kind).items(call.storage.prefix(bindings_kind))):
        binding = item.obj()
        policy = call.storage.find(policies_kind, "", (binding.get("spec") or {}).get("policyName") or "")
        if policy is not None:
            yield Bound(policy.obj(), binding)


def concerns(call: Call, found: Bound, obj: Object | None, old: Object | None) -> bool:
    """Whether the policy's constraints and the binding's resources both take the request in."""
    constraints = found.policy["spec"].get("matchConstraints") or {}
    resources = found.binding["spec"].get("matchResources")
    return _matches(call, constraints, obj, old) and (
        resources is None or _matches(call, resources, obj, old, every=not resources.get("resourceRules"))
    )


def _matches(call: Call, wanted: Object, obj: Object | None, old: Object | None, *, every: bool = False) -> bool:
    def named(rule: Object) -> bool:
        given = rule.get("resourceNames")
        name = call.info.name or ((obj or {}).get("metadata") or {}).get("name", "")
        return (not given or name in given) and webhooks.rule_matches(call, rule)

    if any(named(rule) for rule in wanted.get("excludeResourceRules") or ()):
        return False
    if not every and not any(named(rule) for rule in wanted.get("resourceRules") or ()):
        return False
    return webhooks.selected(call, wanted, obj, old)


def params(call: Call, found: Bound) -> list[Object | None]:
    """The parameters that a binding runs with, each in turn. Raises Misconfigured."""
    wanted, ref = found.policy["spec"].get("paramKind"), found.binding["spec"].get("paramRef")
    if not wanted:
        return [None]
    group, _, version = wanted["apiVersion"].rpartition("/")
    kind = call.services.registry.by_kind(group, version, wanted["kind"])
    if kind is None:
        shown = f"{wanted['apiVersion']}, Kind={wanted['kind']}"
        raise Misconfigured(f"failed to find resource referenced by paramKind: '{shown}'")
    if not ref:
        return [None]
    namespace = (ref.get("namespace") or call.info.namespace) if kind.namespaced else ""
    if kind.namespaced and not namespace:
        raise Misconfigured("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
    if ref.get("name"):
        item = call.storage.find(kind, namespace, ref["name"])
        chosen = [item.obj()] if item is not None else []
    else:
        selector = labels.from_object(ref.get("selector") or {})
        items = [item.obj() for _, item in list(call.storage.cache(kind).items(call.storage.prefix(kind, namespace)))]
        chosen = [each for each in items if selector.matches((each.get("metadata") or {}).get("labels"))]
    if not chosen and (ref.get("parameterNotFoundAction") or "Deny") == "Deny":
        raise Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
    return list(chosen)


async def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Run every policy that concerns the request. Raises ApiError with the first denial's reason."""
    denied: list[tuple[str, str]] = []
    for found in bound(call, "validatingadmissionpolicies"):
        if not concerns(call, found, obj, old):
            continue
        actions = found.binding["spec"].get("validationActions") or ()
        for reason, message in _violations(call, found, webhooks.values(call, obj, old)):
            if "Warn" in actions:
                call.warnings.append(f"Validation failed for {found.where}: {message}")
            if "Deny" in actions:
                denied.append((reason, f"{found.where} denied request: {message}"))
    if denied:
        raise _refused(call, *denied[0])


def _violations(call: Call, found: Bound, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(reason, message) of every violation, for every parameter."""
    strict = found.policy["spec"].get("failurePolicy") != "Ignore"
    try:
        chosen = params(call, found)
    except Misconfigured as error:
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
            run.value(each["valueExpression"], ("string", "null_type"))
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
