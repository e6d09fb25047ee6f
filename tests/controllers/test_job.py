from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from steersman.api.resource import JOBS, PODS, Object
from steersman.controllers.job.indexes import index_of, parse, render
from steersman.controllers.job.policy import on_failure, on_success
from steersman.controllers.job.tally import backoff_left
from steersman.lib.clock import rfc3339

from .conftest import World
from .objects import template


@pytest.mark.parametrize(
    ("text", "indexes", "canonical"),
    [
        ("", set(), ""),
        ("1", {1}, "1"),
        ("1,2", {1, 2}, "1,2"),
        ("1-3,5", {1, 2, 3, 5}, "1-3,5"),
        ("7-99", {7, 8, 9}, "7-9"),
        ("x,2,-,3-y,9999999999", {2}, "2"),
    ],
)
def test_indexes_as_text(text: str, indexes: set[int], canonical: str) -> None:
    assert parse(text, 10) == indexes
    assert render(indexes) == canonical


def a_pod(code: int = 0, name: str = "c", conditions: list[Object] | None = None) -> Object:
    states = [{"name": name, "state": {"terminated": {"exitCode": code}}}]
    return {
        "metadata": {"name": "p", "namespace": "ns"},
        "status": {"containerStatuses": states, "conditions": conditions or []},
    }


POLICY = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}},
    ]
}


@pytest.mark.parametrize(
    ("pod", "message", "counts", "action"),
    [
        (
            a_pod(42),
            "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 0",
            True,
            "FailJob",
        ),
        (a_pod(42, name="other"), None, True, "FailIndex"),
        (a_pod(1), None, True, ""),
        (a_pod(7), None, True, "FailIndex"),
        (a_pod(1, conditions=[{"type": "DisruptionTarget", "status": "True"}]), None, False, "Ignore"),
        (a_pod(0), None, True, ""),
    ],
)
def test_pod_failure_policy(pod: Object, message: str | None, counts: bool, action: str) -> None:
    assert on_failure(POLICY, pod) == (message, counts, action)


@pytest.mark.parametrize(
    ("rule", "done", "met"),
    [
        ({"succeededIndexes": "0,2"}, {0, 1}, False),
        ({"succeededIndexes": "0,2"}, {0, 2}, True),
        ({"succeededIndexes": "0-4", "succeededCount": 2}, {1, 3, 7}, True),
        ({"succeededCount": 3}, {1, 3}, False),
        ({"succeededCount": 2}, {1, 3}, True),
        ({"succeededIndexes": "nonsense"}, {1}, False),
    ],
)
def test_success_policy(rule: Object, done: set[int], met: bool) -> None:
    assert (on_success({"rules": [rule]}, done, 10) is not None) is met


def test_back_off_doubles_from_ten_seconds_to_ten_minutes() -> None:
    assert [backoff_left(count, 0, 0) for count in (0, 1, 2, 3, 7, 50)] == [0, 10, 20, 40, 600, 600]
    assert backoff_left(2, 100, 115) == 5


def job(**spec: Any) -> Object:
    policy = spec.pop("restartPolicy", "Never")
    return {"metadata": {"name": "job"}, "spec": {"template": template(app="x", restartPolicy=policy), **spec}}


async def run_pods(world: World, outcome: Callable[[Object], str | None]) -> None:
    """Plays nodes: every second each new pod runs, and each running one ends as `outcome` says (None: goes on)."""
    while True:
        for pod in await world.list(PODS):
            meta, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
            if meta.get("deletionTimestamp") and phase not in ("Succeeded", "Failed"):
                await world.set_status(PODS, pod, phase="Failed")
                await world.client.delete(PODS, meta["name"], "default", grace_seconds=0)
            elif phase == "Running" and (end := outcome(pod)):
                code = 0 if end == "Succeeded" else int(end)
                state = {"terminated": {"exitCode": code, "finishedAt": rfc3339(world.clock.now())}}
                status = {"name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
                phase = "Succeeded" if code == 0 else "Failed"
                await world.set_status(PODS, pod, phase=phase, containerStatuses=[status], conditions=[])
            elif phase == "Pending" and not meta.get("deletionTimestamp"):
                await world.make_ready(pod)
        await world.clock.sleep(1)


def conditions(found: Object) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in found["status"].get("conditions") or ()}


async def test_it_completes_with_the_right_number_and_never_too_many_at_once(world: World) -> None:
    world.start("job-controller")
    world.tasks.spawn(run_pods(world, lambda _: "Succeeded"), "nodes")
    await world.client.create(JOBS, job(completions=5, parallelism=2), "default")
    for _ in range(30):
        await world.settle(1)
        alive = [pod for pod in await world.list(PODS) if pod["status"]["phase"] in ("Pending", "Running")]
        assert len(alive) <= 2
    found = await world.get(JOBS, "job")
    assert found["status"]["succeeded"] == 5
    assert conditions(found) == {
        "SuccessCriteriaMet": ("True", "CompletionsReached"),
        "Complete": ("True", "CompletionsReached"),
    }
    assert found["status"]["completionTime"] >= found["status"]["startTime"]
    assert found["status"]["ready"] == 0
    pods = await world.list(PODS)
    assert len(pods) == 5
    assert not any(pod["metadata"].get("finalizers") for pod in pods)
    assert ("Completed", "Job completed") in await world.events()
    revision = world.cluster.store.revision
    world.tasks.spawn(world.settle(1), "wait")
    await world.settle(10)
    assert world.cluster.store.revision == revision


