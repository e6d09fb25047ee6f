"""Lease.

Source: ValidateLeaseSpec, printLease.
"""

from __future__ import annotations

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, field
from steersman.api.validation import forbidden, invalid, not_supported


def default(lease: Object) -> None:
    """The spec is never absent."""
    lease.setdefault("spec", {})


def validate(lease: Object) -> list[FieldError]:
    """Durations and strategy."""
    spec = lease.get("spec") or {}
    out: list[FieldError] = []
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        out.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        out.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    how = spec.get("strategy")
    if how is not None and "/" not in how and how != "OldestEmulationVersion":
        out.append(not_supported("spec.strategy.strategy", how, ("OldestEmulationVersion",)))
    elif how is not None:
        out += [invalid("spec.strategy.strategy", how, text) for text in names.qualified(how)]
    if spec.get("preferredHolder") and not how:
        out.append(forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined"))
    return out


LEASE = Behavior(
    "coordination.k8s.io",
    "Lease",
    default=default,
    validate=validate,
    columns=(NAME, field("Holder", "spec", "holderIdentity"), AGE),
)
