"""StorageClass, CSIDriver, CSINode, VolumeAttachment and their neighbours.

Source: pkg/apis/storage/v1/defaults.go, pkg/apis/storage/validation, printStorageClass and its neighbours.
"""

from __future__ import annotations

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.kinds import strategy
from steersman.api.kinds.podspec.volumes import driver_name
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, UNSET, dig, field, flag, length
from steersman.api.validation import duplicate, forbidden, immutable, invalid, not_supported, required

GROUP = "storage.k8s.io"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
OLD_DEFAULT_CLASS = "storageclass.beta.kubernetes.io/is-default-class"

_BINDINGS = ("Immediate", "WaitForFirstConsumer")
_RECLAIM = ("Delete", "Retain")
_LIFECYCLES = ("Ephemeral", "Persistent")
_GROUP_POLICIES = ("ReadWriteOnceWithFSType", "File", "None")


def _default_class(found: Object) -> None:
    found.setdefault("reclaimPolicy", "Delete")
    found.setdefault("volumeBindingMode", "Immediate")


def _validate_class(found: Object) -> list[FieldError]:
    provisioner = found.get("provisioner") or ""
    out = [] if provisioner else [required("provisioner", provisioner)]
    if provisioner:
        out += [invalid("provisioner", provisioner, text) for text in names.qualified(provisioner.lower())]
    parameters = found.get("parameters") or {}
    if any(not key for key in parameters):
        out.append(invalid("parameters", "", "field can not be empty."))
    policy, mode = found.get("reclaimPolicy"), found.get("volumeBindingMode")
    if policy is not None and policy not in _RECLAIM:
        out.append(not_supported("reclaimPolicy", policy, _RECLAIM))
    if mode is None:
        out.append(required("volumeBindingMode"))
    elif mode not in _BINDINGS:
        out.append(not_supported("volumeBindingMode", mode, _BINDINGS))
    return out


def _class_update(new: Object, old: Object) -> list[FieldError]:
    out: list[FieldError] = []
    fixed = (
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    )
    for key, text in fixed:
        if (new.get(key) or None) != (old.get(key) or None):
            out.append(forbidden(key, text))
    return out + immutable("volumeBindingMode", new.get("volumeBindingMode"), old.get("volumeBindingMode"))


def _class_name(found: Object, now: float) -> str:
    annotations = found["metadata"].get("annotations") or {}
    marked = "true" in (annotations.get(DEFAULT_CLASS), annotations.get(OLD_DEFAULT_CLASS))
    return f"{found['metadata'].get('name', '')}{' (default)' if marked else ''}"


STORAGECLASS = Behavior(
    GROUP,
    "StorageClass",
    default=_default_class,
    validate=_validate_class,
    validate_update=_class_update,
    columns=(
        Column("Name", _class_name, format="name"),
        field("Provisioner", "provisioner"),
        field("ReclaimPolicy", "reclaimPolicy", empty="Delete"),
        field("VolumeBindingMode", "volumeBindingMode", empty="Immediate"),
        field("AllowVolumeExpansion", "allowVolumeExpansion", empty=False),
        AGE,
    ),
)


def _default_driver(driver: Object) -> None:
    spec = driver.setdefault("spec", {})
    for key, value in (
        ("attachRequired", True),
        ("podInfoOnMount", False),
        ("storageCapacity", False),
        ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("requiresRepublish", False),
        ("seLinuxMount", False),
    ):
        spec.setdefault(key, value)
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def _validate_driver(driver: Object) -> list[FieldError]:
    spec = driver["spec"]
    out = driver_name("metadata.name", driver["metadata"].get("name") or "")
    out += [
        required(f"spec.{key}") for key in ("attachRequired", "podInfoOnMount", "storageCapacity") if key not in spec
    ]
    policy = spec.get("fsGroupPolicy")
    if policy is not None and policy not in _GROUP_POLICIES:
        out.append(not_supported("spec.fsGroupPolicy", policy, _GROUP_POLICIES))
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in _LIFECYCLES:
            out.append(not_supported("spec.volumeLifecycleModes", mode, _LIFECYCLES))
    seen: set[str] = set()
    for i, request in enumerate(spec.get("tokenRequests") or ()):
        audience = request.get("audience") or ""
        if audience in seen:
            out.append(duplicate(f"spec.tokenRequests[{i}].audience", audience))
        seen.add(audience)
        seconds = request.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            text = "may not specify a duration less than 10 minutes"
            out.append(invalid(f"spec.tokenRequests[{i}].expirationSeconds", seconds, text))
    return out