async def test_each_index_runs_once(world: World) -> None:
    world.start("job-controller")
    world.tasks.spawn(run_pods(world, lambda _: "Succeeded"), "nodes")
    await world.client.create(JOBS, job(completions=4, parallelism=4, completionMode="Indexed"), "default")
    await world.settle(1)
    pods = await world.list(PODS)
    assert sorted(map(str, map(index_of, pods))) == ["0", "1", "2", "3"]
    first = next(pod for pod in pods if index_of(pod) == 0)
    assert first["spec"]["hostname"] == "job-0"
    assert first["metadata"]["name"].startswith("job-0-")
    assert first["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    await world.settle(20)
    found = await world.get(JOBS, "job")
    assert (found["status"]["completedIndexes"], found["status"]["succeeded"]) == ("0-3", 4)
    assert conditions(found)["Complete"] == ("True", "CompletionsReached")


async def test_failures_are_retried_with_back_off_up_to_the_limit(world: World) -> None:
    world.start("job-controller")
    world.tasks.spawn(run_pods(world, lambda _: "1"), "nodes")
    await world.client.create(JOBS, job(backoffLimit=2), "default")
    await world.settle(8)
    assert len(await world.list(PODS)) == 1, "ten seconds before the second attempt"
    await world.settle(10)
    assert len(await world.list(PODS)) == 2
    await world.settle(60)
    found = await world.get(JOBS, "job")
    assert len(await world.list(PODS)) == 3
    assert found["status"]["failed"] == 3
    assert conditions(found)["Failed"] == ("True", "BackoffLimitExceeded")
    assert "completionTime" not in found["status"]
    assert ("BackoffLimitExceeded", "Job has reached the specified backoff limit") in await world.events()


async def test_a_limit_per_index_lets_the_others_finish(world: World) -> None:
    world.start("job-controller")
    world.tasks.spawn(run_pods(world, lambda pod: "1" if index_of(pod) == 1 else "Succeeded"), "nodes")
    body = job(completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1)
    await world.client.create(JOBS, body, "default")
    await world.settle(90)
    found = await world.get(JOBS, "job")
    assert (found["status"]["completedIndexes"], found["status"]["failedIndexes"]) == ("0,2", "1")
    assert (found["status"]["succeeded"], found["status"]["failed"]) == (2, 2)
    assert conditions(found)["Failed"] == ("True", "FailedIndexes")
    retried = [pod for pod in await world.list(PODS) if index_of(pod) == 1]
    counts = sorted(pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] for pod in retried)
    assert counts == ["0", "1"]


async def test_policies_end_a_job_early(world: World) -> None:
    world.start("job-controller")
    world.tasks.spawn(run_pods(world, lambda pod: "42" if index_of(pod) is None else "Succeeded"), "nodes")
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    await world.client.create(JOBS, job(backoffLimit=6, podFailurePolicy={"rules": [rule]}), "default")
    chosen = job(
        completions=5, parallelism=1, completionMode="Indexed", successPolicy={"rules": [{"succeededIndexes": "0"}]}
    )
    chosen["metadata"]["name"] = "leader"
    await world.client.create(JOBS, chosen, "default")
    await world.settle(30)
    failed, early = await world.get(JOBS, "job"), await world.get(JOBS, "leader")
    assert conditions(failed)["Failed"] == ("True", "PodFailurePolicy")
    assert failed["status"]["failed"] == 1
    assert conditions(early)["Complete"] == ("True", "SuccessPolicy")
    assert early["status"]["succeeded"] == 1


async def test_deadline_suspend_and_resume(world: World) -> None:
    world.start("job-controller")
    world.tasks.spawn(run_pods(world, lambda _: None), "nodes")
    await world.client.create(JOBS, job(activeDeadlineSeconds=60, suspend=True, parallelism=2), "default")
    await world.settle(100)
    found = await world.get(JOBS, "job")
    assert conditions(found) == {"Suspended": ("True", "JobSuspended")}
    assert await world.list(PODS) == []
    assert "startTime" not in found["status"]
    await world.client.patch(JOBS, "job", "default", {"spec": {"suspend": False}})
    await world.settle(30)
    found = await world.get(JOBS, "job")
    assert conditions(found) == {"Suspended": ("False", "JobResumed")}
    assert found["status"]["active"] == 2, "without completions, parallelism alone counts"
    await world.client.patch(JOBS, "job", "default", {"spec": {"suspend": True}})
    await world.settle(30)
    found = await world.get(JOBS, "job")
    assert await world.list(PODS) == []
    assert "failed" not in found["status"], "pods of a suspended job do not count as failed"
    await world.client.patch(JOBS, "job", "default", {"spec": {"suspend": False}})
    await world.settle(80)
    found = await world.get(JOBS, "job")
    assert conditions(found)["Failed"] == ("True", "DeadlineExceeded")
    assert await world.list(PODS) == []


async def test_pods_of_a_job_that_is_gone_are_let_go(world: World) -> None:
    world.start("job-controller", "garbage-collector-controller")
    await world.client.create(JOBS, job(parallelism=3, completions=3), "default")
    await world.settle()
    assert len(await world.list(PODS)) == 3
    await world.client.delete(JOBS, "job", "default", propagation="Background")
    world.tasks.spawn(run_pods(world, lambda _: None), "nodes")
    await world.settle(10)
    assert await world.list(PODS) == []


async def test_a_job_of_another_controller_is_left_alone(world: World) -> None:
    world.start("job-controller")
    await world.client.create(JOBS, job(managedBy="example.com/other"), "default")
    await world.settle(30)
    assert await world.list(PODS) == []
