"""Rules of a JobSpec, in a Job and in a CronJob's template.

Source: validateJobSpec and its neighbours in pkg/apis/batch/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from steersman.api import labels, names
from steersman.api.errors import FieldError
from steersman.api.kinds import workload
from steersman.api.kinds.podspec import validate as podrules
from steersman.api.kinds.podspec import warnings as podwarnings
from steersman.api.validation import (
    Struct,
    duplicate,
    invalid,
    not_negative,
    not_supported,
    quote,
    required,
    struct,
    too_long,
    too_many,
)

Complaints = list[FieldError]
Spec = Mapping[str, Any]

_NUMBERS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_MODES = ("NonIndexed", "Indexed")
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_REPLACEMENTS = ("Failed", "TerminatingOrFailed")
_MANY = 100_000
_LESS = 10_000


def validate(path: str, spec: Spec) -> Complaints:
    """Numbers, modes, policies, template."""
    out = [error for name in _NUMBERS for error in not_negative(f"{path}.{name}", spec.get(name))]
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        out.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if (manager := spec.get("managedBy")) is not None:
        out += names.domain_path(f"{path}.managedBy", manager)
        if len(manager) > 63:
            out.append(too_long(f"{path}.managedBy", 63))
    mode = spec.get("completionMode")
    if mode is not None and mode not in _MODES:
        out.append(not_supported(f"{path}.completionMode", mode, _MODES))
    out += _indexed(path, spec) if mode == "Indexed" else _not_indexed(path, spec, mode)
    if "podFailurePolicy" in spec:
        out += _failure_policy(f"{path}.podFailurePolicy", spec)
    out += _success_policy(f"{path}.successPolicy", spec)
    replacement = spec.get("podReplacementPolicy")
    allowed = ("Failed",) if "podFailurePolicy" in spec else _REPLACEMENTS
    if replacement is not None and replacement not in allowed:
        out.append(not_supported(f"{path}.podReplacementPolicy", replacement, allowed))
    out += podrules.template(f"{path}.template", spec.get("template") or {})
    return out + _restart(f"{path}.template.spec.restartPolicy", spec)


def selector(path: str, spec: Spec) -> Complaints:
    """The selector of a Job that is about to be, and the labels of its template."""
    found = spec.get("selector")
    out = [required(f"{path}.selector")] if found is None else labels.validate(found, f"{path}.selector")
    own = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or None
    try:
        if not labels.from_object(found).matches(own or {}):
            text = "`selector` does not match template `labels`"
            out.append(invalid(f"{path}.template.metadata.labels", own, text))
    except ValueError:
        pass  # said already
    return out


def _restart(path: str, spec: Spec) -> Complaints:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy") or ""
    if policy in ("", "Always"):
        return [required(path, 'valid values: "OnFailure", "Never"')]
    if policy not in ("OnFailure", "Never"):
        return [not_supported(path, policy, ("OnFailure", "Never"))]
    if "podFailurePolicy" in spec and policy != "Never":
        return [invalid(path, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def _indexed(path: str, spec: Spec) -> Complaints:
    completions, parallel, failed = (spec.get(key) for key in ("completions", "parallelism", "maxFailedIndexes"))
    out: Complaints = []
    if completions is None:
        out.append(required(f"{path}.completions", "when completion mode is Indexed"))
    if parallel is not None and parallel > _MANY:
        text = f"must be less than or equal to {_MANY} when completion mode is Indexed"
        out.append(invalid(f"{path}.parallelism", parallel, text))
    if completions is not None and failed is not None and failed > completions:
        out.append(invalid(f"{path}.maxFailedIndexes", failed, "must be less than or equal to completions"))
    if failed is not None and failed > _MANY:
        out.append(invalid(f"{path}.maxFailedIndexes", failed, f"must be less than or equal to {_MANY}"))
    if completions is not None and completions > _MANY and "backoffLimitPerIndex" in spec:
        suffix = f" when completions are above {_MANY} and used with backoff limit per index"
        text = f"must be less than or equal to {_LESS}{suffix}"
        if failed is None:
            why = f"must be specified when completions is above {_MANY}"
            out.append(required(f"{path}.maxFailedIndexes", why))
        elif failed > _LESS:
            out.append(invalid(f"{path}.maxFailedIndexes", failed, text))
        if parallel is not None and parallel > _LESS:
            out.append(invalid(f"{path}.parallelism", parallel, text))
    return out


def _not_indexed(path: str, spec: Spec, mode: str | None) -> Complaints:
    if mode not in (None, "NonIndexed"):
        return []
    fields = ("backoffLimitPerIndex", "maxFailedIndexes")
    return [invalid(f"{path}.{key}", spec[key], "requires indexed completion mode") for key in fields if key in spec]


def _failure_policy(path: str, spec: Spec) -> Complaints:
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or ()
    out = [too_many(f"{path}.rules", len(rules), 20)] if len(rules) > 20 else []
    inner = (spec.get("template") or {}).get("spec") or {}
    known = {each.get("name") for key in ("containers", "initContainers") for each in inner.get(key) or ()}
    for i, rule in enumerate(rules):
        here, action = f"{path}.rules[{i}]", rule.get("action") or ""
        if not action:
            shown = " ".join(f'"{name}"' for name in _ACTIONS)
            out.append(required(f"{here}.action", f"valid values: [{shown}]"))
        elif action == "FailIndex" and "backoffLimitPerIndex" not in spec:
            out.append(invalid(f"{here}.action", action, "requires the backoffLimitPerIndex to be set"))
        elif action not in _ACTIONS:
            out.append(not_supported(f"{here}.action", action, _ACTIONS))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or ()
        if codes is not None:
            out += _exit_codes(f"{here}.onExitCodes", codes, known)
        for j, pattern in enumerate(conditions):
            kind = pattern.get("type") or ""
            out += [invalid(f"{here}.onPodConditions[{j}].type", kind, text) for text in names.qualified(kind)]
            status = pattern.get("status") or ""
            if not status:
                text = 'valid values: ["False" "True" "Unknown"]'
                out.append(required(f"{here}.onPodConditions[{j}].status", text))
            elif status not in _STATUSES:
                out.append(not_supported(f"{here}.onPodConditions[{j}].status", status, _STATUSES))
        if (codes is not None) == bool(conditions):
            text = "specifying both OnExitCodes and OnPodConditions is not supported"
            if codes is None:
                text = "specifying one of OnExitCodes and OnPodConditions is required"
            out.append(FieldError("FieldValueInvalid", here, f"Invalid value: {text}"))
    return out


def _exit_codes(path: str, codes: Mapping[str, Any], known: set[Any]) -> Complaints:
    operator, values = codes.get("operator") or "", codes.get("values") or []
    out: Complaints = []
    if not operator:
        out.append(required(f"{path}.operator", 'valid values: ["In" "NotIn"]'))
    elif operator not in ("In", "NotIn"):
        out.append(not_supported(f"{path}.operator", operator, ("In", "NotIn")))
    name = codes.get("containerName")
    if name is not None and name not in known:
        text = "must be one of the container or initContainer names in the pod template"
        out.append(invalid(f"{path}.containerName", name, text))
    if not values:
        out.append(invalid(f"{path}.values", codes.get("values"), "at least one value is required"))
    elif len(values) > 255:
        out.append(too_many(f"{path}.values", len(values), 255))
    for i, value in enumerate(values):
        if operator == "In" and value == 0:
            out.append(invalid(f"{path}.values[{i}]", value, "must not be 0 for the In operator"))
        if value in values[:i]:
            out.append(duplicate(f"{path}.values[{i}]", value))
    if values != sorted(values):
        out.append(invalid(f"{path}.values", values, "must be ordered"))
    return out


def _success_policy(path: str, spec: Spec) -> Complaints:
    policy = spec.get("successPolicy")
    if policy is None:
        return []
    if spec.get("completionMode") != "Indexed":
        rules = policy.get("rules")
        shown = rules and [struct(each, SucceededIndexes=None, SucceededCount=None) for each in rules]
        return [invalid(path, Struct({"Rules": shown}), "requires indexed completion mode")]
    rules = policy.get("rules") or ()
    out: Complaints = []
    if not rules:
        text = "at least one rules must be specified when the successPolicy is specified"
        out.append(required(f"{path}.rules", text))
    if len(rules) > 20:
        out.append(too_many(f"{path}.rules", len(rules), 20))
    for i, rule in enumerate(rules):
        if "succeededCount" not in rule and "succeededIndexes" not in rule:
            text = "at least one of succeededCount or succeededIndexes must be specified"
            out.append(required(f"{path}.rules[{i}]", text))
        count, total, indexes = rule.get("succeededCount"), 0, rule.get("succeededIndexes")
        if indexes is not None:
            total, wrong = parsed_indexes(indexes, spec.get("completions") or 0)
            here = f"{path}.rules[{i}].succeededIndexes"
            out += [too_long(here, _LONGEST_INDEXES)] if len(indexes) > _LONGEST_INDEXES else []
            out += [invalid(here, indexes, f"error parsing succeededIndexes: {wrong}")] if wrong else []
        out += not_negative(f"{path}.rules[{i}].succeededCount", count)
        if count is not None and count > (spec.get("completions") or 0):
            text = f"must be less than or equal to {spec.get('completions') or 0} (the number of specified completions)"
            out.append(invalid(f"{path}.rules[{i}].succeededCount", count, text))
        if indexes is not None and count is not None and count > total:
            text = (
                f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            )
            out.append(invalid(f"{path}.rules[{i}].succeededCount", count, text))
    return out


_LONGEST_INDEXES = 64 * 1024
_STATUSES = ("False", "True", "Unknown")


def parsed_indexes(text: str, completions: int) -> tuple[int, str]:
    """How many indexes a text such as `0,2-4` names, and what is wrong with it."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        found = interval(part, completions)
        if isinstance(found, str):
            return 0, found
        first, final = found
        if last >= first:
            return 0, f"non-increasing order, previous: {last}, current: {first}"
        total, last = total + final - first + 1, final
    return total, ""


