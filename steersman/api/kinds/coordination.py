"""Lease.

Source: ValidateLeaseSpec, printLease.
"""

from __future__ import annotations

from steersman.api.errors import FieldError
from steersman.api.kind import Behavior
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, field
from steersman.api.validation import invalid


def default(lease: Object) -> None:
    """The spec is never absent; who takes over by which strategy is behind a gate that is off."""
    spec = lease.setdefault("spec", {})
    for key in ("strategy", "preferredHolder"):
        spec.pop(key, None)


def validate(lease: Object) -> list[FieldError]:
    """Durations."""
    spec = lease.get("spec") or {}
    out: list[FieldError] = []
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        out.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        out.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    return out


LEASE = Behavior(
    "coordination.k8s.io",
    "Lease",
    order="mv",
    default=default,
    validate=validate,
    columns=(NAME, field("Holder", "spec", "holderIdentity"), AGE),
)
