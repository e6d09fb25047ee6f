"""Preemption: who goes, by pure choice, and the whole of it over the real API server."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api.resource import EVENTS, PODDISRUPTIONBUDGETS, PODS, PRIORITYCLASSES, Object
from steersman.scheduler import podinfo, preemption
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import run_filters
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.profiles import DEFAULT
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node, until, virtual, with_scheduler


def pod(
    name: str, priority: int, cpu: str, labels: dict[str, str] | None = None, started: str = "", **spec: object
) -> PodInfo:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    return podinfo.read(
        {
            "metadata": {"uid": name, "name": name, "namespace": "default", "labels": labels or {}},
            "spec": {"priority": priority, "containers": [container], **spec},
            "status": {"startTime": started} if started else {},
        }
    )


def chosen(
    nodes: dict[str, list[PodInfo]], new: PodInfo, budgets: list[Object] | None = None
) -> tuple[str, list[str], int] | None:
    columns = Columns()
    for name, there in nodes.items():
        columns.set_node({**a_node(name), "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
        for one in there:
            columns.add_pod(one, name)
    before = {name: sorted(columns.pods[row]) for name, row in columns.rows.items()}
    verdict = run_filters(DEFAULT.filters, columns, new)
    read = [preemption.read_budget(each) for each in budgets or []]
    found = preemption.choose(columns, new, DEFAULT.filters, verdict, read, Random(1))
    assert {name: sorted(columns.pods[row]) for name, row in columns.rows.items()} == before
    return None if found is None else (found.node, [one.name for one in found.pods], found.violations)


def budget(allowed: int) -> Object:
    spec = {"selector": {"matchLabels": {"app": "guarded"}}}
    return {"metadata": {"namespace": "default"}, "spec": spec, "status": {"disruptionsAllowed": allowed}}


def test_as_few_as_can_be() -> None:
    there = [pod("a", 1, "300m"), pod("b", 2, "300m"), pod("c", 3, "300m")]
    assert chosen({"n": there}, pod("new", 10, "400m")) == ("n", ["a"], 0)
    assert chosen({"n": there}, pod("new", 10, "600m")) == ("n", ["b", "a"], 0)


def test_nobody_of_the_same_priority_goes() -> None:
    assert chosen({"n": [pod("a", 10, "900m")]}, pod("new", 10, "400m")) is None


def test_nothing_helps_what_is_too_large() -> None:
    assert chosen({"n": [pod("a", 1, "900m")]}, pod("new", 10, "4")) is None


def test_a_node_that_room_cannot_mend_is_left() -> None:
    assert chosen({"n": [pod("a", 1, "900m")]}, pod("new", 10, "400m", nodeSelector={"disk": "ssd"})) is None


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        # the least important highest victim, then the smallest sum, then the fewest, then the latest start
        ({"m": [pod("a", 3, "900m")], "n": [pod("b", 2, "900m")]}, "n"),
        ({"m": [pod("a", 2, "500m"), pod("b", 2, "400m")], "n": [pod("c", 2, "900m")]}, "n"),
        (
            {
                "m": [pod("a", 2, "900m", started="2026-01-01T00:00:00Z")],
                "n": [pod("b", 2, "900m", started="2026-01-02T00:00:00Z")],
            },
            "n",
        ),
    ],
)
def test_the_cheapest_node(nodes: dict[str, list[PodInfo]], expected: str) -> None:
    found = chosen(nodes, pod("new", 10, "1"))
    assert found is not None and found[0] == expected


def test_budgets_are_respected_where_possible() -> None:
    guarded, free = pod("guarded", 1, "900m", {"app": "guarded"}), pod("free", 5, "900m")
    assert chosen({"m": [guarded], "n": [free]}, pod("new", 10, "1"), [budget(0)]) == ("n", ["free"], 0)
    assert chosen({"m": [guarded]}, pod("new", 10, "1"), [budget(0)]) == ("m", ["guarded"], 1)
    assert chosen({"m": [guarded], "n": [free]}, pod("new", 10, "1"), [budget(1)]) == ("m", ["guarded"], 0)


def test_pods_in_the_way_of_anti_affinity_go() -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    there = [pod("a", 1, "100m", {"app": "x"}), pod("b", 1, "100m", {"app": "y"})]
    assert chosen({"n": there}, pod("new", 10, "100m", affinity=affinity)) == ("n", ["a"], 0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from(["200m", "500m"]), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 2**30),
)
def test_what_is_remembered_is_what_is_so(comings: list[tuple[int, int, str, bool]], seed: int) -> None:
    columns, memory = Columns(), preemption.Memory()
    for number in range(4):
        columns.set_node({**a_node(f"n{number}"), "metadata": {"name": f"n{number}", "labels": {}}})
    for number, (node, priority, cpu, goes) in enumerate(comings):
        columns.add_pod(pod(f"p{number}", priority, cpu), f"n{node}")
        if goes:
            columns.remove_pod(f"p{number // 2}")
        for wanted in ("300m", "900m"):
            new = pod("new", 3, wanted)
            verdict = run_filters(DEFAULT.filters, columns, new)
            found = [
                preemption.find(
                    columns, new, DEFAULT.filters, verdict, [], Random(seed), preemption.Candidates(), remembered
                )
                for remembered in (None, memory)
            ]
            assert found[0] == found[1]


async def _classes(cluster: ApiCluster) -> None:
    for name, value in (("low", 10), ("high", 100)):
        await cluster.client.create(PRIORITYCLASSES, {"metadata": {"name": name}, "value": value})


def _prior(name: str, cpu: str, priority: int, **spec: object) -> Object:
    return a_pod(name, cpu, priority=priority, **spec)


def test_a_more_important_pod_takes_the_place() -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("n"))
        await cluster.client.create(PODS, _prior("old", "800m", 10), "default")
        await until(cluster, "old", lambda pod: bool(pod["spec"].get("nodeName")))
        await cluster.client.create(PODS, _prior("new", "800m", 100), "default")
        waiting = await until(cluster, "new", lambda pod: bool(pod["status"].get("nominatedNodeName")))
        assert waiting["status"]["nominatedNodeName"] == "n"
        old = await until(cluster, "old", lambda pod: "deletionTimestamp" in pod["metadata"])
        target = next(one for one in old["status"]["conditions"] if one["type"] == "DisruptionTarget")
        assert (target["status"], target["reason"]) == ("True", "PreemptionByScheduler")
        assert target["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
        await cluster.client.create(PODS, _prior("middle", "800m", 50), "default")  # must not slip in
        await cluster.client.delete(PODS, "old", "default", grace_seconds=0)
        await until(cluster, "new", lambda pod: pod["spec"].get("nodeName") == "n")
        assert not (await cluster.client.get(PODS, "middle", "default"))["spec"].get("nodeName")
        await cluster.clock.sleep(1)
        events = {e["reason"]: e["message"] for e in (await cluster.client.list(EVENTS, "default")).items}
        assert events["Preempted"] == f"Preempted by pod {waiting['metadata']['uid']} on node n"

    virtual(lambda: with_scheduler(body))


def test_who_must_not_preempt_says_so() -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("n"))
        await cluster.client.create(PODS, _prior("old", "800m", 10), "default")
        await until(cluster, "old", lambda pod: bool(pod["spec"].get("nodeName")))
        await cluster.client.create(PODS, _prior("new", "800m", 100, preemptionPolicy="Never"), "default")
        pod = await until(cluster, "new", lambda pod: bool(pod["status"].get("conditions")))
        message = next(one["message"] for one in pod["status"]["conditions"] if one["type"] == "PodScheduled")
        text = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, "
        text += "preemption: not eligible due to preemptionPolicy=Never."
        assert message == text

    virtual(lambda: with_scheduler(body))


def test_a_budget_guards_against_preemption_elsewhere() -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("m"))
        guarded = _prior("guarded", "800m", 10)
        guarded["metadata"]["labels"] = {"app": "guarded"}
        await cluster.client.create(PODS, guarded, "default")
        await until(cluster, "guarded", lambda pod: bool(pod["spec"].get("nodeName")))
        made = await cluster.client.create(
            PODDISRUPTIONBUDGETS,
            {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}},
            "default",
        )
        assert made["status"].get("disruptionsAllowed", 0) == 0
        await add_node(cluster, a_node("n"))
        await cluster.client.create(PODS, _prior("free", "800m", 20), "default")
        await until(cluster, "free", lambda pod: pod["spec"].get("nodeName") == "n")
        await cluster.client.create(PODS, _prior("new", "800m", 100), "default")
        pod = await until(cluster, "new", lambda pod: bool(pod["status"].get("nominatedNodeName")))
        assert pod["status"]["nominatedNodeName"] == "n"

    virtual(lambda: with_scheduler(body))
