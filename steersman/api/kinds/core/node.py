"""Node: taints, pod networks, and what `kubectl get nodes` shows.

Source: ValidateNode, ValidateNodeUpdate, pkg/registry/core/node/strategy.go, printNode.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from steersman.api import names, pods
from steersman.api.errors import FieldError
from steersman.api.fields import flag_at
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.podspec import defaults, resources
from steersman.api.kinds.podspec.scheduling import EFFECTS
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, UNKNOWN, dig, field, wide
from steersman.api.validation import (
    duplicate,
    forbidden,
    internal_error,
    invalid,
    not_supported,
    quote,
    required,
    struct,
)

_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)
_ROLE = "node-role.kubernetes.io/"
_NO_CIDR = 'node updates may not change podCIDR except from "" to valid'


_feature = re.compile("[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*").fullmatch
_FEATURE_TEXT = (
    "must start with an UpperCamelCase segment, with subsequent segments separated by '/' "
    "(e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
)


def default(node: Object) -> None:
    """Allocatable is the capacity; podCIDR is the first of podCIDRs."""
    spec, status = node.setdefault("spec", {}), node.setdefault("status", {})
    for which in ("capacity", "allocatable"):
        defaults.resource_list(status.get(which))
    if "capacity" in status:
        status.setdefault("allocatable", dict(status["capacity"]))
    if spec.get("podCIDR") and (spec.get("podCIDRs") or [""])[0] != spec["podCIDR"]:
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]
    status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {}).setdefault("Port", 0)
    info = status.setdefault("nodeInfo", {})
    for key in _INFO:
        info.setdefault(key, "")


def prepare_create(node: Object) -> None:
    """A node registers itself with its status; the dynamic configuration of old is gone."""
    node["metadata"].pop("generation", None)
    node.get("spec", {}).pop("configSource", None)
    node.get("status", {}).pop("config", None)


def validate(node: Object) -> list[FieldError]:
    """Taints, amounts, networks."""
    spec = node.get("spec") or {}
    out = taints("metadata.taints", spec.get("taints") or ())
    out += _amounts(node)
    found = spec.get("podCIDRs") or []
    for i, value in enumerate(found):
        out += names.cidr(f"spec.podCIDRs[{i}]", value)
    wrong = next((i for i, value in enumerate(found) if names.cidr("", value, strict=False)), None)
    if len(found) > 1 and wrong is not None:
        text = "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR"
        why = f"{text}[{wrong}]: <nil> (invalid CIDR address: {found[wrong]})"
        out.append(internal_error("spec.podCIDRs", why))
    if len(found) > 1 and (wrong is not None or len(found) > 2 or (":" in found[0]) == (":" in found[1])):
        out.append(invalid("spec.podCIDRs", found, "may specify no more than one CIDR for each IP family"))
    return out


def taints(path: str, found: Any) -> list[FieldError]:
    """A list of taints, unique by key and effect."""
    out: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(found):
        here = f"{path}[{i}]"
        key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        out += [invalid(f"{here}.key", key, text) for text in names.qualified(key)]
        if texts := names.label_value(value):
            out.append(invalid(f"{here}.value", value, ";".join(texts)))
        if not effect:
            out.append(required(f"{here}.effect"))
        elif effect not in EFFECTS:
            out.append(not_supported(f"{here}.effect", effect, EFFECTS))
        if (key, effect) in seen:
            error = duplicate(here, struct(taint, Key="", Value="", Effect="", TimeAdded=None))
            text = f"{error.detail}: taints must be unique by key and effect pair"
            out.append(FieldError(error.kind, here, text, taint))
        seen.add((key, effect))
    return out


def _amounts(node: Object) -> list[FieldError]:
    status = node.get("status") or {}
    return [
        error
        for which in ("capacity", "allocatable")
        for name, value in (status.get(which) or {}).items()
        for error in resources.amount(f"status.{which}.{name}", name, value)
    ]


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """Networks and provider are set once; addresses are unique."""
    out = _amounts(new) + _features((new.get("status") or {}).get("declaredFeatures") or ())
    fresh, before = new.get("spec") or {}, old.get("spec") or {}
    seen: list[Any] = []
    for i, address in enumerate((new.get("status") or {}).get("addresses") or ()):
        if address in seen:
            out.append(duplicate(f"status.addresses[{i}]", struct(address, Type="", Address="")))
        seen.append(address)
    former, now = before.get("podCIDRs") or [], fresh.get("podCIDRs") or []
    if former and len(former) != len(now):
        out.append(forbidden("spec.podCIDRs", _NO_CIDR))
    elif former:
        pairs = zip(now, former, strict=True)
        out += [forbidden("spec.podCIDRs", _NO_CIDR) for value, known in pairs if value != known]
    provider = before.get("providerID")
    if provider and fresh.get("providerID") != provider:
        text = 'node updates may not change providerID except from "" to valid'
        out.append(forbidden("spec.providerID", text))
    out += taints("metadata.taints", fresh.get("taints") or ())  # a second time, as in the original
    if (fresh.get("externalID") or "") != (before.get("externalID") or ""):
        out.append(forbidden("spec.externalID", "may not be updated"))
    return out


def _features(found: Sequence[str]) -> list[FieldError]:
    """Names of features that a node declares (KEP-5328), in order."""
    out: list[FieldError] = []
    for i, name in enumerate(found):
        here = f"status.declaredFeatures[{i}]"
        if len(name) > 253:
            text = f"invalid feature name {quote(name)}: must be no more than 253 characters"
            out.append(invalid(here, name, text))
        elif not _feature(name):
            out.append(invalid(here, name, f"invalid feature name {quote(name)}: {_FEATURE_TEXT}"))
        after = found[i + 1] if i + 1 < len(found) else None
        here = f"status.declaredFeatures[{i + 1}]"
        if after == name:
            out.append(duplicate(here, after))
        elif after is not None and name > after:
            out.append(invalid(here, after, "list must be sorted alphabetically"))
    return out


def _prepare_update(new: Object, old: Object) -> None:
    strategy.keep("status")(new, old)
    if not (old.get("spec") or {}).get("configSource"):
        new.get("spec", {}).pop("configSource", None)


def _prepare_status(new: Object, old: Object) -> None:
    """The dynamic configuration of old does not come back."""
    strategy.keep("spec")(new, old)
    if not (old.get("status") or {}).get("config"):
        new.get("status", {}).pop("config", None)


def warnings(node: Object) -> list[str]:
    """Fields that do nothing any more."""
    spec = node.get("spec") or {}
    out = ["spec.configSource: the feature is removed"] if spec.get("configSource") else []
    if spec.get("externalID"):
        out.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    return out


def _status(node: Object, now: float) -> str:
    ready = pods.condition(node, "Ready")
    shown = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{shown},SchedulingDisabled" if dig(node, "spec", "unschedulable") else shown


def _roles(node: Object, now: float) -> str:
    roles: set[str] = set()
    for key, value in (node["metadata"].get("labels") or {}).items():
        if key.startswith(_ROLE):
            roles.add(key.removeprefix(_ROLE))
        elif key == "kubernetes.io/role":
            roles.add(value)
    return ",".join(sorted(roles - {""})) or NONE


def _address(kind: str) -> Any:
    def cell(node: Object, now: float) -> str:
        found = dig(node, "status", "addresses") or ()
        return next((each.get("address", "") for each in found if each.get("type") == kind), NONE)

    return cell


def _kernel(node: Object, now: float) -> str:
    kernel = dig(node, "status", "nodeInfo", "kernelVersion") or UNKNOWN
    architecture = dig(node, "status", "nodeInfo", "architecture")
    return f"{kernel} ({architecture})" if architecture else kernel


NODE = Behavior(
    "",
    "Node",
    order="nvmu",
    default=default,
    validate=validate,
    validate_update=validate_update,
    prepare_create=prepare_create,
    prepare_update=_prepare_update,
    updates={"status": Update(_prepare_status, validate_update)},
    columns=(
        NAME,
        Column("Status", _status),
        Column("Roles", _roles),
        AGE,
        field("Version", "status", "nodeInfo", "kubeletVersion"),
        wide("Internal-IP", _address("InternalIP")),
        wide("External-IP", _address("ExternalIP")),
        field("OS-Image", "status", "nodeInfo", "osImage", empty=UNKNOWN, priority=1),
        wide("Kernel-Version", _kernel),
        field("Container-Runtime", "status", "nodeInfo", "containerRuntimeVersion", empty=UNKNOWN, priority=1),
    ),
    fields={"spec.unschedulable": flag_at("spec", "unschedulable")},
    warnings=warnings,
)
