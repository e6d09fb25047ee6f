"""`steer why`: the numbers of the decision itself, and the words for people."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from steersman.api.resource import PODS, SERVICEACCOUNTS
from steersman.cli.output import Failure
from steersman.cli.why import _ask, _name, lines
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.lib.clock import SystemClock
from steersman.lib.http.server import Server
from steersman.lib.tasks import Tasks
from steersman.scheduler import podinfo, why
from steersman.scheduler.columns import Columns
from steersman.scheduler.endpoint import Endpoint
from steersman.scheduler.profiles import DEFAULT
from steersman.scheduler.scheduler import Scheduler, decide
from steersman.scheduler.why import Memory, Worked
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node, until, virtual


def info(name: str, cpu: str) -> podinfo.PodInfo:
    made = a_pod(name, cpu)
    made["metadata"] |= {"uid": name, "namespace": "d"}
    return podinfo.read(made)


def test_the_scores_add_up_to_the_choice() -> None:
    columns = Columns()
    for name, cpu in (("small", "50m"), ("mid", "1"), ("large", "4")):
        columns.set_node(a_node(name, cpu))
    pod = info("p", "100m")
    decision = decide(columns, pod, DEFAULT, Random(1))
    assert decision.verdict is not None
    worked = Worked(decision.verdict, decision.parts, decision.node, columns.comings)
    memory = Memory()
    memory.keep("p", worked)
    assert memory.find("p", columns) is worked
    told = why.tell(columns, pod, worked, remembered=True)
    nodes = {each["name"]: each for each in told["nodes"]}
    assert (nodes["small"]["plugin"], nodes["small"]["reason"]) == ("NodeResourcesFit", "Insufficient cpu")
    assert nodes[told["node"]]["score"] == max(each["score"] for each in nodes.values() if "score" in each)
    assert nodes["large"]["scores"]["NodeResourcesFit"] == {"score": 96, "weight": 1}
    columns.add_pod(pod, decision.node)
    again = why.work_out(columns, pod, DEFAULT, decision.node)
    assert why.tell(columns, pod, again, remembered=False)["nodes"] == told["nodes"]
    assert columns.pod("p", decision.node) is pod
    columns.remove_node("small")
    assert memory.find("p", columns) is None


def test_the_scheduler_tells_of_pods_that_it_placed_and_that_it_could_not() -> None:
    async def body() -> None:
        async with ApiCluster() as cluster, Tasks() as tasks:
            client, clock = cluster.client, cluster.clock
            recorder = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="h")
            scheduler = Scheduler(client, Informers(client, clock=clock, tasks=tasks), recorder, clock, Random(1))
            tasks.spawn(scheduler.run(), "scheduler")
            await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
            for name in ("a", "b"):
                await add_node(cluster, a_node(name))
            await client.create(PODS, a_pod("fits"), "default")
            await client.create(PODS, a_pod("huge", "9"), "default")
            await client.create(PODS, a_pod("other", schedulerName="somebody"), "default")
            await until(cluster, "fits", lambda pod: bool(pod["spec"].get("nodeName")))
            await until(cluster, "huge", lambda pod: bool((pod.get("status") or {}).get("conditions")))
            placed = scheduler.explain("default", "fits")
            assert placed is not None
            assert (placed["basis"], placed["node"] in ("a", "b"), "message" in placed) == ("decision", True, False)
            waiting = scheduler.explain("default", "huge")
            assert waiting is not None
            assert waiting["message"] == "0/2 nodes are available: 2 Insufficient cpu."
            assert waiting["queue"] == {"place": "parked", "attempts": 1, "plugins": ["NodeResourcesFit"]}
            text = "\n".join(lines(waiting, 20))
            assert "2 of 2 nodes: NodeResourcesFit: Insufficient cpu" in text
            assert "parked, tried 1 times, waits for what may help against NodeResourcesFit" in text
            assert "NodeResourcesFit 92x1, NodeResourcesBalancedAllocation 72x1" in "\n".join(lines(placed, 20))
            assert scheduler.explain("default", "other") is None
            assert scheduler.explain("default", "nobody") is None

    virtual(body)


async def test_the_answer_comes_over_a_socket(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def explain(namespace: str, name: str) -> dict[str, str] | None:
        asked.append((namespace, name))
        return {"pod": name} if name == "p" else None

    async with Server(Endpoint(explain).handle, SystemClock()) as server:
        await server.listen_unix(tmp_path / "s")
        assert await _ask(tmp_path / "s", "a/b", "p") == {"pod": "p"}
        assert await _ask(tmp_path / "s", "d", "nobody") is None
    assert asked == [("a/b", "p"), ("d", "nobody")]
    with pytest.raises(Failure, match="is the cluster up"):
        await _ask(tmp_path / "none", "d", "p")


@pytest.mark.parametrize("words", [["node", "x"], ["pod"], ["pod/x", "y"], ["pod", "x", "y"], ["pod/"]])
def test_only_pods_can_be_asked_about(words: list[str]) -> None:
    with pytest.raises(Failure):
        _name(words)


def test_a_pod_is_named_as_for_kubectl() -> None:
    assert [_name(words) for words in (["pod", "x"], ["po/x"], ["pods", "x"])] == ["x", "x", "x"]
