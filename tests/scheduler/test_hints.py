"""Which events wake which pods: never too few, and without asking those whom an event does not concern."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import msgspec.structs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steersman.api.resource import NODES, PODS, Object
from steersman.lib.clock import LoopClock
from steersman.scheduler import kept, podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Event, Kind
from steersman.scheduler.kept import Shared
from steersman.scheduler.nominations import Nominations
from steersman.scheduler.observer import changes
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.profiles import DEFAULT
from steersman.scheduler.queue import PARKED_MOST, Queue
from steersman.scheduler.scheduler import decide
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node, until, virtual, with_scheduler

HOST, ZONE = "kubernetes.io/hostname", "zone"
SELECT = {"matchLabels": {"app": "x"}}
HARD = "requiredDuringSchedulingIgnoredDuringExecution"
SPECS: list[Object] = [
    {},
    {"nodeSelector": {"disk": "ssd"}},
    {"tolerations": [{"key": "k", "operator": "Exists"}]},
    {"affinity": {"podAffinity": {HARD: [{"topologyKey": ZONE, "labelSelector": SELECT}]}}},
    {"affinity": {"podAntiAffinity": {HARD: [{"topologyKey": ZONE, "labelSelector": SELECT}]}}},
    {"topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": SELECT}
    ]},
    {"nodeName": "n1"},
]  # fmt: skip

nodes = st.fixed_dictionaries(
    {
        "labels": st.fixed_dictionaries({}, optional={ZONE: st.sampled_from("12"), "disk": st.just("ssd")}),
        "taint": st.booleans(),
        "cordoned": st.booleans(),
        "cpu": st.sampled_from(["100m", "1"]),
    }
)
pods = st.fixed_dictionaries(
    {
        "spec": st.sampled_from(SPECS),
        "labels": st.sampled_from([{}, {"app": "x"}]),
        "cpu": st.sampled_from(["50m", "600m"]),
        "port": st.sampled_from([0, 0, 80]),
    }
)


PLAIN: dict[str, Any] = {"taint": False, "cordoned": False, "cpu": "100m"}
QUIET: dict[str, Any] = {"spec": {}, "labels": {}, "cpu": "50m", "port": 0}


def node(name: str, facts: dict[str, Any]) -> Object:
    taints = [{"key": "k", "effect": "NoSchedule"}] if facts["taint"] else []
    return {
        "metadata": {"name": name, "labels": {HOST: name, **facts["labels"]}},
        "spec": {"taints": taints, "unschedulable": facts["cordoned"]},
        "status": {"allocatable": {"cpu": facts["cpu"], "memory": "4Gi", "pods": "3"}},
    }


def pod(uid: str, facts: dict[str, Any]) -> PodInfo:
    container: Object = {"name": "c", "resources": {"requests": {"cpu": facts["cpu"]}}}
    if facts["port"]:
        container["ports"] = [{"containerPort": 80, "hostPort": facts["port"]}]
    meta = {"uid": uid, "name": uid, "namespace": "d", "labels": facts["labels"]}
    return podinfo.read({"metadata": meta, "spec": {"containers": [container], **facts["spec"]}})


def woken(columns: Columns, info: PodInfo, refused: set[str], event: Event) -> bool:
    """Whether the hints of those who refused a pod let an event wake it."""
    for plugin in DEFAULT.filters:
        if plugin.name in refused and plugin.hints is not None:
            hint = plugin.hints.get(event.kind)
            if hint is not None and hint(columns, info, event):
                return True
    return not refused


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    st.lists(nodes, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), pods), max_size=4),
    pods,
    st.sampled_from(["node", "new node", "gone node", "pod", "gone pod", "relabelled pod"]),
    nodes,
    pods,
)
@example(  # the only node with one of its kind leaves the zone
    [{"labels": {ZONE: "1"}, **PLAIN}, {"labels": {ZONE: "2"}, **PLAIN}, {"labels": {}, **PLAIN}],
    [(0, QUIET), (0, QUIET), (0, QUIET | {"labels": {"app": "x"}})],
    QUIET | {"spec": SPECS[3], "labels": {"app": "x"}},
    "node",
    {"labels": {}, **PLAIN},
    QUIET,
)
def test_what_lets_a_pod_in_wakes_it(
    made: list[dict[str, Any]],
    put: list[tuple[int, dict[str, Any]]],
    wanted: dict[str, Any],
    what: str,
    facts: dict[str, Any],
    other: dict[str, Any],
) -> None:
    columns = Columns()
    cluster = [node(f"n{at}", each) for at, each in enumerate(made)]
    for each in cluster:
        columns.set_node(each)
    there = [(f"n{at % len(cluster)}", pod(f"p{number}", each)) for number, (at, each) in enumerate(put)]
    for name, one in there:
        columns.add_pod(one, name)
    info = pod("u", wanted)
    before = decide(columns, info, DEFAULT, Random(0))
    if before.node:
        return
    refused = before.verdict.plugins() if before.verdict is not None else set()
    events: list[Event] = []
    if what in ("node", "new node"):
        old = cluster[0] if what == "node" else None
        new = node("n0" if old else "new", facts)
        columns.set_node(new)
        events = [Event(kind, old=old, new=new, node=new["metadata"]["name"]) for kind in changes(old, new)]
    elif what == "gone node":
        columns.remove_node("n0")
        events = [Event("node removed", old=cluster[0], node="n0")]
    elif what == "pod":
        came = pod("came", other)
        columns.add_pod(came, "n0")
        events = [Event("pod came", pod=came, node="n0")]
    elif there:
        name, one = there[0]
        if what == "gone pod":
            columns.remove_pod(one.uid)
            events = [Event("pod freed", pod=one, node=name)]
        else:
            now = copy.deepcopy(one.pod)
            now["metadata"]["labels"] = other["labels"]
            changed = podinfo.read(now)
            columns.add_pod(changed, name)
            events = [Event("pod changed", pod=changed, was=one, node=name)]
    after = decide(columns, info, DEFAULT, Random(0))
    if after.node:
        assert any(woken(columns, info, refused, event) for event in events)


def info(uid: str, **spec: object) -> PodInfo:
    made = a_pod(uid, **spec)
    made["metadata"] |= {"uid": uid, "namespace": "d", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return podinfo.read(made)


def test_an_event_costs_only_those_whom_it_concerns() -> None:
    async def body() -> None:
        asked: list[tuple[str, str]] = []

        def ask(pod: PodInfo, plugin: str, event: Event) -> bool:
            asked.append((pod.uid, plugin))
            return False

        kinds: dict[str, list[Kind]] = {"NodeResourcesFit": ["pod freed"], "TaintToleration": ["node taints"]}
        queue = Queue(LoopClock(), interests=kinds, asked=ask)
        for number in range(1000):
            queue.put(info(f"p{number}"))
            await queue.pop()
            queue.failed(f"p{number}", ["NodeResourcesFit"] if number else ["TaintToleration"])
        queue.tell(Event("node labels"))
        queue.tell(Event("pod came"))
        assert asked == []
        queue.tell(Event("node taints"))
        assert asked == [("p0", "TaintToleration")]

    virtual(body)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["100m", "600m", "900m"]), st.integers(0, 2), st.integers(0, 3)), max_size=8),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from(["100m", "500m"])), max_size=6),
    st.integers(0, 5),
)
def test_one_is_asked_for_all_alike_to_the_same_end(
    waiting: list[tuple[str, int, int]], there: list[tuple[int, int, str]], gone: int
) -> None:
    """The same pods are woken as when each is asked for itself; `waiting`: what, how important, nominated to which."""

    async def woken_of(*, grouped: bool) -> tuple[set[str], int]:
        columns, asked = Columns(), 0
        for number in range(3):
            columns.set_node(a_node(f"n{number}", cpu="1"))
        nominations = Nominations(columns)
        plugin = next(plugin for plugin in DEFAULT.filters if plugin.name == "NodeResourcesFit")
        assert plugin.hints is not None and plugin.alike is not None
        hints, alike = plugin.hints, plugin.alike

        def ask(pod: PodInfo, name: str, event: Event) -> bool:
            nonlocal asked
            asked += 1
            return hints[event.kind](columns, pod, event)

        queue = Queue(LoopClock(), asked=ask, alike=lambda pod, name: alike(pod) if grouped else None)
        for number, (cpu, priority, node) in enumerate(waiting):
            one = info(f"w{number}", cpu=cpu, priority=priority)
            queue.put(one)
            await queue.pop()
            queue.failed(one.uid, ["NodeResourcesFit"])
            if node < 3:
                nominations.add(one, f"n{node}")
        placed = [
            (info(f"p{number}", cpu=cpu, priority=priority), f"n{node}")
            for number, (node, priority, cpu) in enumerate(there)
        ]
        for one, node in placed:
            columns.add_pod(one, node)
        if placed:
            left, node = placed[gone % len(placed)]
            columns.remove_pod(left.uid)
            queue.tell(Event("pod freed", pod=left, node=node, awaited=columns.awaited(node)))
        states = {f"w{number}": queue.state(f"w{number}") for number in range(len(waiting))}
        return {uid for uid, state in states.items() if state is not None and state["place"] != "parked"}, asked

    async def body() -> None:
        (one_by_one, all_asked), (together, asked) = await woken_of(grouped=False), await woken_of(grouped=True)
        assert together == one_by_one
        assert asked <= all_asked

    virtual(body)


def test_a_heartbeat_is_no_change() -> None:
    old = a_node("n")
    new = {**old, "status": {**old["status"], "conditions": [{"type": "Ready"}]}}
    assert changes(old, new) == []
    assert changes(None, new) == ["node added"]
    assert changes(old, {**old, "spec": {"unschedulable": True}}) == ["node taints"]


def test_a_parked_pod_is_tried_again_some_day() -> None:
    async def body() -> None:
        clock = LoopClock()
        queue = Queue(clock, interests={"NodeName": []})
        queue.put(info("p"))
        await queue.pop()
        queue.failed("p", ["NodeName"])
        began = clock.monotonic()
        assert (await queue.pop()).uid == "p"
        assert clock.monotonic() - began == pytest.approx(PARKED_MOST, abs=0.01)

    virtual(body)


def test_what_happens_while_a_pod_is_tried_is_not_missed() -> None:
    async def body() -> None:
        clock = LoopClock()
        queue = Queue(clock, interests={"NodeName": []})
        queue.put(info("p"))
        await queue.pop()
        queue.tell(Event("node added"))
        queue.failed("p", ["NodeName"])
        began = clock.monotonic()
        assert (await queue.pop()).uid == "p"
        assert clock.monotonic() == began

    virtual(body)


def test_nominated_pods_hold_their_room_against_the_less_important() -> None:
    columns = Columns()
    columns.set_node(a_node("n", "1"))
    nominations = Nominations(columns)
    urgent = info("urgent", priority=10)
    nominations.add(urgent, "n")
    assert columns.requested["cpu"][0] == 100
    for priority, there in ((5, 100), (10, 100), (20, 0)):
        with nominations.aside(info("other", priority=priority)):
            assert columns.requested["cpu"][0] == there
        assert columns.requested["cpu"][0] == 100
    with nominations.aside(urgent):
        assert columns.requested["cpu"][0] == 0
    nominations.remove("urgent")
    assert columns.requested["cpu"][0] == 0


def test_gates_open_taints_go_and_cordons_end() -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, a_node("n"))
        gated = a_pod("gated", schedulingGates=[{"name": "a.b/wait"}])
        made = await cluster.client.create(PODS, gated, "default")
        await cluster.clock.sleep(5)
        made["spec"].pop("schedulingGates")
        await cluster.client.update(PODS, made)
        await until(cluster, "gated", lambda pod: bool(pod["spec"].get("nodeName")))
        there = await cluster.client.get(NODES, "n")
        there["spec"]["unschedulable"] = True
        there = await cluster.client.update(NODES, there)
        await cluster.client.create(PODS, a_pod("waits"), "default")
        pod = await until(cluster, "waits", lambda pod: bool((pod.get("status") or {}).get("conditions")))
        assert "1 node(s) were unschedulable" in pod["status"]["conditions"][0]["message"]
        there["spec"].pop("unschedulable")
        there["spec"].pop("taints", None)
        began = cluster.clock.monotonic()
        await cluster.client.update(NODES, there)
        await until(cluster, "waits", lambda pod: bool(pod["spec"].get("nodeName")))
        assert cluster.clock.monotonic() - began < 2

    virtual(lambda: with_scheduler(body))


@given(pods)
def test_what_is_left_of_a_pod_says_the_same(facts: dict[str, Any]) -> None:
    whole = pod("u", facts).pod
    whole["spec"]["nodeName"] = "n1"
    whole["spec"]["containers"][0] |= {"env": [{"name": "A"}], "image": "i"}
    whole["metadata"]["annotations"] = {"a": "b"}
    whole["status"] = {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": []}
    whole["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    share, body = Shared(), msgspec.json.encode(whole)
    left = kept.lean(body, share)
    plain = podinfo.read(left)
    assert plain == msgspec.structs.replace(podinfo.read(whole), pod=left)
    shared = share.info(plain)
    for each in msgspec.structs.fields(PodInfo):
        assert (getattr(shared, each.name) or None) == (getattr(plain, each.name) or None)
    assert share.info(podinfo.read(kept.lean(memoryview(body), share))).requests is shared.requests
    assert "env" not in left["spec"]["containers"][0] and "annotations" not in left["metadata"]
    del whole["metadata"]["managedFields"]
    assert kept.whole(body) == whole
    for text in ('"nodeName":"n1"', "n1"):  # waits, whatever its annotations say
        whole["spec"]["nodeName"], whole["metadata"]["annotations"] = "", {"a": text, "nodeName": text}
        assert kept.lean(msgspec.json.encode(whole), share) == whole
