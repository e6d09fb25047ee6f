"""Priority: a pod's priority class becomes its priority. Source: plugin/pkg/admission/priority."""

from __future__ import annotations

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.call import Call

_POLICY = "PreemptLowerPriority"


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Set priority and preemptionPolicy of a new pod. Raises ApiError."""
    if obj is None or (call.kind.group, call.kind.kind) != ("", "Pod") or call.info.subresource:
        return
    spec = obj["spec"]
    if call.operation == "UPDATE":
        for key in ("priority", "preemptionPolicy"):
            if key not in spec and old is not None and key in old["spec"]:
                spec[key] = old["spec"][key]
        return
    name, value, policy = _class_of(call, obj)
    if spec.get("priority") is not None and spec["priority"] != value:
        text = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
            f"priority admission controller computed {value} from the given PriorityClass name"
        )
        raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), text)
    if spec.get("preemptionPolicy") not in (None, policy):
        text = (
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
            f"priority admission controller computed {policy} from the given PriorityClass name"
        )
        raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), text)
    spec["priority"], spec["preemptionPolicy"] = value, policy
    if name:
        spec["priorityClassName"] = name


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """There is one default class at most. Raises ApiError."""
    if (call.kind.group, call.kind.kind) != ("scheduling.k8s.io", "PriorityClass"):
        return
    if obj is None or call.operation not in ("CREATE", "UPDATE") or not obj.get("globalDefault"):
        return
    for _, item in call.storage.cache(call.kind).items(call.storage.prefix(call.kind)):
        if b'"globalDefault":true' in item.tail and (
            call.operation == "CREATE" or item.name != obj["metadata"]["name"]
        ):
            text = f"PriorityClass {item.name} is already marked as default. Only one default can exist"
            raise errors.forbidden(call.kind.group, call.kind.plural, obj["metadata"].get("name", ""), text)


def _class_of(call: Call, obj: Object) -> tuple[str, int, str]:
    """(class, value, policy): the class that is named, else the global default, else none."""
    kind = call.services.registry.find("scheduling.k8s.io", "priorityclasses")
    if kind is None:
        return "", 0, _POLICY
    wanted = obj["spec"].get("priorityClassName")
    if wanted:
        item = call.storage.find(kind, "", wanted)
        if item is None:
            text = f"no PriorityClass with name {wanted} was found"
            raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), text)
        found = item.obj()
        return wanted, found["value"], found.get("preemptionPolicy", _POLICY)
    defaults = [
        item.obj()
        for _, item in call.storage.cache(kind).items(call.storage.prefix(kind))
        if b'"globalDefault":true' in item.tail
    ]
    if not defaults:
        return "", 0, _POLICY
    lowest = min(defaults, key=lambda each: each["value"])
    return lowest["metadata"]["name"], lowest["value"], lowest.get("preemptionPolicy", _POLICY)
