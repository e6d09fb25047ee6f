"""Namespace: the kubernetes finalizer in its spec, its label, its phase.

Source: pkg/registry/core/namespace/strategy.go.
"""

from __future__ import annotations

from steersman.api import meta, names
from steersman.api.errors import FieldError
from steersman.api.fields import text_at
from steersman.api.kind import Behavior, Update, only_status
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, field
from steersman.api.validation import invalid

FINALIZER = "kubernetes"
NAME_LABEL = "kubernetes.io/metadata.name"


def default(namespace: Object) -> None:
    """Its name as a label, and Active."""
    metadata = namespace["metadata"]
    if name := metadata.get("name"):
        metadata.setdefault("labels", {})[NAME_LABEL] = name
    namespace.setdefault("spec", {})
    status = namespace.setdefault("status", {})
    status["phase"] = status.get("phase") or "Active"


def prepare_create(namespace: Object) -> None:
    """Active, and kept until its content is gone. A generated name is in the label too."""
    namespace["status"] = {"phase": "Active"}
    finalizers = namespace.setdefault("spec", {}).setdefault("finalizers", [])
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)
    metadata = namespace["metadata"]
    metadata.pop("generation", None)
    if name := metadata.get("name"):
        metadata.setdefault("labels", {})[NAME_LABEL] = name


def prepare_update(new: Object, old: Object) -> None:
    """Finalizers have their own endpoint, status too."""
    strategy.keep("status", "spec")(new, old)


def prepare_finalize(new: Object, old: Object) -> None:
    """The finalize endpoint changes spec.finalizers."""
    strategy.keep("status")(new, old)


def validate(namespace: Object) -> list[FieldError]:
    """Finalizers of the spec are names; without a domain only `kubernetes` is known."""
    return _finalizers(namespace)


def _finalizers(namespace: Object) -> list[FieldError]:
    out: list[FieldError] = []
    for name in (namespace.get("spec") or {}).get("finalizers") or ():
        out += [invalid("spec.finalizers", name, text) for text in names.qualified(name)]
        out += meta.unqualified_finalizer("spec.finalizers", name)
    return out


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """Terminating exactly while being deleted."""
    phase = (new.get("status") or {}).get("phase") or ""
    if new["metadata"].get("deletionTimestamp"):
        if phase != "Terminating":
            text = "may only be 'Terminating' if `deletionTimestamp` is not empty"
            return [invalid("status.Phase", phase, text)]
    elif phase != "Active":
        return [invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")]
    return []


def validate_finalize(new: Object, old: Object) -> list[FieldError]:
    """Names again."""
    return _finalizers(new)


NAMESPACE = Behavior(
    "",
    "Namespace",
    order="nvm",
    default=default,
    validate=validate,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    updates={
        "status": Update(only_status, validate_status),
        "finalize": Update(prepare_finalize, validate_finalize),
    },
    columns=(NAME, field("Status", "status", "phase"), AGE),
    fields={"status.phase": text_at("status", "phase"), "name": text_at("metadata", "name")},
    name_rule=names.label_name,
)
