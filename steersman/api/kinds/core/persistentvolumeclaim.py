"""PersistentVolumeClaim.

Source: SetDefaults_PersistentVolumeClaim, ValidatePersistentVolumeClaimUpdate, printPersistentVolumeClaim.
"""

from __future__ import annotations

from steersman.api import names, quantity
from steersman.api.errors import FieldError
from steersman.api.godiff import difference
from steersman.api.godump import dump
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.core import claimspec
from steersman.api.kinds.core.persistentvolume import class_name, modes_text, phase
from steersman.api.kinds.podspec import defaults, resources
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, UNSET, dig, field, wide
from steersman.api.validation import alike, forbidden, immutable, invalid, not_supported, required

_FIXED = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


_KNOWN_SOURCES = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def default(claim: Object) -> None:
    """A file system; Pending; dataSource and dataSourceRef say the same."""
    spec = claim.setdefault("spec", {})
    defaults.claim_spec(spec)
    status = claim.setdefault("status", {})
    status["phase"] = status.get("phase") or "Pending"
    defaults.resource_list(status.get("capacity"))


def _same_sources(spec: Object, before: Object) -> None:
    """What a source that nobody knows, or one in another namespace, comes to; then both fields say the same."""
    if (spec.get("dataSourceRef") or {}).get("namespace") and "dataSourceRef" not in before:
        del spec["dataSourceRef"]  # behind a gate that is off
    source, ref = spec.get("dataSource"), spec.get("dataSourceRef")
    fresh = source is not None and ref is None and "dataSource" not in before
    if fresh and (source.get("apiGroup") or "", source.get("kind") or "") not in _KNOWN_SOURCES:
        del spec["dataSource"]
        return
    for each in (source, ref):
        if each is not None:
            each.setdefault("apiGroup", None)
    if source is not None and ref is None:
        spec["dataSourceRef"] = dict(source)
    elif ref is not None and source is None and not ref.get("namespace"):
        spec["dataSource"] = {key: value for key, value in ref.items() if key != "namespace"}


def prepare_create(claim: Object) -> None:
    """Pending."""
    claim["status"] = {"phase": "Pending"}
    claim["metadata"].pop("generation", None)
    _same_sources(claim["spec"], {})


def prepare_update(new: Object, old: Object) -> None:
    """The status has its own endpoint."""
    strategy.keep("status")(new, old)
    _same_sources(new["spec"], old["spec"])


def validate(claim: Object) -> list[FieldError]:
    """The spec's rules."""
    return claimspec.validate("spec", claim["spec"])


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """A bound claim may grow; nothing else changes once it is set."""
    fresh, before = dict(new["spec"]), dict(old["spec"])
    bound = dig(new, "status", "phase") == "Bound"
    if not before.get("volumeName"):
        before["volumeName"] = fresh.get("volumeName", "")
    if before.get("storageClassName") is None and fresh.get("storageClassName") is not None:
        fresh.pop("storageClassName")
    sizes = [dig(each, "spec", "resources", "requests", "storage") or "0" for each in (new, old)]
    if bound and (fresh.get("resources") or {}).get("requests") is not None:
        fresh["resources"] = _with_size(fresh.get("resources") or {}, dig(before, "resources", "requests", "storage"))
    if bound:
        strategy.copy_field("volumeAttributesClassName", fresh, before)
    former, wanted = (dump(each, "v1:PersistentVolumeClaimSpec") for each in (before, fresh))
    changed = not alike(former, wanted)
    out = [forbidden("spec", f"{_FIXED}\n{difference(former, wanted)}")] if changed else []
    floor = dig(old, "status", "capacity", "storage") or "0"
    if quantity.compare(sizes[0], sizes[1]) < 0 and quantity.compare(sizes[0], floor) <= 0:
        out.append(forbidden("spec.resources.requests.storage", "field can not be less than status.capacity"))
    out += immutable("volumeMode", new["spec"].get("volumeMode"), old["spec"].get("volumeMode"))
    return out + _attributes(new["spec"].get("volumeAttributesClassName"), old)


def _attributes(wanted: str | None, old: Object) -> list[FieldError]:
    """A class that was applied does not go again."""
    if wanted or wanted == (old["spec"].get("volumeAttributesClassName")):
        return []
    if dig(old, "status", "currentVolumeAttributesClassName") is None:
        return []
    text = f"update to {'nil' if wanted is None else 'empty string'} is forbidden when "
    here = "spec.volumeAttributesClassName"
    return [forbidden(here, f"{text}status.currentVolumeAttributesClassName is not nil")]


_RESIZES = (
    *("ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress"),
    *("NodeResizeInfeasible", "NodeResizePending"),
)


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """Amounts, and how far a resize of which of them has come (KEP-1790)."""
    status = new.get("status") or {}
    out = [] if new["spec"].get("accessModes") else [required("Spec.accessModes")]
    for name, amount in (status.get("capacity") or {}).items():
        out += _basic(f"status.capacity[{name}]", amount)
    here = "status.allocatedResourceStatuses"
    for name, state in (status.get("allocatedResourceStatuses") or {}).items():
        out += _key(here, name)
        if state not in _RESIZES:
            out.append(not_supported(here, name, sorted(_RESIZES)))
    here = "status.allocatedResources"
    for name, amount in (status.get("allocatedResources") or {}).items():
        wrong = _key(here, name) or _basic(f"{here}[{name}]", amount)
        out += wrong or resources.amount(f"{here}[{name}]", "storage", amount)
    return out


def _key(path: str, name: str) -> list[FieldError]:
    wrong = [invalid(path, name, text) for text in names.qualified(name)]
    if wrong or not resources.is_native(name):
        return wrong
    return [] if name == "storage" else [not_supported(path, name, ("storage",))]


def _basic(path: str, amount: str) -> list[FieldError]:
    units = -(-quantity.parse(amount).nanos // 10**9)
    return [invalid(path, units, "must be a valid resource quantity")] if units < 0 else []


def _with_size(resources: Object, size: str | None) -> Object:
    requests = dict(resources.get("requests") or {})
    if size is not None:
        requests["storage"] = size
    return {**resources, "requests": requests}


def _if_bound(claim: Object, value: str) -> str:
    return value if dig(claim, "spec", "volumeName") else ""


PERSISTENTVOLUMECLAIM = Behavior(
    "",
    "PersistentVolumeClaim",
    order="mnvu",
    default=default,
    validate=validate,
    validate_update=validate_update,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    updates={"status": Update(strategy.keep("spec"), validate_status)},
    columns=(
        NAME,
        Column("Status", phase),
        field("Volume", "spec", "volumeName"),
        Column("Capacity", lambda claim, now: _if_bound(claim, dig(claim, "status", "capacity", "storage") or "0")),
        Column("Access Modes", lambda claim, now: _if_bound(claim, modes_text("status", "accessModes")(claim, now))),
        Column("StorageClass", class_name),
        field("VolumeAttributesClass", "spec", "volumeAttributesClassName", empty=UNSET),
        AGE,
        wide("VolumeMode", lambda claim, now: dig(claim, "spec", "volumeMode") or UNSET),
    ),
)
