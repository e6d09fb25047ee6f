"""Extenders over real HTTP: what they may say, and what of it is believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from steersman.api.resource import EVENTS, NODES, PODS, SERVICEACCOUNTS, Object
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.lib.clock import SystemClock
from steersman.lib.http.limits import Limits
from steersman.lib.http.messages import Request, Response
from steersman.lib.http.server import Server
from steersman.lib.tasks import Tasks
from steersman.scheduler.configuration import Configuration
from steersman.scheduler.extenders import Extender, ExtenderError, Extenders, make_all
from steersman.scheduler.podinfo import PodInfo, read
from steersman.scheduler.preemption import Victims
from steersman.scheduler.scheduler import Scheduler
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node

Answer = Callable[[str, Any], Any]


class Served:
    """An extender that answers what it is told to; `asked` are its requests, by verb."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._answer = answer
        self._server = Server(self._handle, SystemClock(), limits=Limits(drain_seconds=0.1))

    async def _handle(self, request: Request) -> Response:
        verb, body = request.path.rpartition("/")[2], json.loads(request.body)
        self.asked.append((verb, body))
        said = self._answer(verb, body)
        if isinstance(said, asyncio.Event):
            await said.wait()
        if isinstance(said, Response):
            return said
        return Response(200, [("content-type", "application/json")], said if isinstance(said, bytes) else _json(said))

    async def __aenter__(self) -> Served:
        self.url = f"http://127.0.0.1:{await self._server.listen('127.0.0.1', 0)}/ext"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


VERBS = {"filterVerb": "filter", "prioritizeVerb": "prioritize", "preemptVerb": "preempt", "weight": 1}


def info(name: str = "p") -> PodInfo:
    made = a_pod(name)
    made["metadata"] |= {"uid": name, "namespace": "default"}
    return read(made)


NODES_ASKED: dict[str, Object] = {name: a_node(name) for name in ("a", "b")}


async def asked(answer: Answer, call: Callable[[Extender], Awaitable[Any]], **config: Any) -> Any:
    """What one call returns, or the text of its ExtenderError."""
    async with Served(answer) as served:
        extender = Extender({"urlPrefix": served.url, **VERBS, **config})
        try:
            return await call(extender)
        except ExtenderError as error:
            return str(error).replace(served.url, "URL")
        finally:
            await extender.close()


def filtered(extender: Extender) -> Awaitable[Any]:
    return extender.filter(info(), NODES_ASKED)


def scored(extender: Extender) -> Awaitable[Any]:
    return extender.prioritize(info(), NODES_ASKED)


async def test_nodes_by_name_and_whole() -> None:
    said = await asked(lambda _, body: {"NodeNames": body["NodeNames"][:1]}, filtered, nodeCacheCapable=True)
    assert said.nodes == {"a"}
    found = await asked(
        lambda _, body: {"nodes": {"items": body["Nodes"]["items"][1:]}, "failedNodes": {"a": "no"}}, filtered
    )
    assert (found.nodes, found.failed) == ({"b"}, {"a": "no"})


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            {"NodeNames": ["a", "x"]},
            'extender "URL" claims a filtered node "x" which is not found in the input node list',
        ),
        ({"Error": "on strike"}, "on strike"),
        (Response(500, [], b""), "failed filter with extender at URL URL/filter, code 500"),
        (b"{", "extender at URL URL/filter: Input data was truncated"),
        (b"[1]", "extender URL: the answer is not an object"),
        ({"NodeNames": 3}, "extender URL: the answer is not a list"),
        ({"NodeNames": [], "FailedNodes": [1]}, "extender URL: the answer is not an object"),
        (b'{"NodeNames": [' + b"[" * 100_000, "extender at URL URL/filter: maximum recursion depth exceeded"),
    ],
)
async def test_filters_that_lie(said: Any, why: str) -> None:
    assert str(await asked(lambda *_: said, filtered, nodeCacheCapable=True)).startswith(why)


async def test_neither_names_nor_nodes_are_no_nodes() -> None:
    assert (await asked(lambda *_: {}, filtered, nodeCacheCapable=True)).nodes == frozenset()
    assert (await asked(lambda *_: None, filtered)).nodes == frozenset()


async def test_who_does_not_answer_in_time() -> None:
    never = asyncio.Event()
    why = await asked(lambda *_: never, filtered, httpTimeout="50ms")
    never.set()
    assert why == ('Post "URL/filter": context deadline exceeded (Client.Timeout exceeded while awaiting headers)')
    extender = Extender({"urlPrefix": "http://127.0.0.1:1", **VERBS})
    with pytest.raises(ExtenderError, match=r'^Post "http://127'):
        await filtered(extender)


