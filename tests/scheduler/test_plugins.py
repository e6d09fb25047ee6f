"""Each plugin against a scalar version of itself, on clusters that Hypothesis makes."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api.resource import Object
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import fit_error, run_filters
from steersman.scheduler.plugins import node_resources
from steersman.scheduler.plugins.node_ports import conflict
from steersman.scheduler.plugins.taint_toleration import matches
from steersman.scheduler.podinfo import HostPort, PodInfo, Taint
from steersman.scheduler.profiles import DEFAULT
from steersman.scheduler.scheduler import decide, no_victims

KEYS, VALUES = ["zone", "disk"], ["a", "b", "3"]
EFFECTS = ["NoSchedule", "NoExecute", "PreferNoSchedule"]

taints = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from(KEYS), "effect": st.sampled_from(EFFECTS)}, optional={"value": st.sampled_from(VALUES)}
    ),
    max_size=2,
    unique_by=lambda t: (t["key"], t["effect"]),
)
nodes = st.lists(
    st.fixed_dictionaries(
        {
            "labels": st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)),
            "taints": taints,
            "cpu": st.sampled_from(["1", "2", "500m"]),
            "unschedulable": st.booleans(),
        }
    ),
    min_size=1,
    max_size=6,
)
requirements = st.fixed_dictionaries(
    {
        "key": st.sampled_from(KEYS),
        "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]),
        "values": st.lists(st.sampled_from(VALUES), min_size=1, max_size=1),
    }
)
pods = st.fixed_dictionaries(
    {
        "cpu": st.sampled_from(["100m", "600m", "1500m"]),
        "selector": st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=1),
        "terms": st.none() | st.lists(st.lists(requirements, max_size=2), min_size=1, max_size=2),
        "tolerations": st.lists(
            st.fixed_dictionaries(
                {"operator": st.sampled_from(["Exists", "Equal"])},
                optional={
                    "key": st.sampled_from(KEYS),
                    "value": st.sampled_from(VALUES),
                    "effect": st.sampled_from(EFFECTS),
                },
            ),
            max_size=2,
        ),
        "port": st.sampled_from([0, 80]),
    }
)


def node(name: str, facts: dict[str, Any]) -> Object:
    return {
        "metadata": {"name": name, "labels": facts["labels"]},
        "spec": {"taints": facts["taints"], "unschedulable": facts["unschedulable"]},
        "status": {"allocatable": {"cpu": facts["cpu"], "memory": "4Gi", "pods": "3"}},
    }


def pod(facts: dict[str, Any], uid: str = "u") -> Object:
    container: Object = {"name": "c", "resources": {"requests": {"cpu": facts["cpu"]}}}
    if facts["port"]:
        container["ports"] = [{"containerPort": 80, "hostPort": facts["port"]}]
    spec: Object = {"containers": [container], "nodeSelector": facts["selector"], "tolerations": facts["tolerations"]}
    if facts["terms"] is not None:
        terms = [{"matchExpressions": term} for term in facts["terms"]]
        required = {"nodeSelectorTerms": terms}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return {"metadata": {"uid": uid, "namespace": "default", "name": uid}, "spec": spec}


def satisfies(labels: dict[str, str], requirement: dict[str, Any]) -> bool:
    """One requirement on one node, as the API documents it."""
    value, wanted = labels.get(requirement["key"]), requirement["values"]
    match requirement["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    if value is None or not value.isdecimal() or not wanted[0].isdecimal():
        return False
    return int(value) > int(wanted[0]) if requirement["operator"] == "Gt" else int(value) < int(wanted[0])


def naive(facts: dict[str, Any], wanted: dict[str, Any], info: PodInfo, here: list[PodInfo]) -> bool:
    """Whether a node suits a pod, one rule after the other."""
    unschedulable = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
    if facts["unschedulable"] and not any(matches(t, unschedulable) for t in wanted["tolerations"]):
        return False
    for each in facts["taints"]:
        taint = Taint(each["key"], each.get("value", ""), each["effect"])
        if taint.effect != "PreferNoSchedule" and not any(matches(t, taint) for t in wanted["tolerations"]):
            return False
    if any(facts["labels"].get(key) != value for key, value in wanted["selector"].items()):
        return False
    terms = wanted["terms"]
    if terms is not None and not any(term and all(satisfies(facts["labels"], r) for r in term) for term in terms):
        return False
    if any(conflict(mine, other) for mine in info.ports for each in here for other in each.ports):
        return False
    milli = {"1": 1000, "2": 2000, "500m": 500}[facts["cpu"]]
    used = sum(each.requests["cpu"] for each in here)
    return len(here) < 3 and info.requests["cpu"] <= milli - used


@settings(max_examples=150, deadline=None)
@given(nodes, pods, st.lists(st.tuples(st.integers(0, 5), pods), max_size=4))
def test_masks_agree_with_the_naive_scheduler(
    cluster: list[dict[str, Any]], wanted: dict[str, Any], placed: list[tuple[int, dict[str, Any]]]
) -> None:
    columns = Columns()
    for at, facts in enumerate(cluster):
        columns.set_node(node(f"n{at}", facts))
    here: dict[str, list[PodInfo]] = {name: [] for name in columns.rows}
    for number, (at, facts) in enumerate(placed):
        name = f"n{at % len(cluster)}"
        info = podinfo.read(pod(facts, f"p{number}"))
        columns.add_pod(info, name)
        here[name].append(info)
    info = podinfo.read(pod(wanted))
    expected = {f"n{at}" for at, facts in enumerate(cluster) if naive(facts, wanted, info, here[f"n{at}"])}
    feasible = run_filters(DEFAULT.filters, columns, info).feasible
    assert {columns.names[row] for row in np.flatnonzero(feasible)} == expected
    decision = decide(columns, info, DEFAULT, Random(0))
    assert (
        decision.node in expected if expected else decision.message.startswith(f"0/{len(cluster)} nodes are available:")
    )


EMPTY = {"labels": {}, "taints": [], "cpu": "1", "unschedulable": False}
PLAIN = {"cpu": "600m", "selector": {}, "terms": None, "tolerations": [], "port": 0}


def test_rows_are_reused_and_homeless_pods_wait() -> None:
    columns = Columns()
    columns.add_pod(podinfo.read(pod(PLAIN)), "later")
    columns.set_node(node("gone", EMPTY))
    columns.remove_node("gone")
    columns.set_node(node("later", EMPTY))
    assert columns.rows == {"later": 0}
    assert columns.requested["cpu"][0] == 600
    columns.remove_node("later")
    columns.set_node(node("later", EMPTY))
    assert columns.requested["cpu"][0] == 600
    columns.remove_pod("u")
    columns.remove_pod("u")
    assert columns.requested["cpu"][0] == 0


def test_growing_keeps_what_is_known() -> None:
    columns = Columns()
    for number in range(100):
        columns.set_node(node(f"n{number}", {**EMPTY, "labels": {"zone": str(number % 3)}}))
        columns.add_pod(podinfo.read(pod(PLAIN, f"p{number}")), f"n{number}")
    assert len(columns) == 100
    assert all(columns.requested["cpu"][columns.rows[f"n{n}"]] == 600 for n in range(100))


def test_the_emptier_node_wins() -> None:
    columns = Columns()
    columns.set_node(node("full", {**EMPTY, "cpu": "2"}))
    columns.set_node(node("empty", {**EMPTY, "cpu": "2"}))
    columns.add_pod(podinfo.read(pod(PLAIN, "other")), "full")
    assert decide(columns, podinfo.read(pod(PLAIN)), DEFAULT, Random(0)).node == "empty"


def test_the_words_of_a_pod_that_fits_nowhere() -> None:
    columns = Columns()
    columns.set_node(node("small", {**EMPTY, "cpu": "500m"}))
    columns.set_node(node("closed", {**EMPTY, "unschedulable": True}))
    decision = decide(columns, podinfo.read(pod(PLAIN)), DEFAULT, Random(0))
    assert decision.verdict is not None
    assert f"{decision.message} {no_victims(columns, decision.verdict)}" == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. "
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )
    assert fit_error(0, {}) == "no nodes available to schedule pods"


def test_host_ports_on_one_address_only_clash_there() -> None:
    assert conflict(HostPort("TCP", "0.0.0.0", 80), HostPort("TCP", "10.0.0.1", 80))
    assert not conflict(HostPort("TCP", "10.0.0.2", 80), HostPort("TCP", "10.0.0.1", 80))
    assert not conflict(HostPort("UDP", "0.0.0.0", 80), HostPort("TCP", "0.0.0.0", 80))


@given(st.integers(1, 2**45), st.integers(0, 2**45), st.integers(1, 256000), st.integers(0, 300000))
def test_free_shares_are_those_of_whole_numbers(memory: int, used: int, cpu: int, busy: int) -> None:
    columns = Columns()
    made = node("n", EMPTY)
    made["status"]["allocatable"] = {"cpu": f"{cpu}m", "memory": str(memory), "pods": "3"}
    columns.set_node(made)
    wanted = pod({**PLAIN, "cpu": f"{busy}m"})
    wanted["spec"]["containers"][0]["resources"]["requests"]["memory"] = str(used)
    scores = node_resources.weighted(columns, podinfo.read(wanted))
    assert scores is not None
    shares = [max(have - taken, 0) * 100 // have for have, taken in ((cpu, busy), (memory, used))]
    assert scores[0] == sum(shares) // 2
