"""StorageClass, CSIDriver, CSINode, VolumeAttachment and their neighbours.

Source: pkg/apis/storage/v1/defaults.go, pkg/apis/storage/validation, printStorageClass and its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import labels, names, quantity
from steersman.api.errors import FieldError
from steersman.api.godump import dump
from steersman.api.kind import Behavior, Column
from steersman.api.kinds import strategy
from steersman.api.kinds.core import persistentvolume
from steersman.api.kinds.podspec.volumes import driver_name
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, UNSET, dig, field, flag, length
from steersman.api.validation import (
    IMMUTABLE,
    NOT_NEGATIVE,
    duplicate,
    forbidden,
    immutable,
    invalid,
    not_negative,
    not_supported,
    required,
    struct,
    too_long,
)

GROUP = "storage.k8s.io"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
OLD_DEFAULT_CLASS = "storageclass.beta.kubernetes.io/is-default-class"

_BINDINGS = ("Immediate", "WaitForFirstConsumer")
_RECLAIM = ("Delete", "Retain")
_LIFECYCLES = ("Persistent", "Ephemeral")
_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_LONGEST_NODE_ID = 256
_MOST_PARAMETERS, _LONGEST_PARAMETERS = 512, 256 * 1024
_NO_TOKENS = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
_IN_SECRETS = (
    "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible "
    "logging of tokens in volume attributes"
)


def _default_class(found: Object) -> None:
    found.setdefault("reclaimPolicy", "Delete")
    found.setdefault("volumeBindingMode", "Immediate")


def _validate_class(found: Object) -> list[FieldError]:
    provisioner = found.get("provisioner") or ""
    out = [] if provisioner else [required("provisioner", provisioner)]
    if provisioner:
        lowered = provisioner.lower()
        out += [invalid("provisioner", lowered, text) for text in names.qualified(lowered)]
    out += _parameters(found.get("parameters") or {})
    policy, mode = found.get("reclaimPolicy"), found.get("volumeBindingMode")
    if policy and policy not in _RECLAIM:
        out.append(not_supported("reclaimPolicy", policy, _RECLAIM))
    if mode is None:
        out.append(required("volumeBindingMode"))
    elif mode not in _BINDINGS:
        out.append(not_supported("volumeBindingMode", mode, _BINDINGS))
    return out + _topologies(found.get("allowedTopologies") or ())


def _parameters(found: Mapping[str, str]) -> list[FieldError]:
    if len(found) > _MOST_PARAMETERS:
        return [too_long("parameters", _MOST_PARAMETERS)]
    out = [invalid("parameters", key, "field can not be empty.") for key in found if not key]
    size = sum(len(key.encode()) + len(value.encode()) for key, value in found.items())
    return [*out, too_long("parameters", _LONGEST_PARAMETERS)] if size > _LONGEST_PARAMETERS else out


def _topologies(terms: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """No two terms may say the same; an empty one says what the original's array begins with."""
    out: list[FieldError] = []
    seen: list[dict[str, frozenset[str]]] = [{} for _ in terms]
    for i, term in enumerate(terms):
        here = f"allowedTopologies[{i}].matchLabelExpressions"
        said: dict[str, frozenset[str]] = {}
        for j, each in enumerate(term.get("matchLabelExpressions") or ()):
            out += _topology(f"{here}[{j}]", each)
            key, values = each.get("key") or "", each.get("values") or ()
            if key in said:
                out.append(duplicate(f"{here}[{j}].key", key))
            said[key] = frozenset(values)
        out += [duplicate(here, "") for other in seen if other == said]
        seen.append(said)
    return out


def _topology(path: str, found: Mapping[str, Any]) -> list[FieldError]:
    key, values = found.get("key") or "", found.get("values") or []
    out = [] if values else [required(f"{path}.values")]
    out += [duplicate(f"{path}.values[{i}]", value) for i, value in enumerate(values) if value in values[:i]]
    return out + [invalid(f"{path}.key", key, text) for text in names.qualified(key)]


