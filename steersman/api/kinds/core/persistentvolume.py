"""PersistentVolume.

Source: SetDefaults_PersistentVolume, ValidatePersistentVolume, printPersistentVolume.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import names, quantity
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Cell, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.core import claimspec
from steersman.api.kinds.podspec import defaults, scheduling, volumes
from steersman.api.kinds.podspec.paths import no_backsteps
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, UNSET, dig, field, wide
from steersman.api.validation import forbidden, immutable, invalid, not_supported, required

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"

_POLICIES = ("Delete", "Recycle", "Retain")
_NOT_SOURCES = frozenset(
    (
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    )
)
_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def default(volume: Object) -> None:
    """Retained, a file system, Pending."""
    spec = volume.setdefault("spec", {})
    spec["persistentVolumeReclaimPolicy"] = spec.get("persistentVolumeReclaimPolicy") or "Retain"
    spec.setdefault("volumeMode", "Filesystem")
    defaults.resource_list(spec.get("capacity"))
    for key in _sources(spec):
        defaults.volume_source({"name": "", key: spec[key]})
    status = volume.setdefault("status", {})
    status["phase"] = status.get("phase") or "Pending"


def _sources(spec: Mapping[str, Any]) -> list[str]:
    return [key for key in spec if key not in _NOT_SOURCES]


def validate(volume: Object) -> list[FieldError]:
    """Modes, capacity, exactly one source, where it can be reached."""
    spec = volume["spec"]
    out = claimspec.access_modes("spec", spec, missing="")
    capacity = spec.get("capacity") or {}
    if not capacity:
        out.append(required("spec.capacity"))
    elif set(capacity) != {"storage"}:
        out.append(not_supported("spec.capacity", capacity, ("storage",)))
    for name, amount in capacity.items():
        if quantity.parse(amount).nanos <= 0:
            out.append(invalid(f"spec.capacity[{name}]", amount, "must be greater than zero"))
    policy = spec.get("persistentVolumeReclaimPolicy") or ""
    if policy and policy not in _POLICIES:
        out.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, _POLICIES))
    out += _source(spec)
    if affinity := (spec.get("nodeAffinity") or {}).get("required"):
        out += scheduling.node_selector("spec.nodeAffinity.required", affinity)
    if name := spec.get("storageClassName"):
        out += [invalid("spec.storageClassName", name, text) for text in names.dns_subdomain(name)]
    mode = spec.get("volumeMode")
    if mode is not None and mode not in claimspec.VOLUME_MODES:
        out.append(not_supported("spec.volumeMode", mode, claimspec.VOLUME_MODES))
    return out


def _source(spec: Object) -> list[FieldError]:
    sources = _sources(spec)
    if not sources:
        return [required("spec", "must specify a volume type")]
    text = "may not specify more than 1 volume type"
    out = [forbidden(f"spec.{key}", text) for key in sources[1:]]
    key, found = sources[0], spec[sources[0]]
    if key == "hostPath":
        out += volumes.host_path("spec.hostPath", found)
    elif key == "nfs":
        out += volumes.nfs("spec.nfs", found)
    elif key == "local":
        path = found.get("path") or ""
        out += no_backsteps("spec.local.path", path) if path else [required("spec.local.path")]
        if not dig(spec, "nodeAffinity", "required"):
            out.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    elif key == "csi":
        out += volumes.driver_name("spec.csi.driver", found.get("driver") or "")
        if not found.get("volumeHandle"):
            out.append(required("spec.csi.volumeHandle"))
    return out


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """The source never changes."""
    fresh, before = ({key: each["spec"][key] for key in _sources(each["spec"])} for each in (new, old))
    out: list[FieldError] = []
    if strategy.differs(fresh, before):
        text = "spec.persistentvolumesource is immutable after creation"
        out.append(forbidden("spec.persistentvolumesource", text))
    return out + immutable("volumeMode", new["spec"].get("volumeMode"), old["spec"].get("volumeMode"))


def prepare_status(new: Object, old: Object) -> None:
    """The spec stays, and the time of the last phase while the phase does."""
    strategy.keep("spec")(new, old)
    status, before = new.setdefault("status", {}), old.get("status") or {}
    same = status.get("phase") == before.get("phase")
    if same and "lastPhaseTransitionTime" in before:
        status.setdefault("lastPhaseTransitionTime", before["lastPhaseTransitionTime"])


def modes_text(*path: str) -> Cell:
    """A cell that shows access modes in short."""

    def cell(obj: Object, now: float) -> str:
        found = dig(obj, *path) or ()
        return ",".join(short for mode, short in _SHORT.items() if mode in found)

    return cell


def phase(obj: Object, now: float) -> str:
    """Terminating while it is being deleted."""
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else dig(obj, "status", "phase") or ""


def class_name(obj: Object, now: float) -> str:
    """The storage class, from the annotation of old first."""
    annotated = (obj["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
    return annotated if annotated is not None else dig(obj, "spec", "storageClassName") or ""


def _claim(volume: Object, now: float) -> str:
    claim = dig(volume, "spec", "claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


PERSISTENTVOLUME = Behavior(
    "",
    "PersistentVolume",
    default=default,
    validate=validate,
    validate_update=validate_update,
    prepare_create=strategy.begin({"phase": "Pending"}),
    updates={"status": Update(prepare_status)},
    columns=(
        NAME,
        field("Capacity", "spec", "capacity", "storage", empty="0"),
        Column("Access Modes", modes_text("spec", "accessModes")),
        field("Reclaim Policy", "spec", "persistentVolumeReclaimPolicy"),
        Column("Status", phase),
        Column("Claim", _claim),
        Column("StorageClass", class_name),
        field("VolumeAttributesClass", "spec", "volumeAttributesClassName", empty=UNSET),
        field("Reason", "status", "reason"),
        AGE,
        wide("VolumeMode", lambda volume, now: dig(volume, "spec", "volumeMode") or UNSET),
    ),
)
