"""HorizontalPodAutoscaler: kept as autoscaling/v2, served as v1 too.

Source: pkg/apis/autoscaling/v2/defaults.go, the v1 conversion, pkg/apis/autoscaling/validation,
printHorizontalPodAutoscaler.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from steersman.api import names, quantity
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.podspec import resources
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, UNKNOWN, UNSET, dig, field
from steersman.api.validation import NOT_NEGATIVE, forbidden, invalid, not_negative, not_supported, required

Complaints = list[FieldError]

METRICS = "autoscaling.alpha.kubernetes.io/metrics"
CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"

_UP: Object = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN: Object = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_LOOKED_AT = ("object", "external", "pods", "resource", "containerResource")
_DEFAULT_UTILIZATION = 80


def default(scaler: Object) -> None:
    """At least one pod, 80 % of the CPU, and how fast it may go."""
    spec = scaler.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    status = scaler.setdefault("status", {})
    status.setdefault("desiredReplicas", 0)
    if scaler.get("apiVersion") == "autoscaling/v1":
        status.setdefault("currentReplicas", 0)
        return
    status.setdefault("currentMetrics", None)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": _DEFAULT_UTILIZATION}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        behavior["scaleUp"] = {**copy.deepcopy(_UP), **(behavior.get("scaleUp") or {})}
        behavior["scaleDown"] = {**copy.deepcopy(_DOWN), **(behavior.get("scaleDown") or {})}


def convert(scaler: Object, version: str) -> Object:
    """Between v2 and v1, which says all but the CPU's target in annotations."""
    if version == "autoscaling/v1":
        return _to_v1(scaler)
    return _from_v1(scaler, version) if scaler.get("apiVersion") == "autoscaling/v1" else scaler


def _is_cpu(metric: Mapping[str, Any]) -> bool:
    return metric.get("type") == "Resource" and dig(metric, "resource", "name") == "cpu"


