"""NodeVolumeLimits: a node attaches no more volumes of a CSI driver than its CSINode says.

Counted are those that its pods use, and those that VolumeAttachments name besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Event, Hint, Kind, Plugin, Rejection, always
from steersman.scheduler.plugins.volume_restrictions import own_claim
from steersman.scheduler.podinfo import PodInfo


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    hints: dict[Kind, Hint] = {
        "pod freed": _detaches,
        "claim": own_claim,
        "node added": always,
        "node limits": always,
        "attachment": _detached,
    }
    return Plugin("NodeVolumeLimits", filter=filter, hints=hints)


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes where the pod's volumes would be too many; a volume that is there already is not another one."""
    crowded = columns.volumes.crowded(pod) if pod.claims else None
    return () if crowded is None else (Rejection(crowded, "node(s) exceed max volume count"),)


def _detaches(columns: Columns, pod: PodInfo, event: Event) -> bool:
    return event.pod is not None and bool(event.pod.claims)


def _detached(columns: Columns, pod: PodInfo, event: Event) -> bool:
    return event.new is None and bool(pod.claims)
