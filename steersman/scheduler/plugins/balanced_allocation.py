"""NodeResourcesBalancedAllocation: nodes whose resources the pod would bring closer to the same share are better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np

from steersman.scheduler.columns import Columns, Ints, Mask
from steersman.scheduler.framework import Plugin, Scores
from steersman.scheduler.plugins.node_resources import is_scalar
from steersman.scheduler.podinfo import PodInfo

_USUAL = ("cpu", "memory")


def make(args: Mapping[str, Any]) -> Plugin:
    """With the names of its `resources`."""
    resources = tuple(each["name"] for each in args["resources"])
    return Plugin(
        "NodeResourcesBalancedAllocation",
        score=lambda columns, pod, feasible: score(columns, pod, feasible, resources),
        score_row=score_row if resources == _USUAL else None,
    )


def score(columns: Columns, pod: PodInfo, feasible: Mask, resources: Sequence[str] = _USUAL) -> Scores | None:
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


def score_row(columns: Columns, pod: PodInfo, row: int) -> float | None:
    """What `score` says of one node, by cpu and memory."""
    cpu, memory = pod.requests.get("cpu", 0), pod.requests.get("memory", 0)
    if not (cpu or memory):
        return None
    cpus = columns.resource(columns.allocatable, "cpu").item(row)
    bytes_ = columns.resource(columns.allocatable, "memory").item(row)
    one, other = (
        columns.resource(columns.requested, "cpu").item(row),
        columns.resource(columns.requested, "memory").item(row),
    )
    change = _apart(one + cpu, cpus, other + memory, bytes_) - _apart(one, cpus, other, bytes_)
    return 50 + floor((50 + change) / 2)


def _apart(cpu: int, cpus: int, memory: int, bytes_: int) -> int:
    """`_evenness` of two resources of one node."""
    if cpus <= 0 or bytes_ <= 0:
        return 100
    return floor((1 - abs((min(cpu / cpus, 1.0) - min(memory / bytes_, 1.0)) / 2)) * 100)


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
