"""StorageVersionMigration: which resource is written again, and how that ended.

Source: pkg/apis/storagemigration/validation, pkg/registry/storagemigration.
"""

from __future__ import annotations

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Update
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import dig
from steersman.api.validation import immutable, invalid, required

_ENDS = {"Succeeded": "Success", "Failed": "Failed"}


def _validate(migration: Object) -> list[FieldError]:
    resource = dig(migration, "spec", "resource") or {}
    path, plural, group = "spec.resource", resource.get("resource") or "", resource.get("group") or ""
    out: list[FieldError] = []
    if not plural:
        out.append(required(f"{path}.resource", "resource is required to be set"))
    elif found := names.dns1035_label(plural):
        out.append(invalid(f"{path}.resource", plural, ",".join(found)))
    if group and (found := names.dns_subdomain(group)):
        out.append(invalid(f"{path}.group", group, ",".join(found)))
    return out


def _validate_update(new: Object, old: Object) -> list[FieldError]:
    """What is migrated never changes."""
    return immutable("spec", new.get("spec"), old.get("spec"))


def _is(migration: Object, kind: str) -> bool:
    found = dig(migration, "status", "conditions") or ()
    return any(each["type"] == kind and each["status"] == "True" for each in found)


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """It ends once and in one way, and the revision that it begins with stays."""
    before, version = (dig(each, "status", "resourceVersion") or "" for each in (old, new))
    out: list[FieldError] = []
    if version and not (version.isascii() and version.isdecimal() and version[0] != "0"):
        out.append(invalid("status.resourceVersion", version, f"resource version is not well formed: {version}"))
    if before and before != version:
        out.append(invalid("status.resourceVersion", version, "field is immutable"))
    conditions = dig(new, "status", "conditions") or []
    if _is(new, "Succeeded") and _is(new, "Failed"):
        text = "Both success and failed conditions cannot be true at the same time"
        out.append(invalid("status.conditions", conditions, text))
    for kind, shown in _ENDS.items():
        if _is(old, kind) and not _is(new, kind):
            text = f"{shown} condition cannot be set to false once it is true"
            out.append(invalid("status.conditions", conditions, text))
    return out


STORAGEVERSIONMIGRATION = Behavior(
    "storagemigration.k8s.io",
    "StorageVersionMigration",
    validate=_validate,
    validate_update=_validate_update,
    updates={"status": Update(strategy.keep("spec"), validate_status)},
)