def _class_update(new: Object, old: Object) -> list[FieldError]:
    out = immutable("parameters", new.get("parameters") or None, old.get("parameters") or None)
    out += immutable("provisioner", new.get("provisioner") or "", old.get("provisioner"))
    fixed = ("reclaimPolicy", "volumeBindingMode")
    return out + [error for key in fixed for error in immutable(key, new.get(key), old.get(key))]


def _class_name(found: Object, now: float) -> str:
    annotations = found["metadata"].get("annotations") or {}
    marked = "true" in (annotations.get(DEFAULT_CLASS), annotations.get(OLD_DEFAULT_CLASS))
    return f"{found['metadata'].get('name', '')}{' (default)' if marked else ''}"


STORAGECLASS = Behavior(
    GROUP,
    "StorageClass",
    order="nvmu",
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
    for request in spec.get("tokenRequests") or ():
        request.setdefault("audience", "")
    spec.pop("preventPodSchedulingIfMissing", None)  # behind a gate that is off


def _validate_driver(driver: Object) -> list[FieldError]:
    spec = driver["spec"]
    out: list[FieldError] = []
    policy = spec.get("fsGroupPolicy")
    if policy is not None and policy not in _GROUP_POLICIES:
        out.append(not_supported("spec.fsGroupPolicy", policy, _GROUP_POLICIES))
    out += _token_requests(spec.get("tokenRequests") or ())
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in _LIFECYCLES:
            out.append(not_supported("spec.volumeLifecycleModes", mode, _LIFECYCLES))
    period, secrets = spec.get("nodeAllocatableUpdatePeriodSeconds"), spec.get("serviceAccountTokenInSecrets")
    if period is not None and period < 10:
        text = "must be greater than or equal to 10 seconds"
        out.append(invalid("spec.nodeAllocatableUpdatePeriodSeconds", period, text))
    if secrets is not None and not spec.get("tokenRequests"):
        out.append(invalid("spec.serviceAccountTokenInSecrets", secrets, _NO_TOKENS))
    return out


def _token_requests(requests: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, request in enumerate(requests):
        here, audience = f"spec.tokenRequests[{i}]", request.get("audience") or ""
        if audience in seen:
            out.append(duplicate(f"{here}.audience", audience))
            continue
        seen.add(audience)
        seconds = request.get("expirationSeconds", 3600)
        if seconds < 600:
            text = "may not specify a duration less than 10 minutes"
            out.append(invalid(f"{here}.expirationSeconds", seconds, text))
        if seconds > 2**32:
            text = "may not specify a duration larger than 2^32 seconds"
            out.append(invalid(f"{here}.expirationSeconds", seconds, text))
    return out


def _driver_warnings(driver: Object) -> list[str]:
    spec = driver["spec"]
    return [_IN_SECRETS] if spec.get("tokenRequests") and "serviceAccountTokenInSecrets" not in spec else []


def _driver_update(new: Object, old: Object) -> list[FieldError]:
    fresh, before = new["spec"], old["spec"]
    out = immutable("spec.attachedRequired", fresh.get("attachRequired"), before.get("attachRequired"))
    key = "volumeLifecycleModes"
    return out + immutable(f"spec.{key}", fresh.get(key), before.get(key))


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
    warnings=_driver_warnings,
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
        node_id = driver.get("nodeID") or ""
        if not node_id:
            out.append(required(f"{here}.nodeID"))
        if len(node_id.encode()) > _LONGEST_NODE_ID:
            out.append(invalid(f"{here}.nodeID", node_id, f"must be {_LONGEST_NODE_ID} characters or less"))
        out += not_negative(f"{here}.allocatable.count", dig(driver, "allocatable", "count"))
        if name in seen:
            out.append(duplicate(f"{here}.name", name))
        seen.add(name)
        out += _topology_keys(here, driver.get("topologyKeys") or ())
    return out


def _topology_keys(path: str, keys: Sequence[str]) -> list[FieldError]:
    out: list[FieldError] = []
    for i, key in enumerate(keys):
        if not key:
            out.append(required(path))
        if key in keys[:i]:
            out.append(duplicate(path, key))
        out += [invalid(path, key, text) for text in names.qualified(key)]
    return out


def _default_node(node: Object) -> None:
    spec = node.setdefault("spec", {})
    spec["drivers"] = spec.get("drivers") or None
    for driver in spec["drivers"] or ():
        driver["topologyKeys"] = driver.get("topologyKeys") or None


def _node_update(new: Object, old: Object) -> list[FieldError]:
    """A driver may be added, taken away and count anew; what else it says stays."""
    out: list[FieldError] = []
    before = {each.get("name"): each for each in dig(old, "spec", "drivers") or ()}
    for driver in dig(new, "spec", "drivers") or ():
        if was := before.get(driver.get("name")):
            fresh, had = ({**each, "allocatable": None} for each in (driver, was))
            out += immutable("spec.drivers", _shown_driver(fresh), _shown_driver(had))
    return out


def _shown_driver(driver: Object) -> Object | None:
    return struct(driver, Name="", NodeID="", TopologyKeys=None, Allocatable=None)


CSINODE = Behavior(
    GROUP,
    "CSINode",
    order="nvu",
    default=_default_node,
    validate=_validate_node,
    validate_update=_node_update,
    columns=(NAME, length("Drivers", "spec", "drivers"), AGE),
)


def _validate_attachment(attachment: Object) -> list[FieldError]:
    spec = attachment.get("spec") or {}
    out = driver_name("spec.attacher", spec.get("attacher") or "")
    source, here = spec.get("source") or {}, "spec.source"
    name, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
    text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if inline is None and name is None:
        out.append(required(here, text))
    elif inline is not None and name is not None:
        out.append(forbidden(here, text))
    elif inline is not None:
        out += persistentvolume.validate_inline(f"{here}.inlineVolumeSpec", inline)
    elif not name:
        out.append(required(f"{here}.persistentVolumeName", "must specify non empty persistentVolumeName"))
    node = spec.get("nodeName") or ""
    out += [invalid("spec.nodeName", node, text) for text in names.dns_subdomain(node)]
    if name is not None:
        out += [invalid(f"{here}.persistentVolumeName", name, text) for text in names.dns_subdomain(name)]
    return out


def _default_attachment(attachment: Object) -> None:
    inline = dig(attachment, "spec", "source", "inlineVolumeSpec")
    if inline is not None:
        persistentvolume.default_spec(inline)


def _attachment_update(new: Object, old: Object) -> list[FieldError]:
    fresh, before = (dump(each.get("spec"), "storage.k8s.io/v1:VolumeAttachmentSpec") for each in (new, old))
    return immutable("spec", fresh, before)


VOLUMEATTACHMENT = Behavior(
    GROUP,
    "VolumeAttachment",
    order="nvu",
    default=_default_attachment,
    validate=_validate_attachment,
    validate_update=_attachment_update,
    prepare_create=strategy.begin({"attached": False}),
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
    lowered = driver.lower()
    out = [invalid("driverName", lowered, text) for text in names.qualified(lowered)] if driver else []
    out += [] if driver else [required("driverName", driver)]
    out += _parameters(parameters)
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
    name, amount = found.get("storageClassName") or "", found.get("capacity")
    out = labels.validate(found["nodeTopology"], "nodeTopology") if "nodeTopology" in found else []
    out += [invalid("storageClassName", name, text) for text in names.dns_subdomain(name)]
    if amount is not None and quantity.parse(amount).nanos < 0:
        out.append(invalid("capacity", amount, NOT_NEGATIVE))
    return out


def _capacity_update(new: Object, old: Object) -> list[FieldError]:
    fresh, before = (labels.shown(each.get("nodeTopology")) for each in (new, old))
    out = [] if fresh == before else [invalid("nodeTopology", fresh, IMMUTABLE)]
    return out + immutable("storageClassName", new.get("storageClassName") or "", old.get("storageClassName"))


VOLUMEATTRIBUTESCLASS = Behavior(
    GROUP,
    "VolumeAttributesClass",
    validate=_validate_attributes,
    validate_update=_attributes_update,
    order="munv",
    columns=(NAME, field("DriverName", "driverName"), AGE),
)
CSISTORAGECAPACITY = Behavior(
    GROUP,
    "CSIStorageCapacity",
    order="nvmu",
    validate=_validate_capacity,
    validate_update=_capacity_update,
)
