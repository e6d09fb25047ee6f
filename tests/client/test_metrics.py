"""Metrics of those who work with the API: queues, requests, who leads."""

from __future__ import annotations

import asyncio

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, Object
from steersman.client.client import Client
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, run
from steersman.client.events import EventRecorder
from steersman.client.exposition import Exposition
from steersman.client.informer import Informers
from steersman.client.metrics import Metrics
from steersman.client.workqueue import WorkQueue
from steersman.lib.http.messages import Request
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster


async def test_a_queue_tells_of_its_keys(cluster: ApiCluster) -> None:
    clock = cluster.clock
    metrics = Metrics(clock.monotonic)
    queue: WorkQueue[str] = WorkQueue(clock, metrics.queue("jobs"))
    for key in ("a", "a", "b"):
        queue.add(key)
    await clock.sleep(2)
    assert await queue.get() == "a"
    await clock.sleep(3)
    lines = metrics.registry.text().splitlines()
    for line in (
        "workqueue_adds_total 2",
        "workqueue_depth 1",
        "workqueue_queue_duration_seconds_sum 2",
        "workqueue_unfinished_work_seconds 3",
        "workqueue_longest_running_processor_seconds 3",
    ):
        name, number = line.split()
        assert f'{name}{{name="jobs"}} {number}' in lines
    queue.retry("a")
    queue.done("a")
    lines = metrics.registry.text().splitlines()
    assert 'workqueue_retries_total{name="jobs"} 1' in lines
    assert 'workqueue_work_duration_seconds_count{name="jobs"} 1' in lines
    assert 'workqueue_unfinished_work_seconds{name="jobs"} 0' in lines
    assert 'workqueue_work_duration_seconds_bucket{name="jobs",le="1e-08"} 0' in lines


async def test_a_controllers_queue_and_requests_are_counted(cluster: ApiCluster, tasks: Tasks) -> None:
    metrics = Metrics(cluster.clock.monotonic)
    client = Client(metrics.counted(cluster.transport, "127.0.0.1:6443"), clock=cluster.clock, user_agent="t")
    seen: list[Key] = []

    async def reconcile(context: Context, key: Key) -> Result:
        seen.append(key)
        return DONE

    informers = Informers(client, clock=cluster.clock, tasks=tasks)
    recorder = EventRecorder(client, cluster.clock, tasks, component="t")
    context = Context(client, informers, cluster.clock, recorder, cluster.server.services.random, metrics=metrics)
    tasks.spawn(run(Controller("watcher-controller", reconcile, (For(CONFIGMAPS),)), context), "controller")
    made: Object = {"metadata": {"name": "a", "namespace": "default"}}
    await client.create(CONFIGMAPS, made)
    with pytest.raises(ApiError):
        await client.create(CONFIGMAPS, made)
    await cluster.clock.sleep(1)
    assert seen == [Key("default", "a")]
    lines = metrics.registry.text().splitlines()
    assert 'workqueue_adds_total{name="watcher-controller"} 1' in lines
    host = 'host="127.0.0.1:6443"'
    assert f'rest_client_requests_total{{code="201",{host},method="POST"}} 1' in lines
    assert f'rest_client_requests_total{{code="409",{host},method="POST"}} 1' in lines
    assert f'rest_client_request_duration_seconds_count{{{host},verb="POST"}} 2' in lines


async def test_who_leads_says_so() -> None:
    metrics = Metrics(lambda: 0.0)
    metrics.follow("kube-scheduler")
    status = 'leader_election_master_status{name="kube-scheduler"}'
    assert f"{status} 0" in metrics.registry.text()
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.get_running_loop().create_future()

    leading = asyncio.ensure_future(metrics.leading("kube-scheduler", work))
    await began.wait()
    assert f"{status} 1" in metrics.registry.text()
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
    assert f"{status} 0" in metrics.registry.text()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/metrics", 200), ("GET", "/healthz", 200), ("POST", "/metrics", 404), ("GET", "/debug/pprof", 404)],
)
async def test_what_is_exposed(method: str, path: str, status: int) -> None:
    metrics = Metrics(lambda: 0.0)
    metrics.follow("x")
    response = await Exposition(metrics.registry).handle(Request(method, path))
    assert response.status == status
    assert (b"leader_election_master_status" in response.body) is (path == "/metrics" and status == 200)
