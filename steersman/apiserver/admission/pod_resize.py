"""NodeDeclaredFeatureValidator and PodResizeValidator: whether the node can do what an update asks of it for a pod.

Both are about pods that are bound, and about changed specs alone. Source: plugin/pkg/admission/nodedeclaredfeatures and
podresize, component-helpers' nodedeclaredfeatures (KEP-5328).
"""

from __future__ import annotations

from typing import Any

from steersman.api import errors, pods, quantity, schema
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.call import Call

_SINCE = (1, 36)
_OS = "kubernetes.io/os"
_POD_LEVEL = "InPlacePodLevelResourcesVerticalScaling"
_INIT = "InPlacePodVerticalScalingInitContainers"


def features(call: Call, obj: Object | None, old: Object | None) -> None:
    """The node declares what the update needs of its kubelet. Raises ApiError 403."""
    if obj is None or old is None or not _concerns(call, obj, old, ("", "resize")):
        return
    needed = needs(obj, old)
    if not needed:
        return
    node = _node(call, obj)
    declared = (node.get("status") or {}).get("declaredFeatures") or ()
    if lacking := [name for name in needed if name not in declared]:
        name = node["metadata"]["name"]
        text = f"pod update requires features {', '.join(lacking)} which are not available on node "
        raise _refused(obj, text + errors.quoted(name))


def needs(new: Object, old: Object) -> list[str]:
    """The features that a kubelet must have for an update of a pod's spec, sorted."""
    found = []
    if not _same(new["spec"].get("resources"), old["spec"].get("resources")):
        found.append(_POD_LEVEL)
    pairs = zip(pods.init_containers(new), pods.init_containers(old), strict=False)
    if any(
        not pods.is_sidecar(before) and not _same(after.get("resources") or {}, before.get("resources") or {})
        for after, before in pairs
    ):
        found.append(_INIT)
    return found


def capacity(call: Call, obj: Object | None, old: Object | None) -> None:
    """A resize is for nodes with Linux, and asks for no more than the node could ever give. Raises ApiError 403."""
    if obj is None or old is None or not _concerns(call, obj, old, ("resize",)):
        return
    node = _node(call, obj)
    name, system = node["metadata"]["name"], (node["metadata"].get("labels") or {}).get(_OS, "linux")
    if system != "linux":
        text = f"pod resize is only supported on linux nodes, node {errors.quoted(name)} is {errors.quoted(system)}"
        raise _refused(obj, text, "UnsupportedPlatform")
    wanted, there = pods.requests(obj), (node.get("status") or {}).get("allocatable") or {}
    said = []
    for resource, count in (("cpu", quantity.milli), ("memory", quantity.whole)):
        asked, given = wanted.get(resource, "0"), there.get(resource, "0")
        if quantity.compare(asked, given) > 0:
            said.append(f"{resource}, requested: {count(asked)}, allocatable: {count(given)}")
    if said:
        raise _refused(obj, f"node didn't have enough allocatable resources: {'; '.join(said)}", "NodeCapacity")


def _concerns(call: Call, obj: Object, old: Object, subresources: tuple[str, ...]) -> bool:
    return (
        call.operation == "UPDATE"
        and (call.kind.group, call.kind.kind) == ("", "Pod")
        and call.info.subresource in subresources
        and obj["metadata"].get("generation") != old["metadata"].get("generation")
        and bool(obj["spec"].get("nodeName"))
        and schema.number(call.services.registry.release) >= _SINCE
    )


def _node(call: Call, pod: Object) -> Object:
    name = pod["spec"]["nodeName"]
    kind = call.services.registry.find("", "nodes")
    item = call.storage.find(kind, "", name) if kind is not None else None
    if item is None:
        raise _refused(pod, f"node {errors.quoted(name)} not found")
    return item.obj()


def _same(one: Any, other: Any) -> bool:
    """Whether amounts are equal, however they are written; what is empty is as what is not there."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same(one.get(key), other.get(key)) for key in one.keys() | other.keys())
    if isinstance(one, str) and isinstance(other, str):
        return one == other or quantity.compare(one, other) == 0
    return one == other or (not one and not other)


def _refused(pod: Object, why: str, reason: str = "") -> ApiError:
    error = errors.forbidden("", "pods", pod["metadata"].get("name", ""), why)
    if reason:
        error.details["causes"] = [{"reason": reason}]
    return error
