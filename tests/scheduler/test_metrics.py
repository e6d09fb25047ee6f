"""The scheduler's metrics, by what it did."""

from __future__ import annotations

from random import Random

from steersman.api.resource import PODS, SERVICEACCOUNTS
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.lib.metrics import Registry
from steersman.lib.tasks import Tasks
from steersman.scheduler.metrics import SchedulerMetrics
from steersman.scheduler.scheduler import Scheduler
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node, until, virtual


def test_attempts_and_those_who_wait() -> None:
    async def body() -> None:
        async with ApiCluster() as cluster, Tasks() as tasks:
            client, clock, registry = cluster.client, cluster.clock, Registry()
            recorder = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="h")
            informers = Informers(client, clock=clock, tasks=tasks)
            scheduler = Scheduler(client, informers, recorder, clock, Random(1), metrics=SchedulerMetrics(registry))
            tasks.spawn(scheduler.run(), "scheduler")
            await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
            await add_node(cluster, a_node("n"))
            for pod in (a_pod("fits"), a_pod("large", "9"), a_pod("gated", schedulingGates=[{"name": "a.b/c"}])):
                await client.create(PODS, pod, "default")
            await until(cluster, "fits", lambda pod: bool(pod["spec"].get("nodeName")))
            await clock.sleep(1)
            lines = registry.text().splitlines()
            profile = 'profile="default-scheduler"'
            for line in (
                f'scheduler_schedule_attempts_total{{{profile},result="scheduled"}} 1',
                f'scheduler_schedule_attempts_total{{{profile},result="unschedulable"}} 1',
                f'scheduler_scheduling_attempt_duration_seconds_count{{{profile},result="scheduled"}} 1',
                "scheduler_scheduling_algorithm_duration_seconds_count 2",
                'scheduler_pod_scheduling_attempts_bucket{le="1"} 1',
                'scheduler_pending_pods{queue="active"} 0',
                'scheduler_pending_pods{queue="unschedulable"} 1',
                'scheduler_pending_pods{queue="gated"} 1',
            ):
                assert line in lines, line

    virtual(body)
