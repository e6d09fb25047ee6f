"""What a resize of a pod's resources in place may change (KEP-1287, KEP-5419).

Owns the rules of the `resize` endpoint. Given (new, old). Source: ValidatePodResize.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import meta, pods
from steersman.api.errors import FieldError
from steersman.api.godump import dump
from steersman.api.kinds.podspec import validate
from steersman.api.resource import Object
from steersman.api.validation import alike, forbidden, invalid

Complaints = list[FieldError]

_MUTABLE = ("cpu", "memory")
_ONLY = "only cpu and memory resources are mutable"


def resize(new: Object, old: Object) -> Complaints:
    """Cpu and memory, in the same class of service; nothing goes that was there."""
    if validate.MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden("[]", "static pods cannot be resized")]
    if (old["spec"].get("os") or {}).get("name") == "windows":
        return [forbidden("[]", "windows pods cannot be resized")]
    out = meta.validate_update(new, old, core=True)
    out += meta.validate(new, namespaced=True, core=True) + validate.pod(new)
    status = old.get("status") or {}
    if (status.get("qosClass") or pods.qos_class(old)) != pods.qos_class(new):
        found = (new.get("status") or {}).get("qosClass") or ""
        out.append(invalid("spec", found, "Pod QOS Class may not change as a result of resizing"))
    running = [each for each in status.get("containerStatuses") or () if (each.get("state") or {}).get("running")]
    if running and "resources" not in running[0]:
        out.append(forbidden("spec", "Pod running on node without support for resize"))
    fresh, before = dict(new["spec"]), old["spec"]
    if any((each.get("resources") or {}).get(key) for each in (fresh, before) for key in ("limits", "requests")):
        out += _of_pod(fresh, before)
    order = _same_containers(fresh, before)
    if order:
        return out + order
    out += _kept(fresh, before)
    out += _containers(fresh, before) + _init_containers(fresh, before)
    if not out and not alike(dump(fresh, "v1:PodSpec"), dump(before, "v1:PodSpec")):
        out.append(forbidden("spec", _ONLY))
    return out


def _of_pod(fresh: Object, before: Object) -> Complaints:
    """Resources of the pod as a whole; in `fresh` they are put back where they may differ."""
    now, former = fresh.get("resources"), before.get("resources")
    if former is not None and now is None:
        return [forbidden("spec.resources", "pod-level resources cannot be removed")]
    out: Complaints = []
    for which in ("requests", "limits"):
        if _removed(which, now, former):
            out.append(forbidden(f"spec.resources.{which}", f"pod-level resource {which} cannot be removed"))
    bare = _as_it_was(now or {}, former or {}, keep_claims=True)
    fresh["resources"] = bare if former is not None or any(bare.values()) else None
    message = "v1:ResourceRequirements"
    shown = [dump(each, message) if each is not None else None for each in (fresh["resources"], former)]
    return out if alike(*shown) else [*out, forbidden("spec", f"{_ONLY} at pod-level")]


def _removed(which: str, now: Mapping[str, Any] | None, former: Mapping[str, Any] | None) -> bool:
    return bool(((former or {}).get(which) or {}).keys() - ((now or {}).get(which) or {}).keys())


def _as_it_was(now: Mapping[str, Any], former: Mapping[str, Any], *, keep_claims: bool) -> dict[str, Any]:
    """`now`, with the amounts of `former` where they may change."""
    out = {**now} if keep_claims else {}
    for which in ("limits", "requests"):
        amounts, before = dict(now.get(which) or {}), former.get(which) or {}
        for name in _MUTABLE:
            if name in before:
                amounts[name] = before[name]
            else:
                amounts.pop(name, None)
        out[which] = amounts or None
    return {key: value for key, value in out.items() if value is not None}


def _same_containers(new: Object, old: Object) -> Complaints:
    out: Complaints = []
    for field in ("containers", "initContainers"):
        fresh, before = new.get(field) or (), old.get(field) or ()
        if len(fresh) != len(before):
            out.append(forbidden(f"spec.{field}", f"{field} may not be added or removed on resize"))
            continue
        text = f"{field} may not be renamed or reordered on resize"
        out += [
            forbidden(f"spec.{field}[{i}].name", text)
            for i, (container, former) in enumerate(zip(fresh, before, strict=True))
            if container.get("name") != former.get("name")
        ]
    return out


def _pairs(field: str, fresh: Object, before: Object) -> Sequence[tuple[Object, Object]]:
    return list(zip(fresh.get(field) or (), before.get(field) or (), strict=True))


def _kept(fresh: Object, before: Object) -> Complaints:
    return [
        forbidden(f"spec.{field}[{i}].resources.{which}", f"resource {which} cannot be removed")
        for field in ("initContainers", "containers")
        for i, (container, former) in enumerate(_pairs(field, fresh, before))
        for which in ("requests", "limits")
        if _removed(which, container.get("resources"), former.get("resources"))
    ]


def _differ(one: Object, other: Object) -> bool:
    return not alike(dump(one, "v1:Container"), dump(other, "v1:Container"))


def _with_former(container: Object, former: Object) -> Object:
    resources = _as_it_was(container.get("resources") or {}, former.get("resources") or {}, keep_claims=False)
    return {**container, "resources": resources}


def _containers(fresh: Object, before: Object) -> Complaints:
    pairs = _pairs("containers", fresh, before)
    bare = [_with_former(*pair) for pair in pairs]
    if "containers" in fresh:
        fresh["containers"] = bare
    return [forbidden("spec", _ONLY) for each, (_, former) in zip(bare, pairs, strict=True) if _differ(each, former)]


def _init_containers(fresh: Object, before: Object) -> Complaints:
    out: Complaints = []
    bare: list[Object] = []
    for i, (container, former) in enumerate(_pairs("initContainers", fresh, before)):
        here = f"spec.initContainers[{i}]"
        each = _with_former(container, former)
        if _differ(each, former):
            text = "only cpu and memory resources for init or sidecar containers are mutable"
            out.append(forbidden(here, text))
        if _differ(container, former) and not pods.is_sidecar(container):
            text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
            policies = container.get("resizePolicy") or ()
            out += [forbidden(here, text) for each_ in policies if each_.get("restartPolicy") == "RestartContainer"]
        bare.append(each)
    if bare:
        fresh["initContainers"] = bare
    return out
