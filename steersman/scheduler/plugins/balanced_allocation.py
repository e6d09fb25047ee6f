"""NodeResourcesBalancedAllocation: nodes whose cpu and memory would be used to the same share are better."""

from __future__ import annotations

import numpy as np

from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.framework import Scores
from steersman.scheduler.podinfo import PodInfo


def score(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
    """100 minus the spread of the two shares. Best-effort pods have no opinion (original: PreScore skips them)."""
    if not pod.requests.get("cpu") and not pod.requests.get("memory"):
        return None
    shares = []
    for resource in ("cpu", "memory"):
        allocatable = columns.resource(columns.allocatable, resource)
        used = columns.resource(columns.requested, resource) + pod.requests.get(resource, 0)
        shares.append(np.minimum(used / np.maximum(allocatable, 1), 1.0))
    return (1 - np.abs(shares[0] - shares[1]) / 2) * 100
