"""Workloads and batch: defaults, rules and changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from steersman.api.kinds.batch.cronjob import schedule_problem
from tests.api.kinds import stage

COUNTED = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController", "Job", "CronJob")


def only(obj: Any, *keys: str) -> Any:
    return {key: obj["spec"].get(key) for key in keys}


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        (
            "Deployment",
            {
                "replicas": 1,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
            },
        ),
        ("ReplicaSet", {"replicas": 1}),
        ("ReplicationController", {"replicas": 1, "selector": {"app": "a"}}),
        (
            "DaemonSet",
            {
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                "revisionHistoryLimit": 10,
            },
        ),
        (
            "StatefulSet",
            {
                "replicas": 1,
                "podManagementPolicy": "OrderedReady",
                "revisionHistoryLimit": 10,
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            },
        ),
        (
            "Job",
            {
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "suspend": False,
                "podReplacementPolicy": "TerminatingOrFailed",
            },
        ),
        (
            "CronJob",
            {
                "concurrencyPolicy": "Allow",
                "suspend": False,
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 1,
            },
        ),
    ],
)
def test_defaults(name: str, filled: dict[str, Any]) -> None:
    obj = stage.example(name)
    assert stage.create(obj) == []
    assert only(obj, *filled) == filled


@pytest.mark.parametrize("name", COUNTED)
def test_generation_counts_changes_of_the_spec(name: str) -> None:
    old = stage.stored(stage.example(name))
    assert old["metadata"]["generation"] == 1
    key = {"DaemonSet": "minReadySeconds", "Job": "parallelism", "CronJob": "startingDeadlineSeconds"}.get(
        name, "replicas"
    )
    new = stage.put(copy.deepcopy(old), f"spec.{key}", 5)
    assert stage.update(new, old) == []
    assert new["metadata"]["generation"] == 2
    noted = stage.put(copy.deepcopy(old), "metadata.annotations", {"a": "b"})
    assert stage.update(noted, old) == []
    assert noted["metadata"]["generation"] == (2 if name == "Deployment" else 1)


@pytest.mark.parametrize("name", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"])
def test_the_status_endpoint_takes_only_status(name: str) -> None:
    old = stage.stored(stage.example(name))
    new = copy.deepcopy(old)
    new["status"]["observedGeneration"] = 1
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    assert stage.update(new, old, "status") == []
    assert new["spec"] == old["spec"]
    assert new["status"]["observedGeneration"] == 1


@pytest.mark.parametrize("name", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_selector_and_template_agree(name: str) -> None:
    found = stage.create(stage.example(name, selector={"matchLabels": {"app": "other"}}))
    text = 'spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`'
    assert text in found


@pytest.mark.parametrize("name", ["Deployment", "ReplicaSet", "DaemonSet"])
def test_the_selector_is_for_good(name: str) -> None:
    old = stage.stored(stage.example(name))
    new = copy.deepcopy(old)
    labels = {"app": "b"}
    new["spec"]["selector"] = {"matchLabels": labels}
    new["spec"]["template"]["metadata"]["labels"] = labels
    assert stage.update(new, old) == ['spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable']


@pytest.mark.parametrize(
    ("name", "path", "value", "complaints"),
    [
        ("Deployment", "spec.replicas", -1, ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (
            "Deployment",
            "spec.template.spec.restartPolicy",
            "Never",
            ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
        ),
        (
            "Deployment",
            "spec.strategy",
            {"type": "Recreate", "rollingUpdate": {}},
            ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        ),
        (
            "Deployment",
            "spec.strategy",
            {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}},
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
        ),
        (
            "Deployment",
            "spec.progressDeadlineSeconds",
            0,
            ["spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"],
        ),
        (
            "DaemonSet",
            "spec.updateStrategy",
            {"type": "Odd"},
            [
                'spec.updateStrategy: Unsupported value: {"Type":"Odd","RollingUpdate":null}: supported values: '
                '"RollingUpdate", "OnDelete"'
            ],
        ),
        (
            "StatefulSet",
            "spec.podManagementPolicy",
            "Odd",
            ["spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'"],
        ),
        (
            "Job",
            "spec.template.spec.restartPolicy",
            "Always",
            ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'],
        ),
        (
            "Job",
            "spec.completionMode",
            "Odd",
            ['spec.completionMode: Unsupported value: "Odd": supported values: "NonIndexed", "Indexed"'],
        ),
        (
            "Job",
            "spec.parallelism",
            -1,
            ["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
        ),
        ("CronJob", "spec.schedule", "", ["spec.schedule: Required value"]),
        (
            "CronJob",
            "spec.schedule",
            "* * * *",
            ['spec.schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]'],
        ),
        (
            "CronJob",
            "spec.timeZone",
            "Mars/Base",
            ['spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base'],
        ),
        (
            "CronJob",
            "spec.concurrencyPolicy",
            "Odd",
            ['spec.concurrencyPolicy: Unsupported value: "Odd": supported values: "Allow", "Forbid", "Replace"'],
        ),
        (
            "CronJob",
            "metadata.name",
            "a" * 53,
            [f'metadata.name: Invalid value: "{"a" * 53}": must be no more than 52 characters'],
        ),
    ],
)
def test_what_is_refused(name: str, path: str, value: Any, complaints: list[str]) -> None:
    assert stage.create(stage.put(stage.example(name), path, value)) == complaints


def test_a_job_selects_its_pods_by_its_uid() -> None:
    job = stage.stored(stage.example("Job"))
    labels = {
        "batch.kubernetes.io/controller-uid": stage.UID,
        "batch.kubernetes.io/job-name": "a",
        "controller-uid": stage.UID,
        "job-name": "a",
    }
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": stage.UID}}
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    assert job["metadata"]["labels"] == labels


def test_a_job_may_bring_its_own_selector() -> None:
    job = stage.example("Job", manualSelector=True, selector={"matchLabels": {"a": "b"}})
    job["spec"]["template"]["metadata"] = {"labels": {"a": "b"}}
    assert stage.create(job) == []
    assert job["spec"]["template"]["metadata"]["labels"] == {"a": "b"}


def test_a_jobs_template_is_for_good_but_a_suspended_one_may_move() -> None:
    old = stage.stored(stage.example("Job"))
    new = stage.put(copy.deepcopy(old), "spec.template.spec.nodeSelector", {"a": "b"})
    (found,) = stage.update(new, old)
    assert found.startswith("spec.template: Invalid value: ")
    assert found.endswith(": field is immutable")
    waiting = stage.stored(stage.example("Job", suspend=True))
    moved = stage.put(copy.deepcopy(waiting), "spec.template.spec.nodeSelector", {"a": "b"})
    assert stage.update(moved, waiting) == []


def test_an_indexed_job_may_grow_with_its_parallelism() -> None:
    old = stage.stored(stage.example("Job", completionMode="Indexed", completions=3, parallelism=3))
    alone = stage.put(copy.deepcopy(old), "spec.completions", 4)
    text = "spec.completions: Invalid value: 4: can only be modified in tandem with spec.parallelism"
    assert stage.update(alone, old) == [text]
    both = stage.put(stage.put(copy.deepcopy(old), "spec.completions", 4), "spec.parallelism", 4)
    assert stage.update(both, old) == []


def test_a_stateful_set_changes_little() -> None:
    old = stage.stored(stage.example("StatefulSet"))
    new = stage.put(copy.deepcopy(old), "spec.serviceName", "b")
    (found,) = stage.update(new, old)
    assert found == (
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
        "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are "
        "forbidden"
    )


def test_a_revision_is_for_good() -> None:
    old = stage.stored(stage.example("ControllerRevision"))
    new = stage.put(copy.deepcopy(old), "data", {"a": 2})
    (found,) = stage.update(new, old)
    assert found.startswith("data: ")
    assert found.endswith("field is immutable")
    renumbered = stage.put(copy.deepcopy(old), "revision", 2)
    assert stage.update(renumbered, old) == []


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("*/5 * * * *", ""),
        ("0 9-17/2 1,15 jan-mar MON-fri", ""),
        ("@daily", ""),
        ("@every 1h30m", ""),
        ("CRON_TZ=Europe/Paris 0 0 * * *", ""),
        ("@never", "unrecognized descriptor: @never"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("* " * 200, "expected exactly 5 fields, found 200: [" + " ".join("*" * 200) + "]"),
    ],
)
def test_schedules(schedule: str, problem: str) -> None:
    assert schedule_problem(schedule) == problem


def test_a_job_that_takes_its_pods_labels_takes_the_generated_ones_too() -> None:
    job = stage.put(stage.example("Job"), "spec.template.metadata", {"labels": {"a": "b"}})
    assert stage.create(job) == []
    assert job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"]
    assert len(job["metadata"]["labels"]) == 5
    own = stage.put(
        stage.put(stage.example("Job"), "spec.template.metadata", {"labels": {"a": "b"}}), "metadata.labels", {"c": "d"}
    )
    assert stage.create(own) == []
    assert own["metadata"]["labels"] == {"c": "d"}
