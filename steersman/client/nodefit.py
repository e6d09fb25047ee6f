"""Whether a node suits a pod: selector, required affinity, taints. One pod and one node at a time.

Owns pure rules that the controllers of DaemonSets and nodes need; the scheduler has its own over all nodes at once.
Source: component-helpers' nodeaffinity and the documentation of taints and tolerations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steersman.api.resource import Object

BY_NODE = "node"  # the index that `file_by_node` makes
_NAME = "metadata.name"


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether one toleration covers one taint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") in ("", "Equal"):
        return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")
    return toleration.get("operator") == "Exists"


def untolerated(tolerations: Sequence[Object], taints: Iterable[Object], effects: Iterable[str]) -> bool:
    """Whether a taint with one of these effects is not tolerated."""
    which = set(effects)
    return any(taint["effect"] in which and not any(tolerates(each, taint) for each in tolerations) for taint in taints)


def matches(spec: Mapping[str, Any], node: Object) -> bool:
    """Whether the pod's nodeSelector and required node affinity accept the node."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return selected(required, node)


def selected(selector: Object, node: Object) -> bool:
    """Whether a NodeSelector means the node."""
    labels, fields = node["metadata"].get("labels") or {}, {_NAME: node["metadata"]["name"]}
    return any(_term(term, labels, fields) for term in selector.get("nodeSelectorTerms") or ())


def _term(term: Object, labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    expressions, by_field = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not by_field:
        return False
    return all(_holds(each, labels) for each in expressions) and all(_holds(each, fields) for each in by_field)


def _holds(requirement: Object, values: Mapping[str, str]) -> bool:
    value = values.get(requirement["key"])
    wanted: Sequence[str] = requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                have, limit = int(value or ""), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return have > limit if operator == "Gt" else have < limit
    return False


def pinned(affinity: Object | None, name: str) -> Object:
    """An affinity that requires the node of that name; preferences stay."""
    node_affinity = dict((affinity or {}).get("nodeAffinity") or {})
    term = {"matchFields": [{"key": _NAME, "operator": "In", "values": [name]}]}
    node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
    return {**(affinity or {}), "nodeAffinity": node_affinity}


def file_by_node(pod: Object) -> Iterable[str]:
    """An index function: the node that a pod is bound to."""
    if name := pod["spec"].get("nodeName"):
        yield name


def node_of(pod: Object) -> str:
    """The node that the pod is bound or pinned to; empty when neither."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["key"] == _NAME and field["operator"] == "In" and len(field.get("values") or ()) == 1:
                return str(field["values"][0])
    return ""
