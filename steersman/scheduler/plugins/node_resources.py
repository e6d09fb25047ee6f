"""NodeResourcesFit: requests must fit what is left; how full a node should be is the scoring strategy's to say."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt

from steersman.scheduler.columns import Columns, Ints, Mask
from steersman.scheduler.configuration import extended
from steersman.scheduler.configuration.args import MOST_SCORE
from steersman.scheduler.framework import Event, Hint, Kind, Plugin, Rejection, Score, ScoreRow, Scores
from steersman.scheduler.podinfo import PodInfo, amount_of

_DEFAULT = (("cpu", 1), ("memory", 1))
_NATIVE = ("cpu", "memory", "ephemeral-storage", "pods")
Share = Callable[[Ints, Ints], Scores]
"""A resource's score on each node, of what would be used and what there is."""


def make(args: Mapping[str, Any]) -> Plugin:
    """With its scoring strategy, and without the resources that it is told to ignore."""
    resources, groups = (
        frozenset(args.get("ignoredResources") or ()),
        frozenset(args.get("ignoredResourceGroups") or ()),
    )
    strategy = args["scoringStrategy"]
    weights = tuple((each["name"], each["weight"]) for each in strategy["resources"])
    score: Score
    score_row: ScoreRow | None = None
    if strategy["type"] == "RequestedToCapacityRatio":
        curve = _curve(strategy["requestedToCapacityRatio"]["shape"])

        def score(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
            return by_ratio(columns, pod, weights, curve)

    else:
        free = strategy["type"] == "LeastAllocated"

        def score(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
            return weighted(columns, pod, weights, _free if free else _used)

        def score_row(columns: Columns, pod: PodInfo, row: int) -> float | None:
            return weighted_row(columns, pod, row, weights, free=free)

    def fits(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
        return filter(columns, pod, lambda name: ignored(name, resources, groups))

    if resources or groups:
        return Plugin("NodeResourcesFit", filter=fits, score=score, hints=_HINTS, alike=_alike)
    return Plugin(
        "NodeResourcesFit",
        filter=filter,
        score=score,
        hints=_HINTS,
        filter_row=filter_row,
        score_row=score_row,
        alike=_alike,
    )


def _alike(pod: PodInfo) -> Hashable:
    """What its hints look at."""
    return pod.priority, *pod.requests.items()


def _roomier(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A node has more of something, and enough of everything."""
    if event.new is None or not _fits(columns, pod, event.new["metadata"]["name"], empty=True):
        return False
    if event.old is None:
        return True
    before, now = (((each.get("status") or {}).get("allocatable") or {}) for each in (event.old, event.new))
    return any(
        amount_of(name, now.get(name, "0")) > amount_of(name, before.get(name, "0"))
        for name, wanted in pod.requests.items()
        if wanted
    )


def _freed(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A pod is gone or smaller. One less important could have been evicted, so only real room is news."""
    gone = event.was or event.pod
    if gone is None or (event.kind == "pod changed" and event.pod is not None and not _shrank(event.pod, gone)):
        return False
    if gone.priority >= pod.priority:
        return True
    return _fits(columns, pod, event.node)


def _shrank(now: PodInfo, was: PodInfo) -> bool:
    return any(now.requests.get(name, 0) < amount for name, amount in was.requests.items())


def _fits(columns: Columns, pod: PodInfo, node: str, *, empty: bool = False) -> bool:
    """Whether one node has room for the pod, or would have with nobody there."""
    row = columns.rows.get(node)
    if row is None:
        return False
    own = columns.pods[row].get(pod.uid)  # its nomination is counted there already
    for name, wanted in pod.requests.items():
        used = 0 if empty else int(columns.resource(columns.requested, name)[row])
        if own is not None and not empty:
            used -= own.requests.get(name, 0)
        there = int(columns.resource(columns.allocatable, name)[row])
        if wanted and wanted > there - used and (there or name not in columns.devices.by_resource):
            return False
    return True


def _meant(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A class of devices stands for a resource that the pod asks for."""
    return any(amount and name in columns.devices.by_resource for name, amount in pod.requests.items())


_HINTS: Mapping[Kind, Hint] = {
    "device class": _meant,
    "node added": _roomier,
    "node resources": _roomier,
    "pod freed": _freed,
    "pod changed": _freed,
}


def ignored(resource: str, resources: frozenset[str], groups: frozenset[str]) -> bool:
    """Whether the arguments say not to look at an extended resource."""
    return extended(resource) and (resource in resources or resource.partition("/")[0] in groups)


def is_scalar(resource: str) -> bool:
    """Whether nodes are not expected to have it: a resource counts in scores only for pods that ask for it."""
    return resource not in _NATIVE


def filter(columns: Columns, pod: PodInfo, skip: Callable[[str], bool] | None = None) -> Sequence[Rejection]:
    """Refuse nodes with too little of something that is asked for."""
    found = []
    for resource, wanted in pod.requests.items():
        if not wanted or (skip is not None and skip(resource)):
            continue
        allocatable = columns.resource(columns.allocatable, resource)
        short = wanted > allocatable - columns.resource(columns.requested, resource)
        if resource in columns.devices.by_resource:
            short &= allocatable > 0  # elsewhere DynamicResources gives devices for it
        if not short.any():
            continue
        reason = "Too many pods" if resource == "pods" else f"Insufficient {resource}"
        never = short & (wanted > allocatable)
        found.append(Rejection(short & ~never, reason))
        found.append(Rejection(never, reason, resolvable=False))
    return found


def filter_row(columns: Columns, pod: PodInfo, row: int) -> bool:
    """Whether one node has enough of everything."""
    for resource, wanted in pod.requests.items():
        if wanted:
            there = columns.resource(columns.allocatable, resource).item(row)
            left = there - columns.resource(columns.requested, resource).item(row)
            if wanted > left and (there > 0 or resource not in columns.devices.by_resource):
                return False
    return True


def _requested(columns: Columns, pod: PodInfo, resource: str) -> Ints:
    """What each node would have given away; cpu and memory of containers that ask for none count with a default."""
    if resource in ("cpu", "memory"):
        return columns.resource(columns.nonzero, resource) + pod.nonzero[resource]
    return columns.resource(columns.requested, resource) + pod.requests.get(resource, 0)


def _free(used: Ints, capacity: Ints) -> Scores:
    # Dividing doubles is several times cheaper than integers, and exact below 2**45: 32 TiB.
    return np.floor(np.maximum(capacity - used, 0) * 100.0 / np.maximum(capacity, 1))


def _used(used: Ints, capacity: Ints) -> Scores:
    return np.floor(np.minimum(used, capacity) * 100.0 / np.maximum(capacity, 1))


def _counted(pod: PodInfo, weights: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
    return [each for each in weights if not is_scalar(each[0]) or pod.requests.get(each[0])]


def weighted(
    columns: Columns, pod: PodInfo, weights: Sequence[tuple[str, int]] = _DEFAULT, share: Share = _free
) -> Scores:
    """LeastAllocated or MostAllocated: the weighted mean of the shares that are free or used, 0 to 100."""
    total, heaviness = np.zeros(len(columns.live), np.float64), np.zeros(len(columns.live), np.float64)
    for resource, weight in _counted(pod, weights):
        capacity = columns.resource(columns.allocatable, resource)
        there = capacity > 0
        total += weight * share(_requested(columns, pod, resource), capacity) * there
        heaviness += weight * there
    return np.floor(total / np.maximum(heaviness, 1))


def weighted_row(
    columns: Columns, pod: PodInfo, row: int, weights: Sequence[tuple[str, int]] = _DEFAULT, *, free: bool = True
) -> float:
    """What `weighted` says of one node, by LeastAllocated (`free`) or MostAllocated."""
    total = heaviness = 0.0
    for resource, weight in _counted(pod, weights):
        capacity = columns.resource(columns.allocatable, resource).item(row)
        if capacity <= 0:
            continue
        if resource in ("cpu", "memory"):
            used = columns.resource(columns.nonzero, resource).item(row) + pod.nonzero[resource]
        else:
            used = columns.resource(columns.requested, resource).item(row) + pod.requests.get(resource, 0)
        total += weight * floor((max(capacity - used, 0) if free else min(used, capacity)) * 100.0 / capacity)
        heaviness += weight
    return floor(total / max(heaviness, 1))


def by_ratio(
    columns: Columns, pod: PodInfo, weights: Sequence[tuple[str, int]], curve: npt.NDArray[np.float64]
) -> Scores:
    """RequestedToCapacityRatio: the curve's value at the percentage used; resources that score 0 do not count."""
    total, heaviness = np.zeros(len(columns.live), np.float64), np.zeros(len(columns.live), np.float64)
    for resource, weight in _counted(pod, weights):
        capacity, used = columns.resource(columns.allocatable, resource), _requested(columns, pod, resource)
        percent = np.where(used > capacity, 100, np.floor(used * 100.0 / np.maximum(capacity, 1))).astype(np.int64)
        score = np.where(capacity > 0, curve[percent], 0.0)
        total += weight * score
        heaviness += weight * (score > 0)
    return np.floor(total / np.maximum(heaviness, 1) + 0.5)


def _curve(shape: Sequence[Mapping[str, int]]) -> npt.NDArray[np.float64]:
    """The score at each whole percentage, linear between the points, in integers that round towards zero."""
    points = [(each.get("utilization", 0), each.get("score", 0) * (100 // MOST_SCORE)) for each in shape]
    return np.array([_at(percent, points) for percent in range(101)], np.float64)


def _at(percent: int, points: Sequence[tuple[int, int]]) -> int:
    if percent <= points[0][0]:
        return points[0][1]
    for (low, first), (high, last) in pairwise(points):
        if percent <= high:
            return first + int((last - first) * (percent - low) / (high - low))
    return points[-1][1]