@pytest.mark.parametrize(
    ("said", "scores"),
    [
        ([{"Host": "a", "Score": 3}, {"host": "b", "score": 10}, {"Host": "x", "Score": 10}], {"a": 60.0, "b": 200.0}),
        ([], {}),
        (b'[{"Host": "a", "Score": NaN}]', "extender at URL URL/prioritize: JSON is malformed"),
        ([{"Host": "a", "Score": 1.5}], "json: cannot unmarshal number into Go struct field HostPriority.Score"),
        ([{"Host": "a", "Score": 2**63}], "json: cannot unmarshal number into Go struct field HostPriority.Score"),
        ([{"Host": "a", "Score": "3"}], "json: cannot unmarshal number into Go struct field HostPriority.Score"),
        ({"Host": "a"}, "extender URL: the answer is not a list"),
    ],
)
async def test_scores(said: Any, scores: Any) -> None:
    found = await asked(lambda *_: said, scored, weight=2)
    assert found == scores if isinstance(scores, dict) else str(found).startswith(scores)


async def test_preemption_is_narrowed_and_never_widened() -> None:
    victims, other = info("victim"), info("other")
    candidates = [Victims("a", (victims,), 1), Victims("b", (other,), 0)]
    there = {"a": {"victim": victims}, "b": {"other": other}}

    async def ask(answer: Any, **config: Any) -> Any:
        return await asked(lambda *_: answer, lambda each: each.preempt(info(), candidates, there), **config)

    narrowed = {"NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "victim"}], "NumPDBViolations": 2}}}
    assert await ask(narrowed, nodeCacheCapable=True) == [Victims("a", (victims,), 2)]
    assert await ask({}) == []
    strange = {"NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "other"}]}}}
    assert "but the pod is not found on that node" in await ask(strange)
    assert 'nodeinfo not found for node name "x"' in await ask({"NodeNameToMetaVictims": {"x": {"Pods": []}}})
    nobody = {"NodeNameToMetaVictims": {"a": {"Pods": []}}}
    assert await ask(nobody) == 'expected at least one victim pod on node "a"'
    assert await ask(nobody, ignorable=True) == []


def test_managed_resources_say_who_is_asked() -> None:
    extender = Extender({"urlPrefix": "http://x", "managedResources": [{"name": "example.com/gpu"}]})
    assert not extender.interested(info())
    wants = a_pod("p")
    wants["metadata"] |= {"uid": "p", "namespace": "d"}
    wants["spec"]["containers"][0]["resources"]["limits"] = {"example.com/gpu": "1"}
    assert extender.interested(read(wants))
    assert Extender({"urlPrefix": "http://x"}).interested(info())


async def scheduled(answer: Answer, body: Callable[[ApiCluster, Served], Awaitable[None]], **config: Any) -> None:
    """The scheduler with one extender, in real time."""
    async with Served(answer) as served, ApiCluster() as cluster, Tasks() as tasks:
        client, clock = cluster.client, cluster.clock
        recorder = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="h")
        informers = Informers(client, clock=clock, tasks=tasks)
        configuration = Configuration(extenders=[{"urlPrefix": served.url, **config}])
        scheduler = Scheduler(client, informers, recorder, clock, Random(1), configuration)
        tasks.spawn(scheduler.run(), "scheduler")
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
        for name in ("a", "b", "c"):
            await add_node(cluster, a_node(name))
        await body(cluster, served)


async def pod_when(cluster: ApiCluster, good: Callable[[Object], bool]) -> Object:
    async with asyncio.timeout(20):
        while True:
            pod = await cluster.client.get(PODS, "p", "default")
            if good(pod):
                return pod
            await cluster.clock.sleep(0.01)


async def test_the_extender_that_scores_and_filters_decides() -> None:
    def answer(verb: str, body: Any) -> Any:
        if verb == "filter":
            return {"NodeNames": [name for name in body["NodeNames"] if name != "a"], "FailedNodes": {"a": "not today"}}
        return [{"Host": name, "Score": 10 if name == "c" else 0} for name in body["NodeNames"]]

    async def body(cluster: ApiCluster, served: Served) -> None:
        await cluster.client.create(PODS, a_pod("p"), "default")
        pod = await pod_when(cluster, lambda pod: bool(pod["spec"].get("nodeName")))
        assert pod["spec"]["nodeName"] == "c"
        assert [verb for verb, _ in served.asked] == ["filter", "prioritize"]

    await scheduled(answer, body, **VERBS, nodeCacheCapable=True)


async def test_all_nodes_refused_and_an_extender_in_trouble() -> None:
    good = asyncio.Event()

    def answer(verb: str, body: Any) -> Any:
        if good.is_set():
            return {"NodeNames": body["NodeNames"]}
        if len(body["NodeNames"]) == 3:
            return {"NodeNames": [], "FailedNodes": dict.fromkeys(body["NodeNames"], "closed")}
        return Response(503, [], b"")

    async def body(cluster: ApiCluster, served: Served) -> None:
        await cluster.client.create(PODS, a_pod("p"), "default")
        pod = await pod_when(cluster, lambda pod: bool((pod.get("status") or {}).get("conditions")))
        assert pod["status"]["conditions"][0]["message"].startswith(
            "0/3 nodes are available: 3 closed. no new claims to deallocate, preemption:"
        )
        await cluster.client.delete(NODES, "c")  # any event wakes what an extender refused
        pod = await pod_when(cluster, lambda pod: pod["status"]["conditions"][0]["reason"] == "SchedulerError")
        assert pod["status"]["conditions"][0]["message"].endswith("code 503")
        good.set()
        await pod_when(cluster, lambda pod: bool(pod["spec"].get("nodeName")))

    await scheduled(answer, body, filterVerb="filter", nodeCacheCapable=True)


async def test_an_ignorable_extender_is_done_without() -> None:
    async def body(cluster: ApiCluster, served: Served) -> None:
        await cluster.client.create(PODS, a_pod("p"), "default")
        await pod_when(cluster, lambda pod: bool(pod["spec"].get("nodeName")))
        assert [verb for verb, _ in served.asked] == ["filter", "prioritize"]

    await scheduled(lambda *_: Response(500, [], b""), body, **VERBS, ignorable=True)


async def test_an_extender_binds() -> None:
    async def body(cluster: ApiCluster, served: Served) -> None:
        await cluster.client.create(PODS, a_pod("p"), "default")
        async with asyncio.timeout(20):
            while not served.asked:
                await cluster.clock.sleep(0.01)
        verb, said = served.asked[0]
        assert (verb, said["PodName"], said["PodNamespace"], said["Node"] in "abc") == ("bind", "p", "default", True)
        async with asyncio.timeout(20):
            while True:
                events = (await cluster.client.list(EVENTS, "default")).items
                if any("out of glue" in event["message"] for event in events):
                    break
                await cluster.clock.sleep(0.01)

    await scheduled(lambda *_: {"Error": "out of glue"}, body, bindVerb="bind")


async def test_who_is_done_without_leaves_binding_to_the_next() -> None:
    async with Served(lambda *_: {"Error": "tired"}) as tired, Served(lambda *_: {}) as ready:
        both = Extenders(
            make_all(
                [
                    {"urlPrefix": tired.url, "bindVerb": "bind", "ignorable": True},
                    {"urlPrefix": "http://x", "filterVerb": "filter"},
                    {"urlPrefix": ready.url, "bindVerb": "bind"},
                ]
            )
        )
        assert [each.url for each in both.binders(info())] == [tired.url, ready.url]
        await both.close()

    async def body(cluster: ApiCluster, served: Served) -> None:
        await cluster.client.create(PODS, a_pod("p"), "default")
        pod = await pod_when(cluster, lambda pod: bool(pod["spec"].get("nodeName")))
        assert [verb for verb, _ in served.asked] == ["bind"] and pod["spec"]["nodeName"] in "abc"

    await scheduled(lambda *_: {"Error": "tired"}, body, bindVerb="bind", ignorable=True)


async def test_an_extender_that_fails_at_preemption_leaves_the_pod_unschedulable() -> None:
    async def body(cluster: ApiCluster, served: Served) -> None:
        for at in range(3):
            pod = a_pod(f"there{at}", "900m", priority=1, nodeName="abc"[at])
            await cluster.client.create(PODS, pod, "default")
        await cluster.client.create(PODS, a_pod("p", "900m", priority=9), "default")
        pod = await pod_when(cluster, lambda pod: bool((pod.get("status") or {}).get("conditions")))
        told = pod["status"]["conditions"][0]
        assert told["reason"] == "Unschedulable"
        assert told["message"] == "0/3 nodes are available: 3 Insufficient cpu. preemption: " + (
            f"failed preempt with extender at URL {served.url}/preempt, code 500"
        )

    await scheduled(lambda *_: Response(500, [], b""), body, preemptVerb="preempt")
