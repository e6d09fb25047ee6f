"""Controllers against the whole API in one process: a large Deployment, and a year of CronJobs in virtual time.

python -m bench.controllers [REPLICAS]     (default 1000)

The floor of the Deployment is the same pods, created by hand through the same API. A hundred CronJobs run weekly for a
year; their Jobs are ended at once by the bench, so that what is measured is the CronJob controller, and idle watches.
Its floor is as many Jobs created, ended and deleted by hand.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from steersman.api.errors import ApiError
from steersman.api.resource import CRONJOBS, DEPLOYMENTS, JOBS, PODS, Object
from steersman.client.client import Client
from steersman.client.controller import Context
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.cluster.plane import ControlPlane
from steersman.controllers.run import run_controllers
from steersman.lib.clock import Clock, rfc3339
from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.cluster import ApiCluster
from steersman.testing.objects import deployment

_AT_ONCE = 32
_CRONJOBS, _WEEKS = 100, 52
_JOB = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}


async def _pods(client: Client, count: int) -> None:
    """Wait until so many pods are there."""
    page = await client.list(PODS, "default")
    seen, events = len(page.items), client.watch(PODS, "default", resource_version=page.resource_version)
    while seen < count:
        event = await anext(events)
        seen += {"ADDED": 1, "DELETED": -1}.get(event.type, 0)
    await events.aclose()


async def _by_hand(client: Client, count: int) -> float:
    room = asyncio.Semaphore(_AT_ONCE)
    spec = deployment("hand")["spec"]["template"]["spec"]
    body = {"metadata": {"generateName": "hand-", "labels": {"app": "hand"}}, "spec": spec}

    async def create() -> None:
        async with room:
            await client.create(PODS, body, "default")

    began = time.perf_counter()
    await asyncio.gather(*(create() for _ in range(count)))
    took = time.perf_counter() - began
    await client.delete_collection(PODS, "default")
    return took


async def _deployment(folder: Path, count: int) -> None:
    async with ControlPlane(folder, listen=None) as plane:
        while True:  # until the namespace's service account is there
            try:
                await _by_hand(plane.client, 1)
                break
            except ApiError:
                await plane.clock.sleep(0.05)
        floor = await _by_hand(plane.client, count)
        began = time.perf_counter()
        await plane.client.create(DEPLOYMENTS, deployment("web", replicas=count), "default")
        await _pods(plane.client, count)
        took = time.perf_counter() - began
        began = time.perf_counter()
        await plane.client.delete(DEPLOYMENTS, "web", "default", propagation="Foreground")
        gone = False
        while not gone:
            await plane.clock.sleep(0.01)
            try:
                await plane.client.get(DEPLOYMENTS, "web", "default")
            except ApiError:
                gone = True
        left = time.perf_counter() - began
    print(f"{'pods':>6} {'by hand s':>10} {'Deployment s':>13} {'ratio':>6} {'foreground deletion s':>22}")
    print(f"{count:6} {floor:10.2f} {took:13.2f} {took / floor:6.2f} {left:22.2f}")


async def _end_jobs(client: Client, informers: Informers, clock: Clock) -> None:
    """Jobs complete as soon as they are there."""
    waiting: asyncio.Queue[Object] = asyncio.Queue()

    def changed(old: Object | None, new: Object | None) -> None:
        if old is None and new is not None:
            waiting.put_nowait(new)

    informers.informer(JOBS).add_handler(changed)
    while True:
        job = await waiting.get()
        meta = job["metadata"]
        body = {"status": _done(clock.now())}
        await client.patch(JOBS, meta["name"], meta["namespace"], body, subresource="status")


def _done(now: float) -> Object:
    """The status of a Job that has completed."""
    stamp = rfc3339(now)
    conditions = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
    return {"startTime": stamp, "completionTime": stamp, "conditions": conditions, "succeeded": 1}


async def _jobs_by_hand(count: int) -> float:
    """Seconds of CPU for so many Jobs that somebody creates, ends and deletes."""
    began = time.process_time()
    async with ApiCluster() as cluster:
        for number in range(count):
            body = {"metadata": {"name": f"hand-{number}"}, "spec": _JOB["spec"]}
            await cluster.client.create(JOBS, body, "default")
            status = {"status": _done(cluster.clock.now())}
            await cluster.client.patch(JOBS, f"hand-{number}", "default", status, subresource="status")
            await cluster.client.delete(JOBS, f"hand-{number}", "default", propagation="Background")
    return time.process_time() - began


async def _year() -> None:
    floor = await _jobs_by_hand(_CRONJOBS * _WEEKS)
    began = time.process_time()
    async with ApiCluster() as cluster, Tasks() as tasks:
        client, clock = cluster.client, cluster.clock
        informers = Informers(client, clock=clock, tasks=tasks)
        recorder = EventRecorder(client, clock, tasks, component="cronjob-controller")
        context = Context(client, informers, clock, recorder, Random(1))
        tasks.spawn(run_controllers(context, ["cronjob-controller"]), "controllers")
        tasks.spawn(_end_jobs(client, informers, clock), "jobs")
        for number in range(_CRONJOBS):
            spec = {
                "schedule": f"{number % 60} {number % 24} * * {number % 7}",
                "jobTemplate": _JOB,
            }
            await client.create(CRONJOBS, {"metadata": {"name": f"cron-{number}"}, "spec": spec}, "default")
        await clock.sleep(_WEEKS * 7 * 86400)
        kept = len(informers.informer(JOBS).list())
    took = time.process_time() - began
    runs = _CRONJOBS * _WEEKS
    print(f"{'CronJobs':>8} {'weeks':>6} {'runs':>6} {'by hand CPU s':>14} {'CPU s':>7} {'ratio':>6} {'runs/s':>7}")
    print(f"{_CRONJOBS:8} {_WEEKS:6} {runs:6} {floor:14.1f} {took:7.1f} {took / floor:6.2f} {runs / took:7.0f}")
    print(f"{kept} Jobs are kept")


def main() -> None:
    """Measure and print."""
    gc.set_threshold(20_000, 50, 50)  # as every process of the product
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_deployment(Path(folder), count))
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_year())


if __name__ == "__main__":
    main()
