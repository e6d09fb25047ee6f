"""Webhook configurations and admission policies.

Source: pkg/apis/admissionregistration/v1/defaults.go and validation, printMutatingWebhook and its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from steersman.api import conditions, labels, names, policies
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Default, Update, Validate, only_status
from steersman.api.kinds import strategy, webhookclient
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, UNSET, dig, field, length
from steersman.api.validation import duplicate, forbidden, invalid, not_supported, required

Complaints = list[FieldError]

GROUP = "admissionregistration.k8s.io"

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_EFFECTS = ("None", "NoneOnDryRun")
_FAILURES = ("Fail", "Ignore")
_MATCHES = ("Equivalent", "Exact")
_AGAIN = ("IfNeeded", "Never")


def _webhooks(*, mutating: bool) -> Default:
    def default(configuration: Object) -> None:
        for hook in configuration.get("webhooks") or ():
            hook.setdefault("failurePolicy", "Fail")
            hook.setdefault("timeoutSeconds", 10)
            if mutating:
                hook.setdefault("reinvocationPolicy", "Never")
            _matching(hook)
            for rule in hook.get("rules") or ():
                rule.setdefault("scope", "*")
            if service := dig(hook, "clientConfig", "service"):
                service.setdefault("port", 443)

    return default


def _matching(found: Object) -> None:
    found.setdefault("matchPolicy", "Equivalent")
    found.setdefault("namespaceSelector", {})
    found.setdefault("objectSelector", {})


def _validate_webhooks(*, mutating: bool) -> Validate:
    def validate(configuration: Object) -> Complaints:
        out: Complaints = []
        seen: set[str] = set()
        for i, hook in enumerate(configuration.get("webhooks") or ()):
            here, name = f"webhooks[{i}]", hook.get("name") or ""
            out += _webhook(here, hook, mutating=mutating)
            out += webhookclient.reviews(
                f"{here}.admissionReviewVersions",
                hook.get("admissionReviewVersions") or [],
                "must specify one of v1, v1beta1",
            )
            if name and name in seen:
                out.append(duplicate(f"{here}.name", name))
            seen.add(name)
        return out

    return validate


def _webhook(path: str, hook: Mapping[str, Any], *, mutating: bool) -> Complaints:
    out = names.fully_qualified(f"{path}.name", hook.get("name") or "")
    for i, rule in enumerate(hook.get("rules") or ()):
        out += _rule(f"{path}.rules[{i}]", rule)
    for key, allowed in (("failurePolicy", _FAILURES), ("matchPolicy", _MATCHES)):
        if key in hook and hook[key] not in allowed:
            out.append(not_supported(f"{path}.{key}", hook[key], allowed))
    effects = hook.get("sideEffects")
    if effects is None:
        out.append(required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun"))
    elif effects not in _EFFECTS:
        out.append(not_supported(f"{path}.sideEffects", effects, _EFFECTS))
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        text = "the timeout value must be between 1 and 30 seconds"
        out.append(invalid(f"{path}.timeoutSeconds", timeout, text))
    for key in ("namespaceSelector", "objectSelector"):
        out += labels.validate(hook.get(key), f"{path}.{key}")
    if mutating and "reinvocationPolicy" in hook and hook["reinvocationPolicy"] not in _AGAIN:
        out.append(not_supported(f"{path}.reinvocationPolicy", hook["reinvocationPolicy"], _AGAIN))
    out += _client(f"{path}.clientConfig", hook.get("clientConfig") or {})
    return out + policies.check_conditions(f"{path}.matchConditions", hook.get("matchConditions") or ())


def _rule(path: str, rule: Mapping[str, Any]) -> Complaints:
    operations = rule.get("operations") or []
    out = _list(f"{path}.operations", operations, "operations")
    for i, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            out.append(not_supported(f"{path}.operations[{i}]", operation, _OPERATIONS))
    out += _list(f"{path}.apiGroups", rule.get("apiGroups") or [], "API groups")
    versions = rule.get("apiVersions") or []
    out += _list(f"{path}.apiVersions", versions, "API versions")
    out += [required(f"{path}.apiVersions[{i}]") for i, version in enumerate(versions) if not version]
    out += _resources(f"{path}.resources", rule.get("resources") or [])
    scope = rule.get("scope")
    if scope is not None and scope not in _SCOPES:
        out.append(not_supported(f"{path}.scope", scope, _SCOPES))
    return out


def _list(path: str, values: list[str], what: str) -> Complaints:
    if not values:
        return [required(path)]
    many = len(values) > 1 and "*" in values
    return [invalid(path, values, f"if '*' is present, must not specify other {what}")] if many else []


def _resources(path: str, resources: list[str]) -> Complaints:
    """Resources with their subresources; a wildcard makes some others pointless."""
    out: Complaints = [] if resources else [required(path)]
    whole: set[str] = set()
    everywhere: set[str] = set()
    bare = False
    for i, each in enumerate(resources):
        resource, slash, sub = each.partition("/")
        if not each:
            out.append(required(f"{path}[{i}]"))
        elif not slash:
            bare = each != "*"
        else:
            for there, other in ((resource in whole, f"{resource}/*"), (sub in everywhere, f"*/{sub}")):
                if there:
                    text = f"if '{other}' is present, must not specify {each}"
                    out.append(invalid(f"{path}[{i}]", each, text))
            whole |= {resource} if sub == "*" else set()
            everywhere |= {sub} if resource == "*" else set()
    if len(resources) > 1 and "*/*" in resources:
        out.append(invalid(path, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and bare:
        text = "if '*' is present, must not specify other resources without subresources"
        out.append(invalid(path, resources, text))
    return out


def _client(path: str, client: Mapping[str, Any]) -> Complaints:
    service, url = client.get("service"), client.get("url")
    if (service is None) == (url is None):
        return [required(path, "exactly one of url or service is required")]
    return (
        webhookclient.url(f"{path}.url", url or "")
        if service is None
        else webhookclient.service(f"{path}.service", service)
    )


def _default_policy(policy: Object) -> None:
    spec = policy.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    constraints = spec.get("matchConstraints")
    if constraints is not None:
        _matching(constraints)
        for key in ("resourceRules", "excludeResourceRules"):
            for rule in constraints.get(key) or ():
                rule.setdefault("scope", "*")


def _default_policy_binding(binding: Object) -> None:
    resources = binding.setdefault("spec", {}).get("matchResources")
    if resources is not None:
        _matching(resources)
        for key in ("resourceRules", "excludeResourceRules"):
            for rule in resources.get(key) or ():
                rule.setdefault("scope", "*")


_MUTABLE = ("*", "CONNECT", "CREATE", "UPDATE")


def _match_resources(path: str, found: Mapping[str, Any] | None, *, mutating: bool) -> Complaints:
    """Complaints about what a policy or a binding matches."""
    if found is None:
        return []
    out: Complaints = []
    if found.get("matchPolicy") not in _MATCHES:
        out.append(not_supported(f"{path}.matchPolicy", found.get("matchPolicy") or "", _MATCHES))
    for key in ("namespaceSelector", "objectSelector"):
        out += labels.validate(found.get(key), f"{path}.{key}")
    for key in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(found.get(key) or ()):
            given = rule.get("resourceNames") or []
            for at, name in enumerate(given):
                here = f"{path}.{key}[{i}].resourceNames[{at}]"
                out += [invalid(here, name, text) for text in names.path_segment(name)]
                out += [duplicate(here, name)] if name in given[:at] else []
            out += _rule(f"{path}.{key}[{i}]", rule)
    if mutating:
        for rule in found.get("resourceRules") or ():
            for operation in rule.get("operations") or ():
                if operation not in _MUTABLE:
                    out.append(not_supported(f"{path}.resourceRules.operations", operation, _MUTABLE))
    return out


def _validate_policy(policy: Object, *, mutating: bool) -> Complaints:
    spec = policy.get("spec") or {}
    out: Complaints = []
    if spec.get("failurePolicy") not in _FAILURES:
        out.append(not_supported("spec.failurePolicy", spec.get("failurePolicy"), _FAILURES))
    if (kind := spec.get("paramKind")) is not None:
        out += _param_kind("spec.paramKind", kind)
    constraints = spec.get("matchConstraints")
    if constraints is None:
        out.append(required("spec.matchConstraints"))
    else:
        out += _match_resources("spec.matchConstraints", constraints, mutating=mutating)
        if not constraints.get("resourceRules"):
            out.append(required("spec.matchConstraints.resourceRules"))
    return out


def _param_kind(path: str, found: Mapping[str, Any]) -> Complaints:
    version, kind, here = found.get("apiVersion") or "", found.get("kind") or "", f"{path}.apiVersion"
    group, _, name = version.rpartition("/")
    out: Complaints = []
    if not version:
        out.append(required(here))
    elif version.count("/") > 1:
        out.append(invalid(here, version, f"unexpected GroupVersion string: {version}"))
    else:
        if group and (texts := names.dns_subdomain(group)):
            out.append(invalid(here, group, ",".join(texts)))
        if not name:
            out.append(invalid(here, version, "version must be specified"))
        elif texts := names.dns1035_label(name):
            out.append(invalid(here, name, ",".join(texts)))
    if not kind:
        out.append(required(f"{path}.kind"))
    elif texts := names.dns1035_label(kind.lower()):
        text = f"may have mixed case, but should otherwise match: {','.join(texts)}"
        out.append(invalid(f"{path}.kind", kind, text))
    return out


def _validate_validations(policy: Object) -> Complaints:
    return _validate_policy(policy, mutating=False) + policies.check_policy(policy)


def _validate_mutations(policy: Object) -> Complaints:
    out = _validate_policy(policy, mutating=True) + policies.check_mutations(policy)
    again = dig(policy, "spec", "reinvocationPolicy")
    if not again:
        out.append(required("spec.reinvocationPolicy"))
    elif again not in _AGAIN:
        out.append(not_supported("spec.reinvocationPolicy", again, _AGAIN))
    return out


_ACTIONS = ("Audit", "Deny", "Warn")


def _validate_binding(binding: Object, *, mutating: bool) -> Complaints:
    spec = binding.get("spec") or {}
    name = spec.get("policyName") or ""
    out: Complaints = [] if name else [required("spec.policyName")]
    if name:
        out += [invalid("spec.policyName", name, text) for text in names.dns_subdomain(name)]
    out += _param_ref(spec.get("paramRef"))
    out += _match_resources("spec.matchResources", spec.get("matchResources"), mutating=mutating)
    if mutating:
        return out
    actions = spec.get("validationActions") or []
    path = "spec.validationActions"
    for at, action in enumerate(actions):
        if action not in _ACTIONS:
            out.append(not_supported(f"{path}[{at}]", action, _ACTIONS))
        if action in actions[:at]:
            out.append(duplicate(f"{path}[{at}]", action))
    if "Deny" in actions and "Warn" in actions:
        text = "repeating the same validation failure information in the API response and headers serves no purpose"
        out.append(invalid(path, actions, f"must not contain both Deny and Warn ({text})"))
    if not actions:
        out.append(required(path, "at least one validation action is required"))
    return out


def _param_ref(ref: Mapping[str, Any] | None) -> Complaints:
    if ref is None:
        return []
    path, out = "spec.paramRef", list[FieldError]()
    name, alone = ref.get("name") or "", "name and selector are mutually exclusive"
    out += [invalid(f"{path}.name", name, text) for text in names.path_segment(name)] if name else []
    if name and "selector" in ref:
        out.append(forbidden(f"{path}.name", alone))
    out += labels.validate(ref.get("selector"), f"{path}.selector")
    if name and "selector" in ref:
        out.append(forbidden(f"{path}.selector", alone))
    if not name and "selector" not in ref:
        out.append(required(path, "one of name or selector must be specified"))
    action = ref.get("parameterNotFoundAction")
    if not action:
        out.append(required(f"{path}.parameterNotFoundAction"))
    elif action not in ("Allow", "Deny"):
        out.append(not_supported(f"{path}.parameterNotFoundAction", action, ("Deny", "Allow")))
    return out


def _parameter_kind(policy: Object, now: float) -> str:
    kind = dig(policy, "spec", "paramKind")
    return f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET


def _parameter(binding: Object, now: float) -> str:
    ref = dig(binding, "spec", "paramRef")
    if not ref or not ref.get("name"):
        return UNSET
    return f"{ref.get('namespace') or '*'}/{ref['name']}"


def _webhook_kind(kind: str, *, mutating: bool) -> Behavior:
    return Behavior(
        GROUP,
        kind,
        order="nv",
        default=_webhooks(mutating=mutating),
        validate=_validate_webhooks(mutating=mutating),
        prepare_create=strategy.begin(None, generations=True),
        columns=(NAME, length("Webhooks", "webhooks"), AGE),
    )


def _prepare_status(new: Object, old: Object) -> None:
    only_status(new, old)
    new.setdefault("status", {})


def _validate_status(new: Object, old: Object) -> list[FieldError]:
    """What a policy's controller found."""
    status, path = new.get("status") or {}, "status.typeChecking.expressionWarnings"
    out: list[FieldError] = []
    for at, each in enumerate(dig(status, "typeChecking", "expressionWarnings") or ()):
        out += [] if each.get("warning") else [required(f"{path}[{at}].warning")]
        reference = (each.get("fieldRef") or "").strip()
        if not reference:
            out.append(required(f"{path}[{at}].fieldRef"))
    return out + conditions.check("status.conditions", status.get("conditions") or ())


