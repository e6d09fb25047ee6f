"""Rules of a pod's status: what the kubelet may report, and what does not go back.

Given (new, old). Source: ValidatePodStatusUpdate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kinds.podspec import update
from steersman.api.resource import Object
from steersman.api.validation import (
    Struct,
    duplicate,
    forbidden,
    immutable,
    internal_error,
    invalid,
    not_supported,
    required,
    too_long,
)

Complaints = list[FieldError]

_KINDS = (("containerStatuses", "containers"), ("initContainerStatuses", "initContainers"))
_EPHEMERAL = "ephemeralContainerStatuses"
_HEALTH = ("Healthy", "Unhealthy", "Unknown")
_LONGEST = 1024
_GENERATION = "must be a non-negative integer"


def status(new: Object, old: Object) -> Complaints:
    """An update of the status."""
    out = update.kept_annotations(new, old)
    fresh, before, spec = new.get("status") or {}, old.get("status") or {}, new["spec"]
    out += _conditions(fresh.get("conditions") or ())
    nominated = fresh.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        out += [invalid("status.nominatedNodeName", nominated, text) for text in names.dns_subdomain(nominated)]
        if old["spec"].get("nodeName"):
            text = "may not be set on pods that are already bound to a node"
            out.append(forbidden("status.nominatedNodeName", text))
    if (fresh.get("observedGeneration") or 0) < 0:
        out.append(invalid("status.observedGeneration", fresh["observedGeneration"], _GENERATION))
    out += immutable("status.qosClass", fresh.get("qosClass"), before.get("qosClass"))
    out += _states(fresh, before, old["spec"])
    out += _claims(fresh.get("resourceClaimStatuses") or (), spec)
    out += _extended(fresh.get("extendedResourceClaimStatus"), spec)
    out += _addresses(fresh, before)
    for field in (*(field for field, _ in _KINDS), _EPHEMERAL):
        out += _users(f"status.{field}", fresh.get(field) or (), spec)
    for field, group in _KINDS:
        out += _health(f"status.{field}", fresh.get(field) or (), spec.get(group) or ())
    out += [
        forbidden(f"status.{_EPHEMERAL}[{i}].allocatedResourcesStatus", "must not be specified in container status")
        for i, each in enumerate(fresh.get(_EPHEMERAL) or ())
        if each.get("allocatedResourcesStatus")
    ]
    return out


def _conditions(conditions: Sequence[Mapping[str, Any]]) -> Complaints:
    out: Complaints = []
    for i, condition in enumerate(conditions):
        kind = condition.get("type") or ""
        if (condition.get("observedGeneration") or 0) < 0:
            here = f"status.conditions[{i}].observedGeneration"
            out.append(invalid(here, condition["observedGeneration"], _GENERATION))
        if kind not in ("PodScheduled", "Ready", "Initialized"):
            out += [invalid(f"status.conditions[{i}].Type", kind, text) for text in names.qualified(kind)]
    return out


def _states(fresh: Object, before: Object, spec: Object) -> Complaints:
    """A container that ended for good does not come back."""
    out: Complaints = []
    for field, group in (*_KINDS, (_EPHEMERAL, "")):
        if group and _all_may_restart(spec):
            continue
        by_name = {each.get("name"): each for each in reversed(spec.get(group) or ())}
        for i, former in enumerate(before.get(field) or ()):
            ended = (former.get("state") or {}).get("terminated")
            if ended is None:
                continue
            same = [each for each in fresh.get(field) or () if each.get("name") == former.get("name")]
            back = [each for each in same if (each.get("state") or {}).get("terminated") is None]
            container = by_name.get(former.get("name"))
            allowed = container is not None and _may_restart(container, spec, ended.get("exitCode") or 0)
            if group and allowed:
                continue
            text = "may not be transitioned to non-terminated state"
            out += [forbidden(f"status.{field}[{i}].state", text)] * (min(len(back), 1) if group else len(back))
    return out


def _all_may_restart(spec: Object) -> bool:
    """Whether some container restarts all others (KEP-5532)."""
    return any(
        rule.get("action") == "RestartAllContainers"
        for field in ("initContainers", "containers")
        for container in spec.get(field) or ()
        for rule in container.get("restartPolicyRules") or ()
    )


def _may_restart(container: Mapping[str, Any], spec: Object, code: int) -> bool:
    own = container.get("restartPolicy")
    if own is not None:
        for rule in container.get("restartPolicyRules") or ():
            codes = rule.get("exitCodes") or {}
            if codes and (code in (codes.get("values") or ())) is (codes.get("operator") == "In"):
                return True
    policy = own if own in ("Always", "OnFailure", "Never") else spec.get("restartPolicy")
    return code != 0 if policy == "OnFailure" else policy != "Never"


def _claims(found: Sequence[Mapping[str, Any]], spec: Object) -> Complaints:
    out: Complaints = []
    known = {claim.get("name") for claim in spec.get("resourceClaims") or ()}
    seen: set[str] = set()
    for i, each in enumerate(found):
        here, name = f"status.resourceClaimStatuses[{i}]", each.get("name") or ""
        if name not in known:
            text = "must match the name of an entry in `spec.resourceClaims`"
            out.append(invalid(f"{here}.name", name, text))
        if name in seen:
            out.append(duplicate(f"{here}.name", name))
        seen.add(name)
        claim = each.get("resourceClaimName")
        if claim is not None:
            out += [invalid(f"{here}.resourceClaimName", claim, text) for text in names.dns_subdomain(claim)]
    return out


def _extended(found: Mapping[str, Any] | None, spec: Object) -> Complaints:
    """Devices that stand for extended resources (KEP-5004)."""
    if found is None:
        return []
    path = "status.extendedResourceClaimStatus"
    everyone = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    by_name = {each.get("name"): each for each in everyone}
    mappings = found.get("requestMappings") or ()
    text = "at least one request mapping is required"
    out = [] if mappings else [required(f"{path}.requestMappings", text)]
    seen: set[tuple[str, ...]] = set()
    places = "spec.initContainers.{0} or spec.containers.{0}"
    for i, each in enumerate(mappings):
        here = f"{path}.requestMappings[{i}]"
        key = tuple(each.get(name) or "" for name in ("containerName", "resourceName", "requestName"))
        container = by_name.get(key[0])
        if container is None:
            text = f"must match the name of an entry in {places.format('name')}"
            out.append(invalid(f"{here}.containerName", key[0], text))
        elif key[1] not in ((container.get("resources") or {}).get("requests") or {}):
            text = f"must match the extended resource name of an entry in {places.format('resources.requests')}"
            out.append(invalid(f"{here}.resourceName", key[1], text))
        out += [invalid(f"{path}.requestName", key[2], text) for text in names.dns_label(key[2])]
        if key in seen:
            fields = ("containerName", "resourceName", "requestName")
            out += [duplicate(f"{here}.{name}", value) for name, value in zip(fields, key, strict=True)]
        seen.add(key)
    claim = found.get("resourceClaimName") or ""
    if not claim:
        return [*out, required(f"{path}.resourceClaimName")]
    return out + [invalid(f"{path}.resourceClaimName", claim, text) for text in names.dns_subdomain(claim)]


def _addresses(fresh: Object, before: Object) -> Complaints:
    out: Complaints = []
    for field in ("podIPs", "hostIPs"):
        found = [each.get("ip") or "" for each in fresh.get(field) or ()]
        known = {each.get("ip") for each in before.get(field) or ()}
        here = f"status.{field}"
        if field == "hostIPs" and found and (fresh.get("hostIP") or "") != found[0]:
            out.append(invalid(f"{here}[0].ip", found[0], "must be equal to `hostIP`"))
        for i, address in enumerate(found):
            if address not in known:
                out += names.legacy_ip(f"{here}[{i}]", address)
        if len(found) < 2:
            continue
        wrong = next((i for i, address in enumerate(found) if names.parse_ip(address) is None), None)
        if wrong is not None:
            text = f"failed to check for dual stack with error:invalid IP[{wrong}]: {found[wrong]}"
            out.append(internal_error(here, text))
        if wrong is not None or len(found) > 2 or (":" in found[0]) == (":" in found[1]):
            text = "may specify no more than one IP for each IP family"
            out.append(invalid(here, [Struct({"IP": each}) for each in found], text))
    return out


def _users(path: str, found: Sequence[Mapping[str, Any]], spec: Object) -> Complaints:
    out: Complaints = []
    windows = (spec.get("os") or {}).get("name") == "windows"
    for i, each in enumerate(found):
        user = (each.get("user") or {}).get("linux")
        here = f"{path}[{i}].user.linux"
        if user is None:
            continue
        if windows:
            out.append(forbidden(here, "cannot be set for a windows pod"))
            continue
        for field in ("uid", "gid"):
            number = user.get(field) or 0
            out += [invalid(f"{here}.{field}", number, text) for text in names.user_id(number)]
        for j, group in enumerate(user.get("supplementalGroups") or ()):
            out += [invalid(f"{here}.supplementalGroups[{j}]", group, text) for text in names.user_id(group)]
    return out


def _health(path: str, found: Sequence[Mapping[str, Any]], containers: Sequence[Mapping[str, Any]]) -> Complaints:
    """How the devices of containers are (KEP-4680)."""
    out: Complaints = []
    for i, each in enumerate(found):
        container = next((one for one in containers if one.get("name") == each.get("name")), None)
        for j, resource in enumerate(each.get("allocatedResourcesStatus") or ()):
            here, name = f"{path}[{i}].allocatedResourcesStatus[{j}]", resource.get("name") or ""
            if container is not None:
                out += _known_resource(here, name, container.get("resources") or {})
            seen: set[str] = set()
            for k, one in enumerate(resource.get("resources") or ()):
                out += _device(f"{here}.resources[{k}]", one, seen)
    return out


def _known_resource(path: str, name: str, resources: Mapping[str, Any]) -> Complaints:
    if name.startswith("claim:"):
        claims = resources.get("claims") or ()
        pairs = ((each.get("name") or "", each.get("request")) for each in claims)
        known = {f"claim:{claim}/{request}" if request else f"claim:{claim}" for claim, request in pairs}
        form = "in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
        text = f"must match one of the container's resource claims {form}"
    else:
        known, text = set(resources.get("requests") or ()), "must match one of the container's resource requests"
    return [] if name in known else [invalid(f"{path}.name", name, text)]


def _device(path: str, found: Mapping[str, Any], seen: set[str]) -> Complaints:
    out: Complaints = []
    health, message, which = found.get("health") or "", found.get("message"), found.get("resourceID") or ""
    if health not in _HEALTH:
        out.append(not_supported(f"{path}.health", health, sorted(_HEALTH)))
    if message is not None and not message:
        out.append(required(f"{path}.message", "must be non-empty if specified"))
    elif message is not None and len(message.encode()) > _LONGEST:
        out.append(too_long(f"{path}.message", _LONGEST))
    if which in seen:
        out.append(duplicate(f"{path}.resourceID", which))
    seen.add(which)
    return out
