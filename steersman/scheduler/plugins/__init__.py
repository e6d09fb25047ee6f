"""The scheduler's rules: one file per plugin, one entry each in `KNOWN`, in the order they are asked.

Names, order, extension points and weights are those of the original's default profile. A plugin without a maker is part
of the queue or the loop here, or does not come into play (the table of docs/compatibility.md says which).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from steersman.scheduler.framework import Plugin
from steersman.scheduler.plugins import (
    balanced_allocation,
    dynamic_resources,
    image_locality,
    inter_pod_affinity,
    node_affinity,
    node_declared_features,
    node_name,
    node_ports,
    node_resources,
    node_unschedulable,
    node_volume_limits,
    pod_topology_spread,
    taint_toleration,
    volume_binding,
    volume_restrictions,
    volume_zone,
)

Args = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """A plugin that can be asked for: where it extends the scheduler, and how it is made from its arguments."""

    points: frozenset[str]
    make: Callable[[Args], Plugin] | None = None
    weight: int = 0  # in the default profile; 0 where it scores nothing there
    default: bool = True


def _known(
    points: str, make: Callable[[Args], Plugin] | None = None, *, weight: int = 0, default: bool = True
) -> Known:
    return Known(frozenset(points.split()), make, weight, default)


GROUP = "steersman.scheduler.plugins"
"""The entry points that add plugins: each is a `Known`, its name the plugin's."""


def installed() -> dict[str, Known]:
    """All plugins: those here, then those of other packages. Raises ValueError for one that is none or takes a name."""
    found = dict(KNOWN)
    for each in entry_points(group=GROUP):
        made = each.load()
        if not isinstance(made, Known):
            raise ValueError(f"the entry point {each.name} = {each.value} of {GROUP} is no Known")
        if each.name in found:
            raise ValueError(f"a plugin named {each.name} already exists")
        found[each.name] = made
    return found


_FILTER, _BOTH = "preFilter filter", "preFilter filter preScore score"

KNOWN: Mapping[str, Known] = {
    "SchedulingGates": _known("preEnqueue"),
    "PrioritySort": _known("queueSort"),
    "NodeUnschedulable": _known("filter", node_unschedulable.make),
    "NodeName": _known("filter", node_name.make),
    "TaintToleration": _known("filter preScore score", taint_toleration.make, weight=3),
    "NodeAffinity": _known(_BOTH, node_affinity.make, weight=2),
    "NodePorts": _known(_FILTER, node_ports.make),
    "NodeResourcesFit": _known(_BOTH, node_resources.make, weight=1),
    "VolumeRestrictions": _known(_FILTER, volume_restrictions.make),
    "NodeVolumeLimits": _known(_FILTER, node_volume_limits.make),
    "VolumeBinding": _known(f"{_BOTH} reserve preBind", volume_binding.make),
    "VolumeZone": _known(_FILTER, volume_zone.make),
    "PodTopologySpread": _known(_BOTH, pod_topology_spread.make, weight=2),
    "InterPodAffinity": _known(_BOTH, inter_pod_affinity.make, weight=2),
    "DynamicResources": _known(
        "preEnqueue preFilter filter postFilter score reserve preBind", dynamic_resources.make, weight=2
    ),
    "DefaultPreemption": _known("preEnqueue postFilter"),
    "NodeResourcesBalancedAllocation": _known("preScore score", balanced_allocation.make, weight=1),
    "ImageLocality": _known("score", image_locality.make, weight=1),
    "DefaultBinder": _known("bind"),
    "NodeDeclaredFeatures": _known(_FILTER, node_declared_features.make),
}
