"""PodTopologyLabels: a pod gets the zone and the region of the node that it is bound to, or made on (KEP-4742).

Source: plugin/pkg/admission/podtopologylabels.
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.api import schema
from steersman.api.resource import Object
from steersman.apiserver.call import Call

_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
_SINCE = (1, 35)


def copies(call: Call) -> bool:
    """Whether pods get labels by their Bindings: in releases where that is on."""
    return schema.number(call.services.registry.release) >= _SINCE


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Label a pod that is created on a node, or the Binding, whose labels the pod gets. Never refuses."""
    info = call.info
    if call.operation != "CREATE" or obj is None or info.resource != "pods" or info.group:
        return  # a Binding that is posted to `bindings` too: as there, only one to the pod itself is labelled
    found = _labels(call, _node(info.subresource, obj))
    if found and copies(call):
        metadata = obj.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **found}


def _node(subresource: str, obj: Object) -> str:
    if not subresource:
        return obj["spec"].get("nodeName") or ""
    target = (obj.get("target") or {}) if subresource == "binding" else {}
    return (target.get("name") or "") if target.get("kind") == "Node" else ""


def _labels(call: Call, node: str) -> Mapping[str, str]:
    kind = call.services.registry.find("", "nodes") if node else None
    item = call.storage.find(kind, "", node) if kind is not None else None
    return {key: item.labels[key] for key in _LABELS if key in item.labels} if item is not None else {}
