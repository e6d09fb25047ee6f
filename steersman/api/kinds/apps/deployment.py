"""Deployment.

Source: SetDefaults_Deployment, ValidateDeployment, pkg/registry/apps/deployment/strategy.go, printDeployment.
"""

from __future__ import annotations

from steersman.api import labels
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy, workload
from steersman.api.kinds.podspec import defaults
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig, field, of_template, wide
from steersman.api.validation import (
    Struct,
    forbidden,
    immutable,
    invalid,
    not_negative,
    not_supported,
    required,
    struct,
)

_COUNTERS = ("updatedReplicas", "readyReplicas", "availableReplicas")


def default(deployment: Object) -> None:
    """One replica, rolling by quarters, ten old revisions, ten minutes to progress."""
    spec = deployment.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    how = spec.setdefault("strategy", {})
    how["type"] = how.get("type") or "RollingUpdate"
    if how["type"] == "RollingUpdate":
        rolling = how.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    defaults.template(spec)
    deployment.setdefault("status", {})


def prepare_update(new: Object, old: Object) -> None:
    """Annotations count as a change too: they are copied to the ReplicaSets."""
    strategy.copy_field("status", new, old)
    annotations = (new["metadata"].get("annotations"), old["metadata"].get("annotations"))
    changed = strategy.differs(new["spec"], old["spec"]) or strategy.differs(*annotations)
    strategy.count(new, old, changed=changed)


def prepare_status(new: Object, old: Object) -> None:
    """Labels stay as well."""
    strategy.keep("spec")(new, old)
    strategy.copy_field("labels", new["metadata"], old["metadata"])


def validate(deployment: Object) -> list[FieldError]:
    """Selector, template, strategy, numbers."""
    spec = deployment["spec"]
    out = not_negative("spec.replicas", spec.get("replicas"))
    out += workload.selected_template(spec, "ReplicaSet", empty="deployment")
    out += _strategy(spec.get("strategy") or {})
    out += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    out += not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    out += not_negative("spec.progressDeadlineSeconds", deadline)
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        out.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return out


def _strategy(how: Object) -> list[FieldError]:
    path, rolling = "spec.strategy", how.get("rollingUpdate")
    match how.get("type"):
        case "Recreate":
            text = "may not be specified when strategy `type` is 'Recreate'"
            return [] if rolling is None else [forbidden(f"{path}.rollingUpdate", text)]
        case "RollingUpdate":
            text = "this should be defaulted and never be nil"
            here = f"{path}.rollingUpdate"
            return [required(here, text)] if rolling is None else _rolling(here, rolling)
    shown = struct(rolling, MaxUnavailable=0, MaxSurge=0)
    return [not_supported(path, Struct(Type=how.get("type") or "", RollingUpdate=shown), ("Recreate", "RollingUpdate"))]


def _rolling(path: str, rolling: Object) -> list[FieldError]:
    less, more = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    out = workload.int_or_percent(f"{path}.maxUnavailable", less)
    out += workload.int_or_percent(f"{path}.maxSurge", more)
    if workload.amount(less) == 0 and workload.amount(more) == 0:
        out.append(invalid(f"{path}.maxUnavailable", less, "may not be 0 when `maxSurge` is 0"))
    return out + workload.at_most_all(f"{path}.maxUnavailable", less)


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """The selector never changes."""
    before, after = labels.shown(old["spec"].get("selector")), labels.shown(new["spec"].get("selector"))
    return immutable("spec.selector", after, before)


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """Counters."""
    out = workload.counters(new.get("status") or {}, _COUNTERS, of_ready="readyReplicas")
    return out + workload.collisions(new, old)


def _ready(deployment: Object, now: float) -> str:
    return f"{dig(deployment, 'status', 'readyReplicas') or 0}/{dig(deployment, 'spec', 'replicas') or 0}"


def _selector(deployment: Object, now: float) -> str:
    try:
        return str(labels.from_object(deployment["spec"].get("selector")))
    except ValueError:
        return "<invalid>"


DEPLOYMENT = Behavior(
    "apps",
    "Deployment",
    default=default,
    warnings=workload.warnings("spec", "template", named=True),
    validate=validate,
    validate_update=validate_update,
    prepare_create=strategy.begin({}, generations=True),
    prepare_update=prepare_update,
    updates={"status": Update(prepare_status, validate_status)},
    columns=(
        NAME,
        Column("Ready", _ready),
        field("Up-to-date", "status", "updatedReplicas", empty=0),
        field("Available", "status", "availableReplicas", empty=0),
        AGE,
        *of_template("spec", "template"),
        wide("Selector", _selector),
    ),
)
