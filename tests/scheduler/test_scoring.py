"""Scores of resources and of default spreading against scalar versions in whole numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steersman.api.resource import Object
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.configuration.args import defaulted
from steersman.scheduler.plugins import balanced_allocation, node_resources, pod_topology_spread
from steersman.scheduler.podinfo import PodInfo

GPU = "example.com/gpu"
amounts = st.fixed_dictionaries(
    {"cpu": st.integers(0, 3000), "memory": st.integers(0, 2**33)}, optional={GPU: st.integers(0, 4)}
)
capacities = st.fixed_dictionaries(
    {}, optional={"cpu": st.integers(1, 8000), "memory": st.integers(1, 2**34), GPU: st.integers(1, 8)}
)
resources = st.lists(
    st.tuples(st.sampled_from(["cpu", "memory", GPU]), st.integers(1, 5)),
    min_size=1,
    unique_by=lambda each: each[0],
)
points = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 10)), min_size=1, max_size=4, unique_by=lambda p: p[0])


def said(given_: dict[str, int]) -> dict[str, str]:
    return {name: f"{amount}m" if name == "cpu" else str(amount) for name, amount in given_.items()}


def a_pod(uid: str, wanted: dict[str, int], **meta: Any) -> PodInfo:
    container = {"name": "c", "resources": {"requests": said(wanted)}}
    return podinfo.read(
        {"metadata": {"uid": uid, "name": uid, "namespace": "d", **meta}, "spec": {"containers": [container]}}
    )


def by_go(strategy: str, used: int, capacity: int, curve: list[tuple[int, int]]) -> int:
    """One resource on one node."""
    if strategy == "LeastAllocated":
        return 0 if used > capacity else (capacity - used) * 100 // capacity
    if strategy == "MostAllocated":
        return min(used, capacity) * 100 // capacity
    percent = 100 if used > capacity else used * 100 // capacity
    before: tuple[int, int] | None = None
    for at, score in curve:
        if percent <= at:
            if before is None:
                return score
            return before[1] + math.trunc((score - before[1]) * (percent - before[0]) / (at - before[0]))
        before = (at, score)
    return curve[-1][1]


def total(
    strategy: str, of: list[tuple[str, int]], pod: PodInfo, used: dict[str, int], has: dict[str, int], curve: Any
) -> int:
    score = weights = 0
    for name, weight in of:
        mine = pod.nonzero.get(name, pod.requests.get(name, 0))
        if not has.get(name) or (name == GPU and not mine):
            continue
        each = by_go(strategy, used.get(name, 0) + mine, has[name], curve)
        if strategy != "RequestedToCapacityRatio" or each > 0:
            score, weights = score + weight * each, weights + weight
    if not weights:
        return 0
    return math.floor(score / weights + 0.5) if strategy == "RequestedToCapacityRatio" else score // weights


@given(
    st.sampled_from(["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"]),
    resources, points, capacities, amounts, amounts,
)  # fmt: skip
def test_strategies(
    strategy: str,
    of: list[tuple[str, int]],
    shape: list[tuple[int, int]],
    has: dict[str, int],
    there: dict[str, int],
    wanted: dict[str, int],
) -> None:
    columns = Columns()
    columns.set_node({"metadata": {"name": "n"}, "status": {"allocatable": said(has)}})
    old, new = a_pod("old", there), a_pod("new", wanted)
    columns.add_pod(old, "n")
    shape.sort()
    settings: dict[str, Any] = {"type": strategy, "resources": [{"name": n, "weight": w} for n, w in of]}
    settings["requestedToCapacityRatio"] = {"shape": [{"utilization": u, "score": s} for u, s in shape]}
    plugin = node_resources.make(defaulted("NodeResourcesFit", {"scoringStrategy": settings}))
    assert plugin.score is not None
    scores = plugin.score(columns, new, columns.live)
    used = {**old.requests, **old.nonzero}
    assert scores is not None
    assert int(scores[0]) == total(strategy, of, new, used, has, [(u, s * 10) for u, s in shape])


def evenness(used: dict[str, int], has: dict[str, int], names: list[str]) -> int:
    shares = [min(1.0, used.get(name, 0) / has[name]) for name in names if has.get(name)]
    if len(shares) < 2:
        return 100
    if len(shares) == 2:
        return int((1 - abs((shares[0] - shares[1]) / 2)) * 100)
    mean = sum(shares) / len(shares)
    return int((1 - math.sqrt(sum((share - mean) ** 2 for share in shares) / len(shares))) * 100)


@given(st.sampled_from([["cpu", "memory"], ["cpu", "memory", GPU]]), capacities, amounts, amounts)
def test_balance(names: list[str], has: dict[str, int], there: dict[str, int], wanted: dict[str, int]) -> None:
    columns = Columns()
    columns.set_node({"metadata": {"name": "n"}, "status": {"allocatable": said(has)}})
    columns.add_pod(a_pod("old", there), "n")
    new = a_pod("new", wanted)
    scores = balanced_allocation.score(columns, new, columns.live, names)
    if not any(wanted.get(name) for name in names):
        assert scores is None
        return
    counted = [name for name in names if name != GPU or wanted.get(name)]
    after = {name: there.get(name, 0) + wanted.get(name, 0) for name in names}
    change = evenness(after, has, counted) - evenness(there, has, counted)
    assert scores is not None
    assert abs(int(scores[0]) - (50 + (50 + change) // 2)) <= (len(counted) > 2)  # sums of squares round differently


HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
LABELS = [{"app": "x"}, {"app": "x", "tier": "1"}, {"app": "y"}]


@given(
    st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(LABELS)), max_size=8),
    st.booleans(),
)
def test_default_spreading(zones: list[str | None], put: list[tuple[int, dict[str, str]]], owned: bool) -> None:
    columns = Columns()
    columns.owners.set_service("d", "s", {"selector": {"app": "x"}})
    columns.owners.set_service("d", "headless", {})
    columns.owners.set_service("other", "s", {"selector": {"tier": "1"}})
    columns.owners.set_controller("ReplicaSet", "d", "rs", {"selector": {"matchLabels": {"tier": "1"}}})
    for at, zone in enumerate(zones):
        have = {HOST: f"n{at}"} | ({ZONE: zone} if zone else {})
        columns.set_node({"metadata": {"name": f"n{at}", "labels": have}})
    for number, (at, labels) in enumerate(put):
        columns.add_pod(a_pod(f"p{number}", {"cpu": 1, "memory": 1}, labels=labels), f"n{at % len(zones)}")
    reference: Object = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "controller": True}
    wanted = {"app": "x", "tier": "1"} if owned else {"app": "x"}
    new = a_pod("new", {"cpu": 1, "memory": 1}, labels=LABELS[1], ownerReferences=[reference] if owned else [])
    scores = pod_topology_spread.score(columns, new, columns.live)
    count = [
        sum(wanted.items() <= labels.items() for at, labels in put if at % len(zones) == n) for n in range(len(zones))
    ]
    raw = []
    for n, zone in enumerate(zones):
        value = count[n] * math.log(len(zones) + 2) + 2
        if zone:
            value += sum(c for c, z in zip(count, zones, strict=True) if z == zone) * math.log(len(set(zones)) + 2) + 4
        raw.append(math.floor(value + 0.5))
    low, high = min(raw), max(raw)
    assert scores is not None
    assert [int(scores[columns.rows[f"n{n}"]]) for n in range(len(zones))] == [
        100 * (high + low - v) // high for v in raw
    ]


def test_nobody_spreads_what_nobody_claims() -> None:
    columns = Columns()
    columns.set_node({"metadata": {"name": "n", "labels": {HOST: "n"}}})
    stray = a_pod("p", {"cpu": 1, "memory": 1}, labels={"app": "x"})
    assert pod_topology_spread.score(columns, stray, columns.live) is None
    columns.owners.set_service("d", "s", {"selector": {"app": "x"}})
    assert pod_topology_spread.score(columns, stray, columns.live) is not None
    columns.owners.set_service("d", "s", None)
    assert pod_topology_spread.score(columns, stray, columns.live) is None


def test_a_list_of_hard_defaults_refuses() -> None:
    constraint = {"topologyKey": HOST, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    args = defaulted("PodTopologySpread", {"defaultingType": "List", "defaultConstraints": [constraint]})
    plugin = pod_topology_spread.make(args)
    columns = Columns()
    columns.owners.set_service("d", "s", {"selector": {"app": "x"}})
    for name in ("full", "empty"):
        columns.set_node({"metadata": {"name": name, "labels": {HOST: name}}})
    columns.add_pod(a_pod("old", {"cpu": 1, "memory": 1}, labels={"app": "x"}), "full")
    assert plugin.filter is not None
    rejections = plugin.filter(columns, a_pod("new", {"cpu": 1, "memory": 1}, labels={"app": "x"}))
    refused = np.logical_or.reduce([each.nodes for each in rejections])
    assert [bool(refused[columns.rows[name]]) for name in ("full", "empty")] == [True, False]
