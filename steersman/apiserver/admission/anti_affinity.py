"""LimitPodHardAntiAffinityTopology: nobody keeps others off more than one node.

Source: plugin/pkg/admission/antiaffinity.
"""

from __future__ import annotations

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.call import Call

_HOST = "kubernetes.io/hostname"


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse required anti-affinity over anything but a host. Raises ApiError."""
    if obj is None or (call.kind.group, call.kind.plural) != ("", "pods") or call.info.subresource:
        return
    terms = ((obj["spec"].get("affinity") or {}).get("podAntiAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    for term in terms or ():
        if term.get("topologyKey") != _HOST:
            text = "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey"
            why = f"{text} {term.get('topologyKey', '')} but only key {_HOST} is allowed"
            raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), why)
