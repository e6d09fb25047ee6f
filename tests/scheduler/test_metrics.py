"""The scheduler's metrics, by what it did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def measured() -> AsyncIterator[tuple[ApiCluster, Registry]]:
    """A scheduler at work, and what it counts."""
    async with ApiCluster() as cluster, Tasks() as tasks:
        client, clock, registry = cluster.client, cluster.clock, Registry()
        recorder = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="h")
        informers = Informers(client, clock=clock, tasks=tasks)
        scheduler = Scheduler(client, informers, recorder, clock, Random(1), metrics=SchedulerMetrics(registry))
        tasks.spawn(scheduler.run(), "scheduler")
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
        yield cluster, registry


def test_attempts_and_those_who_wait() -> None:
    async def body() -> None:
        async with measured() as (cluster, registry):
            client = cluster.client
            await add_node(cluster, a_node("n"))
            for pod in (a_pod("fits"), a_pod("large", "9"), a_pod("gated", schedulingGates=[{"name": "a.b/c"}])):
                await client.create(PODS, pod, "default")
            await until(cluster, "fits", lambda pod: bool(pod["spec"].get("nodeName")))
            await cluster.clock.sleep(1)
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
                'scheduler_queue_incoming_pods_total{event="UnschedulablePodAdd",queue="active"} 2',
                'scheduler_queue_incoming_pods_total{event="UnschedulablePodAdd",queue="unschedulable"} 1',
                'scheduler_queue_incoming_pods_total{event="ScheduleAttemptFailure",queue="unschedulable"} 1',
                f'scheduler_unschedulable_pods{{plugin="NodeResourcesFit",{profile}}} 1',
                'scheduler_cache_size{type="nodes"} 1',
                'scheduler_cache_size{type="pods"} 1',
                'scheduler_pod_scheduling_sli_duration_seconds_count{attempts="1"} 1',
                "scheduler_pod_scheduled_after_flush_total 0",
                *(
                    "scheduler_framework_extension_point_duration_seconds_count"
                    f'{{extension_point="{point}",{profile},status="{status}"}} {number}'
                    for point, status, number in (
                        ("Filter", "Success", 2),
                        ("PostFilter", "Unschedulable", 1),
                        ("Score", "Success", 1),
                        ("Reserve", "Success", 1),
                        ("Bind", "Success", 1),
                    )
                ),
            ):
                assert line in lines, line

    virtual(body)


def test_every_tenth_attempt_times_each_plugin() -> None:
    async def body() -> None:
        async with measured() as (cluster, registry):
            client = cluster.client
            for name in "mno":
                await add_node(cluster, a_node(name))
            for number in range(20):
                await client.create(PODS, a_pod(f"p{number}", "1m"), "default")
            await until(cluster, "p19", lambda pod: bool(pod["spec"].get("nodeName")))
            name = "scheduler_plugin_execution_duration_seconds_count"
            lines = registry.text().splitlines()
            for labels in (
                'extension_point="Filter",plugin="InterPodAffinity",status="Success"',
                'extension_point="PreFilter",plugin="VolumeBinding",status="Success"',
                'extension_point="Score",plugin="NodeResourcesFit",status="Success"',
            ):
                assert f"{name}{{{labels}}} 2" in lines

    virtual(body)


def test_changes_hints_and_what_plugins_have_judged() -> None:
    async def body() -> None:
        async with measured() as (cluster, registry):
            client = cluster.client
            for name in "mno":
                await add_node(cluster, a_node(name))
            await client.create(PODS, a_pod("fits"), "default")
            await client.create(PODS, a_pod("large", "9"), "default")
            await client.create(PODS, a_pod("larger", "9"), "default")
            await until(cluster, "fits", lambda pod: bool(pod["spec"].get("nodeName")))
            await cluster.clock.sleep(1)
            await client.delete(PODS, "fits", "default", grace_seconds=0)
            await cluster.clock.sleep(1)
            lines = registry.text().splitlines()
            profile = 'profile="default-scheduler"'
            for line in (
                *(
                    f'scheduler_event_handling_duration_seconds_count{{event="{event}"}} {number}'
                    for event, number in (
                        ("NodeAdd", 3),
                        ("UnschedulablePodAdd", 3),
                        ("AssignedPodAdd", 1),
                        ("AssignedPodDelete", 1),
                    )
                ),
                "scheduler_queueing_hint_execution_duration_seconds_count"
                '{event="AssignedPodDelete",hint="Queue",plugin="NodeResourcesFit"} 1',  # for both alike
                *(
                    f'scheduler_plugin_evaluation_total{{extension_point="{point}",plugin="{name}",{profile}}} {number}'
                    for point, name, number in (
                        ("PreFilter", "NodeAffinity", 5),  # the two large ones were tried twice
                        ("Filter", "NodeName", 15),
                        ("PreScore", "NodeResourcesFit", 1),
                        ("Score", "ImageLocality", 3),
                    )
                ),
                'scheduler_goroutines{operation="binding"} 0',
                'scheduler_goroutines{operation="DefaultPreemption"} 0',
            ):
                assert line in lines, line

    virtual(body)
