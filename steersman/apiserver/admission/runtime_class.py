"""RuntimeClass: a pod's class must exist, and gives it its overhead and where it may run.

Source: plugin/pkg/admission/runtimeclass.
"""

from __future__ import annotations

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.call import Call


def _concerns(call: Call) -> bool:
    return call.operation == "CREATE" and (call.kind.group, call.kind.kind, call.info.subresource) == ("", "Pod", "")


def _class_of(call: Call, obj: Object | None) -> Object | None:
    """The class of a new pod; None without one. Raises ApiError."""
    if obj is None or not _concerns(call):
        return None
    name = obj["spec"].get("runtimeClassName")
    kind = call.services.registry.find("node.k8s.io", "runtimeclasses")
    if not name or kind is None:
        return None
    item = call.storage.find(kind, "", name)
    if item is None:
        text = f'pod rejected: RuntimeClass "{name}" not found'
        raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), text)
    return item.obj()


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Set overhead, node selector and tolerations. Raises ApiError."""
    found = _class_of(call, obj)
    if found is None or obj is None:
        return
    spec = obj["spec"]
    if overhead := (found.get("overhead") or {}).get("podFixed"):
        if spec.get("overhead") not in (None, overhead):
            text = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
            raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), text)
        spec["overhead"] = dict(overhead)
    scheduling = found.get("scheduling") or {}
    if selector := scheduling.get("nodeSelector"):
        spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **selector}
    for toleration in scheduling.get("tolerations") or ():
        if toleration not in (spec.get("tolerations") or []):
            spec["tolerations"] = [*(spec.get("tolerations") or []), toleration]


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """A pod without a class has no overhead. Raises ApiError."""
    if obj is None or not _concerns(call):
        return
    if _class_of(call, obj) is None and obj["spec"].get("overhead"):
        text = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), text)