def _driver_update(new: Object, old: Object) -> list[FieldError]:
    fixed = ("attachRequired", "volumeLifecycleModes")
    return [error for key in fixed for error in immutable(f"spec.{key}", new["spec"].get(key), old["spec"].get(key))]


def _audiences(driver: Object, now: float) -> str:
    found = dig(driver, "spec", "tokenRequests")
    return UNSET if found is None else ",".join(each.get("audience", "") for each in found)


CSIDRIVER = Behavior(
    GROUP,
    "CSIDriver",
    default=_default_driver,
    validate=_validate_driver,
    validate_update=_driver_update,
    prepare_create=strategy.begin(None),
    columns=(
        NAME,
        flag("AttachRequired", "spec", "attachRequired"),
        flag("PodInfoOnMount", "spec", "podInfoOnMount"),
        flag("StorageCapacity", "spec", "storageCapacity"),
        Column("TokenRequests", _audiences),
        flag("RequiresRepublish", "spec", "requiresRepublish"),
        Column("Modes", lambda driver, now: ",".join(dig(driver, "spec", "volumeLifecycleModes") or ()) or NONE),
        AGE,
    ),
)


def _validate_node(node: Object) -> list[FieldError]:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, driver in enumerate(dig(node, "spec", "drivers") or ()):
        here, name = f"spec.drivers[{i}]", driver.get("name") or ""
        out += driver_name(f"{here}.name", name)
        if name in seen:
            out.append(duplicate(f"{here}.name", name))
        seen.add(name)
        if not driver.get("nodeID"):
            out.append(required(f"{here}.nodeID", driver.get("nodeID") or ""))
        count = dig(driver, "allocatable", "count")
        if count is not None and count < 0:
            out.append(invalid(f"{here}.allocatable.count", count, "must be greater than or equal to 0"))
    return out


def _default_node(node: Object) -> None:
    node.setdefault("spec", {}).setdefault("drivers", [])


CSINODE = Behavior(
    GROUP,
    "CSINode",
    default=_default_node,
    validate=_validate_node,
    columns=(NAME, length("Drivers", "spec", "drivers"), AGE),
)


def _validate_attachment(attachment: Object) -> list[FieldError]:
    spec = attachment.get("spec") or {}
    out = driver_name("spec.attacher", spec.get("attacher") or "")
    if not spec.get("nodeName"):
        out.append(required("spec.nodeName"))
    source = spec.get("source") or {}
    sources = [key for key in ("inlineVolumeSpec", "persistentVolumeName") if source.get(key)]
    if not sources:
        out.append(required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
    elif len(sources) > 1:
        out.append(forbidden("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
    return out


def _attachment_update(new: Object, old: Object) -> list[FieldError]:
    return immutable("spec", new.get("spec"), old.get("spec"))


VOLUMEATTACHMENT = Behavior(
    GROUP,
    "VolumeAttachment",
    validate=_validate_attachment,
    validate_update=_attachment_update,
    columns=(
        NAME,
        Column("Attacher", field("Attacher", "spec", "attacher").cell, format="name"),
        field("PV", "spec", "source", "persistentVolumeName"),
        field("Node", "spec", "nodeName"),
        flag("Attached", "status", "attached"),
        AGE,
    ),
)


def _validate_attributes(found: Object) -> list[FieldError]:
    driver, parameters = found.get("driverName") or "", found.get("parameters") or {}
    out = [invalid("driverName", driver, text) for text in names.qualified(driver.lower())] if driver else []
    out += [] if driver else [required("driverName", driver)]
    if any(not key for key in parameters):
        out.append(invalid("parameters", "", "field can not be empty."))
    if not parameters:
        out.append(required("parameters", "must contain at least one key/value pair"))
    return out


def _attributes_update(new: Object, old: Object) -> list[FieldError]:
    return [
        forbidden(key, f"updates to {key} are forbidden.")
        for key in ("driverName", "parameters")
        if (new.get(key) or None) != (old.get(key) or None)
    ]


def _validate_capacity(found: Object) -> list[FieldError]:
    name = found.get("storageClassName") or ""
    return [invalid("storageClassName", name, text) for text in names.dns_subdomain(name)]


VOLUMEATTRIBUTESCLASS = Behavior(
    GROUP,
    "VolumeAttributesClass",
    validate=_validate_attributes,
    validate_update=_attributes_update,
    columns=(NAME, field("DriverName", "driverName"), AGE),
)
CSISTORAGECAPACITY = Behavior(
    GROUP,
    "CSIStorageCapacity",
    validate=_validate_capacity,
    columns=(NAME, field("StorageClassName", "storageClassName"), field("Capacity", "capacity", empty=UNSET)),
)