def interval(part: str, completions: int) -> tuple[int, int] | str:
    """The first and the last index of a text such as `2-4`, or what is wrong with it."""
    ends = part.split("-")
    if len(ends) > 2:
        rule = "violates the requirement that an index interval can have at most two parts separated by '-'"
        return f"the fragment {quote(part)} {rule}"
    for end in ends:
        if not re.fullmatch(r"\+?\d{1,18}", end, re.ASCII):
            return f"cannot convert string to integer for index: {quote(end)}"
        if int(end) >= completions:
            return f"too large index: {quote(end)}"
    first, final = int(ends[0]), int(ends[-1])
    if len(ends) == 2 and first >= final:
        return f"non-increasing order, previous: {first}, current: {final}"
    return first, final


def warnings(path: str, metadata: Spec, spec: Spec) -> list[str]:
    """Of the name that pods take theirs from, more indexes than can be kept, and the template."""
    out = workload.hostname(metadata)
    if spec.get("completionMode") == "Indexed":
        completions, parallelism = spec.get("completions") or 0, spec.get("parallelism") or 0
        if completions > _MANY and parallelism > _MANY_AT_ONCE:
            out.append(
                f"{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than "
                "10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
            )
    return out + podwarnings.template(f"{path}.template", spec.get("template") or {})


_MANY, _MANY_AT_ONCE = 100_000, 10_000
