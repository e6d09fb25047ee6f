"""StatefulSet.

Source: SetDefaults_StatefulSet, ValidateStatefulSet, pkg/registry/apps/statefulset/strategy.go, printStatefulSet.
"""

from __future__ import annotations

from steersman.api import labels, meta, names
from steersman.api.errors import FieldError
from steersman.api.godump import dump
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy, workload
from steersman.api.kinds.core import claimspec
from steersman.api.kinds.podspec import defaults
from steersman.api.kinds.podspec import warnings as podwarnings
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig, of_template
from steersman.api.validation import Struct, alike, forbidden, invalid, not_negative, not_supported, required, struct

_STATUS = {"replicas": 0, "availableReplicas": 0}
_COUNTERS = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
_MAY_CHANGE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_FORBIDDEN = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def default(statefulset: Object) -> None:
    """One replica, in order, rolling; claims outlive their pods."""
    spec = statefulset.setdefault("spec", {})
    spec["podManagementPolicy"] = spec.get("podManagementPolicy") or "OrderedReady"
    how = spec.setdefault("updateStrategy", {})
    if not how.get("type"):
        how["type"] = "RollingUpdate"
        how.setdefault("rollingUpdate", {})
    if how["type"] == "RollingUpdate" and "rollingUpdate" in how:
        how["rollingUpdate"].setdefault("partition", 0)
    (how.get("rollingUpdate") or {}).pop("maxUnavailable", None)  # behind a gate that is off
    spec.setdefault("serviceName", "")
    if spec.get("ordinals") is not None:
        spec["ordinals"].setdefault("start", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    for key in ("whenDeleted", "whenScaled"):
        retention[key] = retention.get(key) or "Retain"
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    defaults.template(spec)
    for claim in spec.get("volumeClaimTemplates") or ():
        claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
        claim.setdefault("metadata", {})
        defaults.claim_spec(claim.setdefault("spec", {}))
        claim.setdefault("status", {}).setdefault("phase", "Pending")
    status = statefulset.setdefault("status", {})
    for key, value in _STATUS.items():
        status.setdefault(key, value)


def validate(statefulset: Object) -> list[FieldError]:
    """Policies, numbers, selector, template with the claims as its volumes."""
    spec = statefulset["spec"]
    out: list[FieldError] = []
    policy = spec.get("podManagementPolicy") or ""
    if not policy:
        out.append(required("spec.podManagementPolicy"))
    elif policy not in ("OrderedReady", "Parallel"):
        out.append(invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    out += _strategy("spec.updateStrategy", spec.get("updateStrategy") or {})
    for key, value in (spec.get("persistentVolumeClaimRetentionPolicy") or {}).items():
        if value not in ("Retain", "Delete"):
            path = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
            out.append(not_supported(path, value, ("Retain", "Delete")))
    if not statefulset["metadata"].get("resourceVersion"):  # both never change, so old ones are let be
        for i, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
            out += claimspec.validate(f"spec.volumeClaimTemplates[{i}].spec", claim.get("spec") or {})
        if service := spec.get("serviceName"):
            out += [invalid("spec.serviceName", service, text) for text in names.dns_label(service)]
    out += not_negative("spec.replicas", spec.get("replicas"))
    out += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    out += not_negative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    return out + _selected(spec)


def _selected(spec: Object) -> list[FieldError]:
    selector = spec.get("selector")
    out: list[FieldError] = []
    if selector is None:
        out.append(required("spec.selector"))
    else:
        out += labels.validate(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            shown = labels.shown(selector)
            out.append(invalid("spec.selector", shown, "empty selector is invalid for statefulset"))
    try:
        chosen = labels.from_object(selector)
    except ValueError:
        return [*out, invalid("spec.selector", labels.shown(selector), "")]
    whole = _with_claims(spec)
    deadline = workload.matched_template({"template": whole}, chosen, "StatefulSet")
    last = workload.always({"template": whole}, "StatefulSet")
    metadata, path = whole.get("metadata") or {}, "spec.template"
    own = labels.validate_labels(metadata.get("labels"), f"{path}.labels")
    own += meta.validate_annotations(metadata.get("annotations"), f"{path}.annotations")
    return out + deadline[: len(deadline) - len(last)] + own + last


def _with_claims(spec: Object) -> Object:
    """The template as its pods will be: the claims are volumes, names are the controller's."""
    template = spec["template"]
    claims = [(claim.get("metadata") or {}).get("name") or "" for claim in spec.get("volumeClaimTemplates") or ()]
    inner = {key: value for key, value in template["spec"].items() if key not in ("subdomain", "hostname")}
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in dict.fromkeys(claims)]
    inner["volumes"] = volumes + [each for each in inner.get("volumes") or () if each.get("name") not in claims]
    return {**template, "spec": inner}


def _strategy(path: str, how: Object) -> list[FieldError]:
    rolling = how.get("rollingUpdate")
    match how.get("type") or "":
        case "":
            return [required(path)]
        case "OnDelete":
            text = "only allowed for updateStrategy 'RollingUpdate'"
            shown = struct(rolling, Partition=0, MaxUnavailable=None)
            return [] if rolling is None else [invalid(f"{path}.rollingUpdate", shown, text)]
        case "RollingUpdate":
            return [] if rolling is None else _rolling(f"{path}.rollingUpdate", rolling)
    shown = struct(how, Type="", RollingUpdate=None)
    how = Struct({**(shown or {}), "RollingUpdate": struct(rolling, Partition=0, MaxUnavailable=None)})
    return [invalid(path, how, "must be 'RollingUpdate' or 'OnDelete'")]


def _rolling(path: str, rolling: Object) -> list[FieldError]:
    out = not_negative(f"{path}.partition", rolling.get("partition"))
    if "maxUnavailable" in rolling:
        less, here = rolling["maxUnavailable"], f"{path}.maxUnavailable"
        out += workload.int_or_percent(here, less)
        if workload.amount(less) == 0:
            out.append(invalid(here, less, "cannot be 0"))
        out += workload.at_most_all(here, less)
    return out


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """Only some fields of the spec may change."""
    fresh, before = (
        {key: value for key, value in each["spec"].items() if key not in _MAY_CHANGE} for each in (new, old)
    )
    shown = [dump(each, "apps/v1:StatefulSetSpec") for each in (fresh, before)]
    return [] if fresh == before or alike(*shown) else [forbidden("spec", _FORBIDDEN)]


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """Counters."""
    out = workload.counters(new.get("status") or {}, _COUNTERS, of_ready="status.readyReplicas")
    return out + workload.collisions(new, old)


def warnings(statefulset: Object) -> list[str]:
    """Of the template, of claims that are no whole number of bytes, and of a history without an end."""
    spec = statefulset["spec"]
    out = podwarnings.template("spec.template", spec["template"])
    for i, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        out += podwarnings.claim_size(f"spec.volumeClaimTemplates[{i}].spec", claim.get("spec") or {})
    if (spec.get("revisionHistoryLimit") or 0) < 0:
        text = "a negative value retains all historical revisions; a value >= 0 is recommended"
        out.append(f"spec.revisionHistoryLimit: {text}")
    return out


def _ready(statefulset: Object, now: float) -> str:
    return f"{dig(statefulset, 'status', 'readyReplicas') or 0}/{dig(statefulset, 'spec', 'replicas') or 0}"


STATEFULSET = Behavior(
    "apps",
    "StatefulSet",
    default=default,
    warnings=warnings,
    validate=validate,
    validate_update=validate_update,
    prepare_create=strategy.begin(_STATUS, generations=True),
    updates={"status": Update(strategy.keep("spec"), validate_status, "um")},
    columns=(NAME, Column("Ready", _ready), AGE, *of_template("spec", "template")),
    name_rule=names.label_name,
)
