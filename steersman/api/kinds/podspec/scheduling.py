"""Rules of what decides where a pod runs: affinity, tolerations, topology spread, gates.

Owns one function for each. Source: validateAffinity, ValidateTolerations, validateTopologySpreadConstraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import labels, names
from steersman.api.errors import FieldError
from steersman.api.validation import duplicate, forbidden, invalid, not_supported, required

Complaints = list[FieldError]

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_WEIGHT = "must be in the range 1-100"
_NO_SELECTOR = "must not be specified when labelSelector is not set"


def affinity(path: str, found: Mapping[str, Any] | None) -> Complaints:
    """spec.affinity."""
    if not found:
        return []
    out: Complaints = []
    if node := found.get("nodeAffinity"):
        here = f"{path}.nodeAffinity"
        if REQUIRED in node:
            out += node_selector(f"{here}.{REQUIRED}", node[REQUIRED])
        for i, term in enumerate(node.get(PREFERRED) or ()):
            out += _weight(f"{here}.{PREFERRED}[{i}]", term)
            out += _node_term(f"{here}.{PREFERRED}[{i}].preference", term.get("preference") or {}, values=False)
    for key in ("podAffinity", "podAntiAffinity"):
        pod = found.get(key) or {}
        for i, term in enumerate(pod.get(REQUIRED) or ()):
            out += _pod_term(f"{path}.{key}.{REQUIRED}[{i}]", term)
        for i, term in enumerate(pod.get(PREFERRED) or ()):
            here = f"{path}.{key}.{PREFERRED}[{i}]"
            out += _weight(here, term)
            out += _pod_term(f"{here}.podAffinityTerm", term.get("podAffinityTerm") or {})
    return out


def _weight(path: str, term: Mapping[str, Any]) -> Complaints:
    weight = term.get("weight") or 0
    return [] if 1 <= weight <= 100 else [invalid(f"{path}.weight", weight, _WEIGHT)]


def node_selector(path: str, selector: Mapping[str, Any]) -> Complaints:
    """A NodeSelector."""
    terms = selector.get("nodeSelectorTerms") or ()
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    return [
        error
        for i, term in enumerate(terms)
        for error in _node_term(f"{path}.nodeSelectorTerms[{i}]", term, values=True)
    ]


def _node_term(path: str, term: Mapping[str, Any], *, values: bool) -> Complaints:
    out: Complaints = []
    for i, expression in enumerate(term.get("matchExpressions") or ()):
        out += _node_expression(f"{path}.matchExpressions[{i}]", expression, values)
    for i, expression in enumerate(term.get("matchFields") or ()):
        out += _node_field(f"{path}.matchFields[{i}]", expression)
    return out


def _node_expression(path: str, expression: Mapping[str, Any], check_values: bool) -> Complaints:
    operator, values = expression.get("operator") or "", expression.get("values") or ()
    key = expression.get("key") or ""
    out: Complaints = []
    if operator in ("In", "NotIn"):
        if not values:
            out.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            out.append(forbidden(f"{path}.values", text))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            out.append(required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
    else:
        out.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    out += [invalid(f"{path}.key", key, text) for text in names.qualified(key)]
    if check_values:
        for i, value in enumerate(values):
            out += [invalid(f"{path}.values[{i}]", value, text) for text in names.label_value(value)]
    return out


def _node_field(path: str, expression: Mapping[str, Any]) -> Complaints:
    operator, values = expression.get("operator") or "", expression.get("values") or ()
    key = expression.get("key") or ""
    out: Complaints = []
    if operator not in ("In", "NotIn"):
        out.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        out.append(required(f"{path}.values", text))
    if key != "metadata.name":
        return [*out, invalid(f"{path}.key", key, "not a valid field selector key")]
    for i, value in enumerate(values):
        out += [invalid(f"{path}.values[{i}]", value, text) for text in names.subdomain_name(value)]
    return out


def _pod_term(path: str, term: Mapping[str, Any]) -> Complaints:
    selector = term.get("labelSelector")
    out = labels.validate(selector, f"{path}.labelSelector")
    out += labels.validate(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for namespace in term.get("namespaces") or ():
        out += [invalid(f"{path}.namespace", namespace, text) for text in names.dns_label(namespace)]
    out += _label_keys(path, term, selector)
    key = term.get("topologyKey") or ""
    if not key:
        out.append(required(f"{path}.topologyKey", "can not be empty"))
    return out + [invalid(f"{path}.topologyKey", key, text) for text in names.qualified(key)]


def _label_keys(path: str, term: Mapping[str, Any], selector: Mapping[str, Any] | None) -> Complaints:
    out: Complaints = []
    match, mismatch = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    for field, keys in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        if keys and selector is None:
            out.append(forbidden(f"{path}.{field}", _NO_SELECTOR))
            continue
        for i, key in enumerate(keys):
            out += [invalid(f"{path}.{field}[{i}]", key, text) for text in names.qualified(key)]
    out += _said_twice(path, match, selector or {})
    for i, key in enumerate(match):
        if key in mismatch:
            text = "exists in both matchLabelKeys and mismatchLabelKeys"
            out.append(invalid(f"{path}.matchLabelKeys[{i}]", key, text))
    return out


def _said_twice(path: str, keys: Sequence[str], selector: Mapping[str, Any]) -> Complaints:
    """What such a key adds to a selector is all that the selector says of it."""
    places = {key: i for i, key in enumerate(keys)}
    seen = set(selector.get("matchLabels") or ())
    out: Complaints = []
    for expression in selector.get("matchExpressions") or ():
        key = expression.get("key") or ""
        if key in places and key in seen:
            out.append(invalid(f"{path}[{places[key]}]", key, "exists in both matchLabelKeys and labelSelector"))
        seen.add(key)
    return out


def tolerations(path: str, found: Sequence[Mapping[str, Any]]) -> Complaints:
    """spec.tolerations."""
    out: Complaints = []
    for i, toleration in enumerate(found):
        here = f"{path}[{i}]"
        key, value = toleration.get("key") or "", toleration.get("value") or ""
        operator, effect = toleration.get("operator") or "", toleration.get("effect") or ""
        if key:
            out += [invalid(f"{here}.key", key, text) for text in names.qualified(key)]
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            out.append(invalid(f"{here}.operator", operator, text))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            out.append(invalid(f"{here}.effect", effect, text))
        if operator in ("", "Equal"):
            if texts := names.label_value(value):
                out.append(invalid(f"{here}.operator", value, ";".join(texts)))
        elif operator == "Exists":
            if value:
                out.append(invalid(f"{here}.operator", value, "value must be empty when `operator` is 'Exists'"))
        else:
            known = ("Equal", "Exists", "Lt", "Gt") if operator in ("Lt", "Gt") else ("Equal", "Exists")
            out.append(not_supported(f"{here}.operator", operator, known))
        if effect and effect not in EFFECTS:
            out.append(not_supported(f"{here}.effect", effect, EFFECTS))
    return out


def spread(path: str, found: Sequence[Mapping[str, Any]]) -> Complaints:
    """spec.topologySpreadConstraints."""
    out: Complaints = []
    for i, constraint in enumerate(found):
        here = f"{path}[{i}]"
        key, action = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        out += _positive(f"{here}.maxSkew", constraint.get("maxSkew") or 0)
        if not key:
            out.append(required(f"{here}.topologyKey", "can not be empty"))
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            out.append(not_supported(f"{here}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
        later = ((each.get("topologyKey"), each.get("whenUnsatisfiable")) for each in found[i + 1 :])
        if (key, action) in later:
            out.append(duplicate(f"{here}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
        least = constraint.get("minDomains")
        if least is not None:
            out += _positive(f"{here}.minDomains", least)
            if action != "DoNotSchedule":
                text = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                out.append(invalid(f"{here}.minDomains", least, text))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if field in constraint and constraint[field] not in ("Honor", "Ignore"):
                out.append(not_supported(f"{here}.{field}", constraint[field], ("Honor", "Ignore")))
        selector = constraint.get("labelSelector")
        out += _label_keys(here, {"matchLabelKeys": constraint.get("matchLabelKeys")}, selector)
        out += labels.validate(selector, f"{here}.labelSelector")
    return out


def _positive(path: str, value: int) -> Complaints:
    return [] if value > 0 else [invalid(path, value, "must be greater than zero")]


def gates(path: str, found: Sequence[Mapping[str, Any]]) -> Complaints:
    """spec.schedulingGates."""
    out: Complaints = []
    seen: set[str] = set()
    for i, gate in enumerate(found):
        name = gate.get("name") or ""
        out += [invalid(f"{path}[{i}]", name, text) for text in names.qualified(name)]
        if name in seen:
            out.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)
    return out
