"""NodeResourcesFit: requests must fit what is left; emptier nodes are better (LeastAllocated)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.framework import Rejection, Scores
from steersman.scheduler.podinfo import PodInfo


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes with too little of something that is asked for."""
    found = []
    for resource, wanted in pod.requests.items():
        if not wanted:
            continue
        allocatable = columns.resource(columns.allocatable, resource)
        short = wanted > allocatable - columns.resource(columns.requested, resource)
        if not short.any():
            continue
        reason = "Too many pods" if resource == "pods" else f"Insufficient {resource}"
        never = wanted > allocatable
        found.append(Rejection(short & ~never, reason))
        found.append(Rejection(never, reason, resolvable=False))
    return found


def least_allocated(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
    """The mean over cpu and memory of the share that stays free, 0 to 100."""
    total = np.zeros(len(feasible), np.float64)
    for resource in ("cpu", "memory"):
        allocatable = columns.resource(columns.allocatable, resource)
        free = allocatable - columns.resource(columns.nonzero, resource) - pod.nonzero[resource]
        np.maximum(free, 0, out=free)
        # Dividing doubles is several times cheaper than integers, and exact below 2**45: 32 TiB.
        total += np.floor(free * 100.0 / np.maximum(allocatable, 1))
    return np.floor(total / 2)