def _policy_kind(kind: str, counted: str, status: Object | None, validate: Validate | None = None) -> Behavior:
    return Behavior(
        GROUP,
        kind,
        order="nv",
        default=_default_policy,
        validate=validate,
        updates={"status": Update(_prepare_status, _validate_status, "u")} if status is not None else {},
        prepare_create=strategy.begin(status, generations=True),
        columns=(NAME, length(counted, "spec", counted.lower()), Column("ParamKind", _parameter_kind), AGE),
    )


def _binding_kind(kind: str, *, mutating: bool) -> Behavior:
    return Behavior(
        GROUP,
        kind,
        order="nv",
        default=_default_policy_binding,
        validate=partial(_validate_binding, mutating=mutating),
        prepare_create=strategy.begin(None, generations=True),
        columns=(NAME, field("PolicyName", "spec", "policyName"), Column("ParamRef", _parameter), AGE),
    )


BEHAVIORS = (
    _webhook_kind("MutatingWebhookConfiguration", mutating=True),
    _webhook_kind("ValidatingWebhookConfiguration", mutating=False),
    _policy_kind("ValidatingAdmissionPolicy", "Validations", {}, _validate_validations),
    _policy_kind("MutatingAdmissionPolicy", "Mutations", None, _validate_mutations),
    _binding_kind("ValidatingAdmissionPolicyBinding", mutating=False),
    _binding_kind("MutatingAdmissionPolicyBinding", mutating=True),
)
