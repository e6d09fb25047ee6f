"""PersistentVolume.

Source: SetDefaults_PersistentVolume, ValidatePersistentVolume, printPersistentVolume.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from steersman.api import names, quantity
from steersman.api.errors import FieldError
from steersman.api.godiff import difference
from steersman.api.godump import dump
from steersman.api.kind import Behavior, Cell, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.core import claimspec
from steersman.api.kinds.podspec import defaults, disks, scheduling, volumes
from steersman.api.kinds.podspec.paths import no_backsteps
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, UNSET, dig, field, wide
from steersman.api.validation import IMMUTABLE, forbidden, immutable, invalid, not_supported, required

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
    default_spec(spec)
    status = volume.setdefault("status", {})
    status["phase"] = status.get("phase") or "Pending"


def default_spec(spec: Object) -> None:
    """What every spec of a volume gets, one inside a VolumeAttachment too."""
    defaults.resource_list(spec.get("capacity"))
    for key in _sources(spec):
        defaults.volume_source({"name": "", key: spec[key]})


def _sources(spec: Mapping[str, Any]) -> list[str]:
    return [key for key in spec if key not in _NOT_SOURCES]


def validate(volume: Object) -> list[FieldError]:
    """Modes, capacity, exactly one source, where it can be reached."""
    return _validate_spec("spec", volume["spec"], volume["metadata"].get("name") or "")


def validate_inline(path: str, spec: Object) -> list[FieldError]:
    """The spec of a volume that a VolumeAttachment holds itself: a CSI volume and nothing about claims or nodes."""
    text = "may not be specified in the context of inline volumes"
    out = [forbidden(f"{path}.claimRef", text)] if "claimRef" in spec else []
    out += [forbidden(f"{path}.capacity", text)] if spec.get("capacity") else []
    if "csi" not in spec:
        out.append(required(f"{path}.csi", "has to be specified in the context of inline volumes"))
    out += claimspec.access_modes(path, spec, missing="")
    if (spec.get("persistentVolumeReclaimPolicy") or "Retain") != "Retain":
        here = f"{path}.persistentVolumeReclaimPolicy"
        out.append(forbidden(here, "may only be Retain in the context of inline volumes"))
    if "nodeAffinity" in spec:
        out.append(forbidden(f"{path}.nodeAffinity", text))
    out += _source(path, spec, "")
    if spec.get("storageClassName"):
        out.append(forbidden(f"{path}.storageClassName", text))
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        text = "may not specify volumeMode other than Filesystem in the context of inline volumes"
        out.append(forbidden(f"{path}.volumeMode", text))
    return out


def _validate_spec(path: str, spec: Object, name: str) -> list[FieldError]:
    out = claimspec.access_modes(path, spec, missing="") + _capacity(path, spec.get("capacity"))
    policy = spec.get("persistentVolumeReclaimPolicy") or ""
    if policy and policy not in _POLICIES:
        out.append(not_supported(f"{path}.persistentVolumeReclaimPolicy", policy, _POLICIES))
    affinity = spec.get("nodeAffinity")
    if affinity is not None and "required" in affinity:
        out += scheduling.node_selector(f"{path}.nodeAffinity.required", affinity["required"])
    elif affinity is not None:
        out.append(required(f"{path}.nodeAffinity.required", "must specify required node constraints"))
    out += _source(path, spec, name)
    if policy == "Recycle" and posixpath.normpath((spec.get("hostPath") or {}).get("path") or ".") == "/":
        text = "may not be 'recycle' for a hostPath mount of '/'"
        out.append(forbidden(f"{path}.persistentVolumeReclaimPolicy", text))
    if found := spec.get("storageClassName"):
        out += [invalid(f"{path}.storageClassName", found, text) for text in names.dns_subdomain(found)]
    mode = spec.get("volumeMode")
    if mode is not None and mode not in claimspec.VOLUME_MODES:
        out.append(not_supported(f"{path}.volumeMode", mode, claimspec.VOLUME_MODES))
    return out + _attributes_class(path, spec)


def _capacity(path: str, capacity: Mapping[str, str] | None) -> list[FieldError]:
    here = f"{path}.capacity"
    out = [] if capacity else [required(here)]
    if set(capacity or ()) != {"storage"}:
        out.append(not_supported(here, capacity, ("storage",)))
    for name, amount in (capacity or {}).items():
        whole = quantity.parse(amount)
        if (units := -(-whole.nanos // 10**9)) < 0:
            out.append(invalid(f"{here}[{name}]", units, "must be a valid resource quantity"))
        if whole.nanos <= 0:
            out.append(invalid(f"{here}[{name}]", amount, "must be greater than zero"))
    return out


def _attributes_class(path: str, spec: Object) -> list[FieldError]:
    name = spec.get("volumeAttributesClassName")
    if name is None:
        return []
    here = f"{path}.volumeAttributesClassName"
    out = [invalid(here, name, text) for text in names.dns_subdomain(name)] if name else []
    out += [] if name else [required(here, "an empty string is disallowed")]
    if "csi" not in spec:
        out.append(required(f"{path}.csi", "has to be specified when using volumeAttributesClassName"))
    return out


def _source(path: str, spec: Object, name: str) -> list[FieldError]:
    sources = [key for key in _ORDER if key in spec]
    if not sources:
        return [required(path, "must specify a volume type")]
    out: list[FieldError] = []
    for i, key in enumerate(sources):
        if i and key != "flexVolume":  # the original forgets to count what is there before it
            out += [forbidden(at, "may not specify more than 1 volume type") for at in disks.crowd(path, [key])]
            continue
        out += _CHECKS[key](disks.place(path, key), spec[key])
        portal = (spec.get("iscsi") or {}).get("targetPortal") or ""
        if key == "iscsi" and "initiatorName" in spec[key] and len(f"{name}:{portal}") > 64:
            out.append(invalid(f"{path}.iscsi.targetportal", portal, volumes.LONG_PORTAL))
        if key == "local" and "nodeAffinity" not in spec:
            out.append(required(f"{path}.nodeAffinity", "Local volume requires node affinity"))
    return out


def _local(path: str, found: Mapping[str, Any]) -> list[FieldError]:
    where = found.get("path") or ""
    return no_backsteps(f"{path}.path", where) if where else [required(f"{path}.path")]


def _csi(path: str, found: Mapping[str, Any]) -> list[FieldError]:
    out = volumes.driver_name(f"{path}.driver", found.get("driver") or "")
    if not found.get("volumeHandle"):
        out.append(required(f"{path}.volumeHandle"))
    for step in ("controllerPublish", "controllerExpand", "nodePublish", "nodeExpand"):
        if f"{step}SecretRef" in found:
            out += disks.secret_reference(f"{path}.{step}SecretRef", found[f"{step}SecretRef"])
    return out


_CHECKS: Mapping[str, disks.Check] = {
    **disks.OF_VOLUMES,
    "hostPath": volumes.host_path,
    "nfs": volumes.nfs,
    "local": _local,
    "csi": _csi,
}
_ORDER = (
    *("hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte"),
    *("cephfs", "iscsi", "cinder", "fc", "flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk"),
    *("portworxVolume", "azureDisk", "scaleIO", "local", "storageos", "csi"),
)


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """The source never changes."""
    fresh, before = ({key: each["spec"][key] for key in _sources(each["spec"])} for each in (new, old))
    out: list[FieldError] = []
    if "csi" in fresh and "csi" in before and "controllerExpandSecretRef" not in before["csi"]:  # may come later
        fresh["csi"] = {key: value for key, value in fresh["csi"].items() if key != "controllerExpandSecretRef"}
    if strategy.differs(fresh, before):
        shown = difference(*(dump(each, "v1:PersistentVolumeSource") for each in (before, fresh)))
        text = f"spec.persistentvolumesource is immutable after creation\n{shown}"
        out.append(forbidden("spec.persistentvolumesource", text))
    out += immutable("volumeMode", new["spec"].get("volumeMode"), old["spec"].get("volumeMode"))
    where, there = (dump(each["spec"], "v1:PersistentVolumeSpec")["NodeAffinity"] for each in (new, old))
    if there is not None and strategy.differs(where, _in_new_names(there, where)):
        out.append(invalid("nodeAffinity", where, f"{IMMUTABLE}, except for updating from beta label to GA"))
    key = "volumeAttributesClassName"
    if old["spec"].get(key) is not None and new["spec"].get(key) is None:
        out.append(forbidden(f"spec.{key}", "update from non-nil value to nil is forbidden"))
    return out


_RENAMED = {
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
}


def _in_new_names(old: Any, new: Any) -> Any:
    """The old affinity, with the stable names of labels where the new one has those instead of their beta names."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {key: _in_new_names(item, new.get(key)) for key, item in old.items()}
        if "Key" in found and found["Key"] != new.get("Key") and _RENAMED.get(found["Key"], "") == new.get("Key"):
            found["Key"] = new["Key"]
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [_in_new_names(*pair) for pair in zip(old, new, strict=True)]
    return old


def _begin(volume: Object) -> None:
    """Pending since it was made."""
    since = volume["metadata"].get("creationTimestamp")
    strategy.begin({"phase": "Pending", **({"lastPhaseTransitionTime": since} if since else {})})(volume)


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
    order="nvnvu",
    default=default,
    validate=validate,
    validate_update=validate_update,
    prepare_create=_begin,
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
