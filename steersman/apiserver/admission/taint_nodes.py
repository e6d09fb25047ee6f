"""TaintNodesByCondition: a new node takes no pods until it is ready. Source: plugin/pkg/admission/nodetaint."""

from __future__ import annotations

from steersman.api.resource import Object
from steersman.apiserver.call import Call

_TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Add the not-ready taint to a node that is created."""
    if call.operation != "CREATE" or obj is None or (call.kind.group, call.kind.kind) != ("", "Node"):
        return
    taints = obj["spec"].get("taints") or []
    if not any((t.get("key"), t.get("effect")) == (_TAINT["key"], _TAINT["effect"]) for t in taints):
        obj["spec"]["taints"] = [*taints, dict(_TAINT)]
