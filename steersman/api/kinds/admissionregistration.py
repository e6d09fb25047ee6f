"""Webhook configurations and admission policies.

Source: pkg/apis/admissionregistration/v1/defaults.go and validation, printMutatingWebhook and its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from steersman.api import labels, names, policies
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Default, Validate
from steersman.api.kinds import strategy
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
_REVIEWS = ("v1", "v1beta1")
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
            if name in seen:
                out.append(duplicate(f"{here}.name", name))
            seen.add(name)
            out += _webhook(here, hook, mutating=mutating)
        return out

    return validate


def _webhook(path: str, hook: Mapping[str, Any], *, mutating: bool) -> Complaints:
    out = names.fully_qualified(f"{path}.name", hook.get("name") or "")
    for i, rule in enumerate(hook.get("rules") or ()):
        out += _rule(f"{path}.rules[{i}]", rule)
    choices = [("failurePolicy", _FAILURES), ("matchPolicy", _MATCHES)]
    if mutating:
        choices.append(("reinvocationPolicy", _AGAIN))
    for key, allowed in choices:
        if key in hook and hook[key] not in allowed:
            out.append(not_supported(f"{path}.{key}", hook[key], allowed))
    effects = hook.get("sideEffects")
    if effects is None:
        out.append(required(f"{path}.sideEffects", 'must specify one of "None", "NoneOnDryRun"'))
    elif effects not in _EFFECTS:
        out.append(not_supported(f"{path}.sideEffects", effects, _EFFECTS))
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        text = "the timeout value must be between 1 and 30 seconds"
        out.append(invalid(f"{path}.timeoutSeconds", timeout, text))
    versions = hook.get("admissionReviewVersions") or []
    if not versions:
        text = 'must specify one of "v1", "v1beta1"'
        out.append(required(f"{path}.admissionReviewVersions", text))
    elif not set(versions) & set(_REVIEWS):
        text = "must include at least one of v1, v1beta1"
        out.append(invalid(f"{path}.admissionReviewVersions", versions, text))
    for key in ("namespaceSelector", "objectSelector"):
        out += labels.validate(hook.get(key), f"{path}.{key}")
    out += policies.check_conditions(f"{path}.matchConditions", hook.get("matchConditions") or ())
    return out + _client(f"{path}.clientConfig", hook.get("clientConfig") or {})


def _rule(path: str, rule: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    for key in ("operations", "apiGroups", "apiVersions", "resources"):
        values = rule.get(key) or []
        if not values:
            out.append(required(f"{path}.{key}"))
        elif len(values) > 1 and "*" in values:
            text = "if '*' is present, must not specify other " + _WORDS[key]
            out.append(invalid(f"{path}.{key}", values, text))
    for i, operation in enumerate(rule.get("operations") or ()):
        if operation not in _OPERATIONS:
            out.append(not_supported(f"{path}.operations[{i}]", operation, _OPERATIONS))
    scope = rule.get("scope")
    if scope is not None and scope not in _SCOPES:
        out.append(not_supported(f"{path}.scope", scope, _SCOPES))
    return out


_WORDS = {
    "operations": "operations",
    "apiGroups": "API groups",
    "apiVersions": "API versions",
    "resources": "resources",
}


def _client(path: str, client: Mapping[str, Any]) -> Complaints:
    service, url = client.get("service"), client.get("url")
    if (service is None) == (url is None):
        return [required(path, "exactly one of url or service is required")]
    if service is not None:
        out = [required(f"{path}.service.{key}") for key in ("name", "namespace") if not service.get(key)]
        port = service.get("port", 443)
        return out + [invalid(f"{path}.service.port", port, text) for text in names.port(port)]
    if not str(url).startswith("https://"):
        scheme = str(url).partition(":")[0]
        text = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
        return [invalid(f"{path}.url", scheme, text)]
    return []


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


_MUTABLE = ("*", "CREATE", "UPDATE")


def _match_resources(path: str, found: Mapping[str, Any] | None, *, mutating: bool) -> Complaints:
    """Complaints about what a policy or a binding matches."""
    if found is None:
        return []
    out: Complaints = []
    if found.get("matchPolicy") not in _MATCHES:
        out.append(not_supported(f"{path}.matchPolicy", found.get("matchPolicy"), _MATCHES))
    for key in ("namespaceSelector", "objectSelector"):
        out += labels.validate(found.get(key), f"{path}.{key}")
    for key in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(found.get(key) or ()):
            given = rule.get("resourceNames") or []
            out += [
                duplicate(f"{path}.{key}[{i}].resourceNames[{at}]", name)
                for at, name in enumerate(given)
                if name in given[:at]
            ]
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
        out += [required(f"spec.paramKind.{key}") for key in ("apiVersion", "kind") if not kind.get(key)]
        if str(kind.get("apiVersion", "")).count("/") > 1:
            text = f"unexpected GroupVersion string: {kind['apiVersion']}"
            out.append(invalid("spec.paramKind.apiVersion", kind["apiVersion"], text))
    constraints = spec.get("matchConstraints")
    if constraints is None:
        out.append(required("spec.matchConstraints"))
    else:
        out += _match_resources("spec.matchConstraints", constraints, mutating=mutating)
        if not constraints.get("resourceRules"):
            out.append(required("spec.matchConstraints.resourceRules"))
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
    if ref.get("name") and "selector" in ref:
        out += [forbidden(f"{path}.{key}", "name and selector are mutually exclusive") for key in ("name", "selector")]
    if not ref.get("name") and "selector" not in ref:
        out.append(required(path, "one of name or selector must be specified"))
    out += labels.validate(ref.get("selector"), f"{path}.selector")
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
        default=_webhooks(mutating=mutating),
        validate=_validate_webhooks(mutating=mutating),
        prepare_create=strategy.begin(None, generations=True),
        columns=(NAME, length("Webhooks", "webhooks"), AGE),
    )


def _policy_kind(kind: str, counted: str, status: Object | None, validate: Validate | None = None) -> Behavior:
    return Behavior(
        GROUP,
        kind,
        default=_default_policy,
        validate=validate,
        prepare_create=strategy.begin(status, generations=True),
        columns=(NAME, length(counted, "spec", counted.lower()), Column("ParamKind", _parameter_kind), AGE),
    )


def _binding_kind(kind: str, *, mutating: bool) -> Behavior:
    return Behavior(
        GROUP,
        kind,
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