def _to_v1(scaler: Object) -> Object:
    spec, status = dict(scaler.get("spec") or {}), dict(scaler.get("status") or {})
    annotations: dict[str, str] = {}
    rest = []
    for metric in spec.pop("metrics", None) or ():
        percent = dig(metric, "resource", "target", "averageUtilization")
        if _is_cpu(metric) and percent is not None and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = percent
        else:
            rest.append(metric)
    if rest:
        annotations[METRICS] = _dumps(rest)
    if behavior := spec.pop("behavior", None):
        annotations[BEHAVIOR] = _dumps(behavior)
    current = status.pop("currentMetrics", None) or ()
    for metric in current:
        percent = dig(metric, "resource", "current", "averageUtilization")
        if _is_cpu(metric) and percent is not None:
            status["currentCPUUtilizationPercentage"] = percent
    if current:
        annotations[CURRENT] = _dumps(current)
    if conditions := status.pop("conditions", None):
        annotations[CONDITIONS] = _dumps(conditions)
    status.setdefault("currentReplicas", 0)
    metadata = dict(scaler.get("metadata") or {})
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return {**scaler, "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def _from_v1(scaler: Object, version: str) -> Object:
    spec, status = dict(scaler.get("spec") or {}), dict(scaler.get("status") or {})
    metadata = dict(scaler.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    metrics = _loads(annotations.pop(METRICS, ""))
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}, *(metrics or [])]
    for target, key, found in (
        (spec, "metrics", metrics),
        (spec, "behavior", _loads(annotations.pop(BEHAVIOR, ""))),
        (status, "currentMetrics", _loads(annotations.pop(CURRENT, ""))),
        (status, "conditions", _loads(annotations.pop(CONDITIONS, ""))),
    ):
        if found:
            target[key] = found
    status.pop("currentCPUUtilizationPercentage", None)
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    return {**scaler, "apiVersion": version, "metadata": metadata, "spec": spec, "status": status}


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _loads(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def validate(scaler: Object) -> Complaints:
    """Bounds, target, metrics, behaviour."""
    spec = scaler["spec"]
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    out: Complaints = []
    if least is not None and least < 1:
        out.append(invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most == 0:
        out.append(required("spec.maxReplicas", "must be set and greater than 0"))
    elif most < 0:
        out.append(invalid("spec.maxReplicas", most, "must be greater than or equal to 1"))
    if least is not None and most < least:
        out.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    target = spec.get("scaleTargetRef") or {}
    out += _reference("spec.scaleTargetRef", target) + _target_version("spec.scaleTargetRef.apiVersion", target)
    for i, metric in enumerate(spec.get("metrics") or ()):
        out += _metric(f"spec.metrics[{i}]", metric)
    if least == 0 and not any(each.get("type") in ("Object", "External") for each in spec.get("metrics") or ()):
        text = "must specify at least one Object or External metric to support scaling to zero replicas"
        out.append(forbidden("spec.metrics", text))
    for key in ("scaleUp", "scaleDown"):
        rules = dig(spec, "behavior", key)
        if rules is not None:
            out += _rules(f"spec.behavior.{key}", rules)
    return out


def _reference(path: str, ref: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    for key in ("kind", "name"):
        value = ref.get(key) or ""
        if not value:
            out.append(required(f"{path}.{key}"))
        out += [invalid(f"{path}.{key}", value, text) for text in names.path_segment(value)]
    return out


def _target_version(path: str, ref: Mapping[str, Any]) -> Complaints:
    """What is scaled is in a group, or one of core's own kinds."""
    version = ref.get("apiVersion") or ""
    if version.count("/") > 1:
        return [invalid(path, version, f"unexpected GroupVersion string: {version}")]
    if version.partition("/")[0] not in ("", version) or ref.get("kind") == "ReplicationController":
        return []
    return [invalid(path, version, "apiVersion must specify API group")]


def _metric(path: str, metric: Mapping[str, Any]) -> Complaints:
    kind = metric.get("type") or ""
    strange = [] if kind in _SOURCES else [not_supported(f"{path}.type", kind, sorted(_SOURCES))]
    out: Complaints = [] if kind else [required(f"{path}.type", "must specify a metric source type")]
    out += strange
    wanted = _SOURCES.get(kind, "")
    present = [key for key in _LOOKED_AT if key in metric]
    if present:
        out += _source(f"{path}.{present[0]}", present[0], metric[present[0]])
    if wanted and wanted not in metric:
        out.append(required(f"{path}.{wanted}", "must populate information for the given metric source"))
    out += strange
    others = [key for key in present if key != wanted] if len(present) > 1 else []
    return out + [forbidden(f"{path}.{key}", "must populate the given metric source only") for key in others]


def _source(path: str, kind: str, source: Mapping[str, Any]) -> Complaints:
    target = source.get("target") or {}
    out: Complaints = []
    if kind in ("resource", "containerResource"):
        if not source.get("name"):
            out.append(required(f"{path}.name", "must specify a resource name"))
        if kind == "containerResource":
            out += _container(path, source)
    if kind == "object":
        out += _reference(f"{path}.describedObject", source.get("describedObject") or {})
    if kind in ("object", "pods", "external"):
        out += _metric_name(f"{path}.metric.name", dig(source, "metric", "name") or "")
    out += _target(f"{path}.target", target)
    here = f"{path}.target"
    if kind in ("resource", "containerResource"):
        both = "averageUtilization" in target, "averageValue" in target
        if not any(both):
            text = "must set either a target raw value or a target utilization"
            out.append(required(f"{here}.averageUtilization", text))
        if all(both):
            text = "may not set both a target raw value and a target utilization"
            out.append(forbidden(f"{here}.averageValue", text))
    elif kind == "pods" and "averageValue" not in target:
        out.append(required(f"{here}.averageValue", "must specify a positive target averageValue"))
    elif kind == "object" and "value" not in target and "averageValue" not in target:
        out.append(required(f"{here}.averageValue", "must set either a target value or averageValue"))
    elif kind == "external" and "value" not in target and "averageValue" not in target:
        text = "must set either a target value for metric or a per-pod target"
        out.append(required(f"{here}.averageValue", text))
    elif kind == "external" and "value" in target and "averageValue" in target:
        out.append(forbidden(f"{here}.value", "may not set both a target value for metric and a per-pod target"))
    return out


def _container(path: str, source: Mapping[str, Any]) -> Complaints:
    name, resource = source.get("container") or "", source.get("name")
    out = resources.container_resource_name(f"{path}.name", resource) if resource else []
    if not name:
        return [*out, required(f"{path}.container", "must specify a container")]
    return out + [invalid(f"{path}.container", name, text) for text in names.dns_label(name)]


def _metric_name(path: str, name: str) -> Complaints:
    if not name:
        return [required(path, "must specify a metric name")]
    return [invalid(path, name, text) for text in names.path_segment(name)]


def _target(path: str, target: Mapping[str, Any]) -> Complaints:
    kinds, kind = ("AverageValue", "Utilization", "Value"), target.get("type") or ""
    out: Complaints = []
    if not kind:
        out.append(required(f"{path}.type", "must specify a metric target type"))
    if kind not in kinds:
        out.append(invalid(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue"))
    for key in ("value", "averageValue"):
        if key in target and quantity.parse(target[key]).nanos <= 0:
            out.append(invalid(f"{path}.{key}", target[key], "must be positive"))
    percent = target.get("averageUtilization")
    if percent is not None and percent < 1:
        out.append(invalid(f"{path}.averageUtilization", percent, "must be greater than 0"))
    return out


def _rules(path: str, rules: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    window, here = rules.get("stabilizationWindowSeconds"), f"{path}.stabilizationWindowSeconds"
    if window is not None and window < 0:
        out.append(invalid(here, window, "must be greater than or equal to zero"))
    if window is not None and window > 3600:
        out.append(invalid(here, window, "must be less than or equal to 3600"))
    select = rules.get("selectPolicy")
    if select is not None and select not in ("Disabled", "Max", "Min"):
        out.append(not_supported(f"{path}.selectPolicy", select, ("Disabled", "Max", "Min")))
    policies = rules.get("policies") or ()
    if not policies:
        out.append(required(f"{path}.policies", "must specify at least one Policy"))
    for i, policy in enumerate(policies):
        here = f"{path}.policies[{i}]"
        if policy.get("type") not in ("Percent", "Pods"):
            out.append(not_supported(f"{here}.type", policy.get("type") or "", ("Percent", "Pods")))
        for key in ("value", "periodSeconds"):
            if (policy.get(key) or 0) <= 0:
                out.append(invalid(f"{here}.{key}", policy.get(key) or 0, "must be greater than zero"))
        if (policy.get("periodSeconds") or 0) > 1800:
            out.append(invalid(f"{here}.periodSeconds", policy["periodSeconds"], "must be less than or equal to 1800"))
    if "tolerance" in rules and quantity.parse(rules["tolerance"]).nanos < 0:
        out.append(invalid(f"{path}.tolerance", rules["tolerance"], NOT_NEGATIVE))
    return out


def validate_status(new: Object, old: Object) -> Complaints:
    """Counters."""
    status = new.get("status") or {}
    fields = ("currentReplicas", "desiredReplicas")
    return [error for key in fields for error in not_negative(f"status.{key}", status.get(key))]


def _targets(scaler: Object, now: float) -> str:
    metrics, current = dig(scaler, "spec", "metrics") or (), dig(scaler, "status", "currentMetrics") or ()
    if not metrics:
        return "<none>"
    shown = [_shown(metric, current[i] if i < len(current) else {}) for i, metric in enumerate(metrics)]
    text = ", ".join(shown[:2])
    return f"{text} + {len(shown) - 2} more..." if len(shown) > 2 else text


def _shown(metric: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    kind = _SOURCES.get(metric.get("type") or "")
    if kind is None:
        return "<unknown type>"
    source, target = metric.get(kind) or {}, dig(metric, kind, "target") or {}
    now = dig(current, kind, "current") or {}
    if kind in ("resource", "containerResource"):
        if "averageValue" in target:
            return f"{source.get('name')}: {now.get('averageValue', UNKNOWN)}/{target['averageValue']}"
        percents = (found.get("averageUtilization") for found in (now, target))
        used, wanted = percents
        shown = UNKNOWN if used is None else f"{used}%"
        return f"{source.get('name')}: {shown}/{'<auto>' if wanted is None else f'{wanted}%'}"
    if "averageValue" in target:
        suffix = "" if kind == "pods" else " (avg)"
        return f"{now.get('averageValue', UNKNOWN)}/{target['averageValue']}{suffix}"
    return f"{now.get('value', UNKNOWN)}/{target.get('value', '0')}"


def _target_of(scaler: Object, now: float) -> str:
    ref = dig(scaler, "spec", "scaleTargetRef") or {}
    return f"{ref.get('kind', '')}/{ref.get('name', '')}"


def _least(scaler: Object, now: float) -> str:
    value = dig(scaler, "spec", "minReplicas")
    return UNSET if value is None else str(value)


HORIZONTALPODAUTOSCALER = Behavior(
    "autoscaling",
    "HorizontalPodAutoscaler",
    order="mv",
    default=default,
    validate=validate,
    prepare_create=strategy.begin({"desiredReplicas": 0, "currentMetrics": None}),
    updates={"status": Update(strategy.keep("spec"), validate_status)},
    columns=(
        NAME,
        Column("Reference", _target_of),
        Column("Targets", _targets),
        Column("MinPods", _least),
        field("MaxPods", "spec", "maxReplicas", empty=0),
        field("Replicas", "status", "currentReplicas", empty=0),
        AGE,
    ),
    convert=convert,
)
