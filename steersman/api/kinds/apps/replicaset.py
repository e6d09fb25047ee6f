"""ReplicaSet.

Source: SetDefaults_ReplicaSet, ValidateReplicaSet, pkg/registry/apps/replicaset/strategy.go, printReplicaSet.
"""

from __future__ import annotations

from steersman.api import labels
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Update
from steersman.api.kinds import strategy, workload
from steersman.api.kinds.podspec import defaults
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, number, of_template, selector_text, wide
from steersman.api.validation import immutable, not_negative

COUNTERS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")


def default(replicaset: Object) -> None:
    """One replica."""
    spec = replicaset.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    defaults.template(spec)
    replicaset.setdefault("status", {}).setdefault("replicas", 0)


def validate(replicaset: Object) -> list[FieldError]:
    """Selector, template, numbers."""
    spec = replicaset["spec"]
    out = not_negative("spec.replicas", spec.get("replicas"))
    out += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    return out + workload.selected_template(spec, "ReplicaSet", empty="deployment")


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """The selector never changes."""
    before, after = labels.shown(old["spec"].get("selector")), labels.shown(new["spec"].get("selector"))
    return immutable("spec.selector", after, before)


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """Counters."""
    return workload.counters(new.get("status") or {}, COUNTERS, of_ready="readyReplicas")


REPLICASET = Behavior(
    "apps",
    "ReplicaSet",
    default=default,
    warnings=workload.warnings("spec", "template", named=True),
    validate=validate,
    validate_update=validate_update,
    prepare_create=strategy.begin({"replicas": 0}, generations=True),
    updates={"status": Update(strategy.keep("spec"), validate_status)},
    columns=(
        NAME,
        number("Desired", "spec", "replicas"),
        number("Current", "status", "replicas"),
        number("Ready", "status", "readyReplicas"),
        AGE,
        *of_template("spec", "template"),
        wide("Selector", lambda replicaset, now: selector_text(replicaset["spec"].get("selector"))),
    ),
)
