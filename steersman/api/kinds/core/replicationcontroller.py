"""ReplicationController, the elder of ReplicaSet: its selector is a plain map.

Source: SetDefaults_ReplicationController, ValidateReplicationController, printReplicationController.
"""

from __future__ import annotations

from steersman.api import labels
from steersman.api.errors import FieldError
from steersman.api.fields import number_at
from steersman.api.kind import Behavior, Update
from steersman.api.kinds import strategy, workload
from steersman.api.kinds.apps.replicaset import COUNTERS
from steersman.api.kinds.podspec import defaults
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, label_text, number, of_template, wide
from steersman.api.validation import not_negative, required


def default(controller: Object) -> None:
    """One replica; selector and labels come from the template."""
    spec = controller.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    if "template" in spec:
        own = (spec["template"].get("metadata") or {}).get("labels")
        if own and not spec.get("selector"):
            spec["selector"] = dict(own)
        if own and not controller["metadata"].get("labels"):
            controller["metadata"]["labels"] = dict(own)
        defaults.template(spec)
    controller.setdefault("status", {}).setdefault("replicas", 0)


def validate(controller: Object) -> list[FieldError]:
    """Selector, template, numbers."""
    spec = controller["spec"]
    out = not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    if not spec.get("selector"):
        out.append(required("spec.selector"))
    out += not_negative("spec.replicas", spec.get("replicas"))
    selector = labels.from_set(spec.get("selector"))
    return out + workload.matched_template(spec, selector, "ReplicationController")


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """Counters."""
    return workload.counters(new.get("status") or {}, COUNTERS, of_ready="readyReplicas")


REPLICATIONCONTROLLER = Behavior(
    "",
    "ReplicationController",
    order="mv",
    default=default,
    warnings=workload.warnings("spec", "template", named=True),
    validate=validate,
    prepare_create=strategy.begin({"replicas": 0}, generations=True),
    updates={"status": Update(strategy.keep("spec"), validate_status)},
    columns=(
        NAME,
        number("Desired", "spec", "replicas"),
        number("Current", "status", "replicas"),
        number("Ready", "status", "readyReplicas"),
        AGE,
        *of_template("spec", "template"),
        wide("Selector", lambda controller, now: label_text(controller["spec"].get("selector"))),
    ),
    fields={"status.replicas": number_at("status", "replicas")},
)
