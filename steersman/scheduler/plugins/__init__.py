"""The scheduler's rules: one file per plugin, one line each in `DEFAULT`, in the order they are asked.

Names, order and weights are those of the original's default profile.
"""

from __future__ import annotations

from steersman.scheduler.framework import Plugin
from steersman.scheduler.plugins import (
    balanced_allocation,
    image_locality,
    inter_pod_affinity,
    node_affinity,
    node_name,
    node_ports,
    node_resources,
    node_unschedulable,
    pod_topology_spread,
    taint_toleration,
)

DEFAULT: tuple[Plugin, ...] = (
    Plugin("NodeUnschedulable", filter=node_unschedulable.filter),
    Plugin("NodeName", filter=node_name.filter),
    Plugin("TaintToleration", filter=taint_toleration.filter, score=taint_toleration.score, weight=3),
    Plugin("NodeAffinity", filter=node_affinity.filter, score=node_affinity.score, weight=2),
    Plugin("NodePorts", filter=node_ports.filter),
    Plugin("NodeResourcesFit", filter=node_resources.filter, score=node_resources.least_allocated),
    Plugin("PodTopologySpread", filter=pod_topology_spread.filter, score=pod_topology_spread.score, weight=2),
    Plugin("InterPodAffinity", filter=inter_pod_affinity.filter, score=inter_pod_affinity.score, weight=2),
    Plugin("NodeResourcesBalancedAllocation", score=balanced_allocation.score),
    Plugin("ImageLocality", score=image_locality.score),
)
