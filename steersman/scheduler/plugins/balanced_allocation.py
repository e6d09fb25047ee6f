"""NodeResourcesBalancedAllocation: nodes whose resources the pod would bring closer to the same share are better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steersman.scheduler.columns import Columns, Ints, Mask
from steersman.scheduler.framework import Plugin, Scores
from steersman.scheduler.plugins.node_resources import is_scalar
from steersman.scheduler.podinfo import PodInfo


def make(args: Mapping[str, Any]) -> Plugin:
    """With the names of its `resources`."""
    resources = tuple(each["name"] for each in args["resources"])
    return Plugin(
        "NodeResourcesBalancedAllocation",
        score=lambda columns, pod, feasible: score(columns, pod, feasible, resources),
    )


def score(
    columns: Columns, pod: PodInfo, feasible: Mask, resources: Sequence[str] = ("cpu", "memory")
) -> Scores | None:
    """75 where the pod changes nothing, more where it evens the shares out, less where it does not.

    Best-effort pods have no opinion. Source: balanced_allocation.go.
    """
    wanted = [(name, pod.requests.get(name, 0)) for name in resources]
    if not any(amount for _, amount in wanted):
        return None
    counted = [(name, amount) for name, amount in wanted if amount or not is_scalar(name)]
    capacity = [columns.resource(columns.allocatable, name) for name, _ in counted]
    before = [columns.resource(columns.requested, name) for name, _ in counted]
    after = [used + amount for used, (_, amount) in zip(before, counted, strict=True)]
    change = _evenness(after, capacity) - _evenness(before, capacity)
    return 50 + np.floor((50 + change) / 2)


def _evenness(used: Sequence[Ints], capacity: Sequence[Ints]) -> Scores:
    """100 less the standard deviation of the shares in percent; a resource that a node lacks does not count there."""
    shares = [np.minimum(mine / np.maximum(whole, 1), 1.0) for mine, whole in zip(used, capacity, strict=True)]
    there = [whole > 0 for whole in capacity]
    if len(shares) == 2:
        deviation = np.abs((shares[0] - shares[1]) / 2) * (there[0] & there[1])
        return np.floor((1 - deviation) * 100)
    number = np.maximum(np.sum(there, axis=0), 1)
    shares = [np.where(have, share, 0.0) for have, share in zip(there, shares, strict=True)]
    mean = np.sum(shares, axis=0) / number
    squares = np.sum([have * (share - mean) ** 2 for have, share in zip(there, shares, strict=True)], axis=0)
    return np.floor((1 - np.where(number > 1, np.sqrt(squares / number), 0.0)) * 100)
