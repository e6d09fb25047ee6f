"""Who may have devices as an administrator, give devices to claims, and report on devices that were given.

Owns the checks that kube-apiserver makes beside its rules for ResourceClaims: a label of the namespace (KEP-5018), and
rights to subresources that exist for this alone (from 1.36 on). Source: kubernetes' pkg/registry/resource/utils.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from steersman.api import errors, schema
from steersman.api.errors import FieldError
from steersman.api.resource import Object
from steersman.api.table import dig
from steersman.api.validation import forbidden
from steersman.apiserver.call import Call

GROUP = "resource.k8s.io"
_LABEL = "resource.kubernetes.io/admin-access"
_GRANULAR = (1, 36)  # the release from which on rights are asked for in detail
_ACCOUNT, _NODE = "system:serviceaccount:", "authentication.kubernetes.io/node-name"


def install(extras: dict[str, Any]) -> None:
    """Tie it to the writes of claims and templates."""
    for when, check, kinds in (
        ("before_create", created, ("ResourceClaim", "ResourceClaimTemplate")),
        ("before_update", updated, ("ResourceClaim",)),
    ):
        for kind in kinds:
            extras.setdefault(when, {}).setdefault((GROUP, kind), []).append(check)


async def created(call: Call, obj: Object) -> None:
    """Refuse what asks for administrators' access where that is not for users to have. Raises ApiError."""
    path = ("spec", "spec") if call.kind.kind == "ResourceClaimTemplate" else ("spec",)
    for at, request in enumerate(dig(obj, *path, "devices", "requests") or ()):
        if (request.get("exactly") or {}).get("adminAccess"):
            _refuse(call, obj, _unlabelled(call, f"spec.devices.requests[{at}].adminAccess"))
            return


async def updated(call: Call, new: Object, old: Object) -> None:
    """Refuse a status that its writer may not write. Raises ApiError."""
    if call.info.subresource != "status":
        return
    found: list[FieldError] = []
    path = "status.allocation.devices.results"
    at = _as_admin(new)
    if at is not None and _as_admin(old) is None:
        found += _unlabelled(call, f"{path}[{at}].adminAccess")
    if schema.number(call.services.registry.release) >= _GRANULAR:
        found += await _binding(call, new, old)
        if dig(new, "status", "allocation"):
            found += await _reporting(call, new, old)
    _refuse(call, new, found)


def _refuse(call: Call, obj: Object, found: list[FieldError]) -> None:
    if found:
        raise errors.invalid(GROUP, call.kind.kind, obj["metadata"].get("name", ""), found)


def _as_admin(claim: Object) -> int | None:
    """Which device was given for administration first."""
    results = dig(claim, "status", "allocation", "devices", "results") or ()
    return next((at for at, each in enumerate(results) if each.get("adminAccess")), None)


def _unlabelled(call: Call, path: str) -> list[FieldError]:
    kind = call.services.registry.find("", "namespaces")
    item = call.storage.find(kind, "", call.info.namespace) if kind is not None else None
    labels = (item.obj()["metadata"].get("labels") or {}) if item is not None else {}
    if labels.get(_LABEL) == "true":
        return []
    text = f"admin access to devices requires the `{_LABEL}: true` label on the containing namespace"
    return [forbidden(path, text)]


async def _binding(call: Call, new: Object, old: Object) -> list[FieldError]:
    """Whoever gives devices to claims, or claims to pods."""
    if all(
        (dig(new, "status", key) or None) == (dig(old, "status", key) or None) for key in ("allocation", "reservedFor")
    ):
        return []
    verb = call.info.verb
    why = await _denied(call, verb, "binding", "", "")
    if why is None:
        return []
    right = f'resource="resourceclaims/binding", verb="{verb}"'
    text = f"changing status.allocation or status.reservedFor requires {right} permission: {why}"
    return [forbidden("status.allocation", text)]


async def _reporting(call: Call, new: Object, old: Object) -> list[FieldError]:
    """Drivers report on their own devices; one that runs on a node, on those of its node."""
    before, after = _reports(old), _reports(new)
    drivers = {mark[0] for mark in {*before, *after} if before.get(mark) != after.get(mark)}
    verbs = [f"arbitrary-node:{call.info.verb}"]
    if _on_its_node(call, new):
        verbs.insert(0, f"associated-node:{call.info.verb}")
    found = []
    for driver in sorted(drivers):
        reasons = []
        for verb in verbs:
            why = await _denied(call, verb, "driver", call.info.namespace, driver)
            if why is None:
                break
            reasons.append(why)
        else:
            right = f'resource="resourceclaims/driver", verb="[{" ".join(verbs)}]"'
            text = f"changing status.devices requires {right} permission: {reasons[0]}"
            found.append(forbidden("status.devices", text))
    return found


def _reports(claim: Object) -> Mapping[tuple[str, ...], Object]:
    devices = dig(claim, "status", "devices") or ()
    return {tuple(each.get(key) or "" for key in ("driver", "pool", "device", "shareID")): each for each in devices}


def _on_its_node(call: Call, claim: Object) -> bool:
    """Whether a service account's pod is on the node that the devices are for."""
    terms = dig(claim, "status", "allocation", "nodeSelector", "nodeSelectorTerms") or ()
    if len(terms) != 1 or terms[0].get("matchExpressions") or not call.user.name.startswith(_ACCOUNT):
        return False
    nodes = list(call.user.extra.get(_NODE) or ())
    wanted = [{"key": "metadata.name", "operator": "In", "values": nodes}]
    return len(nodes) == 1 and terms[0].get("matchFields") == wanted


async def _denied(call: Call, verb: str, subresource: str, namespace: str, name: str) -> str | None:
    """Why the user has not this right; None when it has."""
    decide = call.services.extras.get("decide")
    if decide is None:
        return None
    info = replace(call.info, verb=verb, subresource=subresource, namespace=namespace, name=name)
    why = decide(call.user, info)
    if isinstance(why, Awaitable):
        why = await why
    if why is None:
        return None
    scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    text = (
        f'User "{call.user.name}" cannot {verb} resource "resourceclaims/{subresource}" in API group "{GROUP}" {scope}'
    )
    return errors.forbidden(GROUP, "resourceclaims", name, f"{text}: {why}" if why else text).message
