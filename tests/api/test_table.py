"""What `kubectl get` shows: ages, a pod's state in one line, custom columns, and the Table object."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api import table
from steersman.api.kinds.devices.claims import CLAIM
from steersman.api.kinds.devices.slices import SLICE
from steersman.api.resource import Object
from tests.api.kinds import stage

START = table.seconds(stage.NOW)
STATUS = {"name": "c", "image": "b", "imageID": "", "ready": False, "restartCount": 0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (121, "2m1s"),
        (600, "10m"),
        (179 * 60, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (30 * 86400, "30d"),
        (730 * 86400, "2y"),
        (731 * 86400, "2y1d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert table.human(seconds) == text


def shown(pod: Object, now: float = START + 60) -> dict[str, Any]:
    made = table.table(table.columns(stage.kind_of(pod), "v1"), [pod], now)
    names = [column["name"] for column in made["columnDefinitions"]]
    return dict(zip(names, made["rows"][0]["cells"], strict=True))


def running(**more: Any) -> Object:
    return {**STATUS, "ready": True, "state": {"running": {"startedAt": stage.NOW}}, **more}


def ended(code: int, **more: Any) -> Object:
    return {**STATUS, "state": {"terminated": {"exitCode": code, **more}}}


def waiting(reason: str, **more: Any) -> Object:
    return {**STATUS, "state": {"waiting": {"reason": reason}}, **more}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, ("0/1", "Pending", "0")),
        ({"phase": "Running", "containerStatuses": [running()]}, ("1/1", "Running", "0")),
        ({"containerStatuses": [waiting("ContainerCreating")]}, ("0/1", "ContainerCreating", "0")),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    waiting(
                        "CrashLoopBackOff",
                        restartCount=4,
                        lastState={"terminated": {"finishedAt": stage.NOW, "exitCode": 1}},
                    )
                ],
            },
            ("0/1", "CrashLoopBackOff", "4 (60s ago)"),
        ),
        ({"phase": "Succeeded", "containerStatuses": [ended(0, reason="Completed")]}, ("0/1", "Completed", "0")),
        ({"phase": "Failed", "containerStatuses": [ended(2)]}, ("0/1", "ExitCode:2", "0")),
        ({"phase": "Failed", "containerStatuses": [ended(137, signal=9)]}, ("0/1", "Signal:9", "0")),
        ({"phase": "Failed", "reason": "Evicted"}, ("0/1", "Evicted", "0")),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
            ("0/1", "SchedulingGated", "0"),
        ),
    ],
)
def test_a_pod_in_one_line(status: Object, line: tuple[str, ...]) -> None:
    pod = stage.stored(stage.example("Pod"))
    pod["status"] |= status
    found = shown(pod)
    assert (found["Ready"], found["Status"], found["Restarts"]) == line


@pytest.mark.parametrize(
    ("inits", "line"),
    [
        ([waiting("PodInitializing", name="i"), waiting("PodInitializing", name="s")], ("0/2", "Init:0/2")),
        ([ended(0, reason="Completed") | {"name": "i"}, waiting("PodInitializing", name="s")], ("0/2", "Init:1/2")),
        ([ended(1, reason="Error") | {"name": "i"}, waiting("PodInitializing", name="s")], ("0/2", "Init:Error")),
        (
            [waiting("CrashLoopBackOff", name="i"), waiting("PodInitializing", name="s")],
            ("0/2", "Init:CrashLoopBackOff"),
        ),
        ([ended(0) | {"name": "i"}, running(name="s", started=True)], ("2/2", "Running")),
    ],
)
def test_a_pod_that_initializes(inits: list[Object], line: tuple[str, str]) -> None:
    first = {"name": "i", "image": "b"}
    pod = stage.stored(stage.example("Pod", initContainers=[first, {**first, "name": "s", "restartPolicy": "Always"}]))
    pod["status"]["initContainerStatuses"] = inits
    if line[1] == "Running":
        pod["status"] |= {"phase": "Running", "containerStatuses": [running()]}
    found = shown(pod)
    assert (found["Ready"], found["Status"]) == line


def test_a_pod_that_goes_away() -> None:
    pod = stage.stored(stage.example("Pod"))
    pod["metadata"]["deletionTimestamp"] = stage.NOW
    assert shown(pod)["Status"] == "Terminating"
    pod["status"]["phase"] = "Succeeded"
    assert shown(pod)["Status"] == "Succeeded"


def test_rows_carry_as_much_of_the_object_as_asked_for() -> None:
    pod = stage.stored(stage.example("Pod"))
    columns = table.columns(stage.kind_of(pod), "v1")

    def row(include: str) -> Object:
        return table.table(columns, [pod], START, include=include)["rows"][0]

    assert "object" not in row("None") or row("None")["object"] is None
    assert row("Metadata")["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": pod["metadata"],
    }
    assert row("Object")["object"] == pod


def test_a_table_is_a_table() -> None:
    made = table.table(table.columns(stage.kind_of(stage.example("ConfigMap")), "v1"), [], START)
    assert (made["kind"], made["apiVersion"], made["rows"]) == ("Table", "meta.k8s.io/v1", [])
    first = made["columnDefinitions"][0]
    assert (first["name"], first["type"], first["format"], first["priority"]) == ("Name", "string", "name", 0)
    bare = table.table(table.columns(stage.kind_of(stage.example("ConfigMap")), "v1"), [], START, headers=False)
    assert not bare.get("columnDefinitions")


WIDGET: Object = {
    "metadata": {"name": "w", "creationTimestamp": stage.NOW},
    "spec": {"size": 3, "on": True, "ratio": 0.5, "tags": ["a", "b"], "since": stage.NOW},
}


@pytest.mark.parametrize(
    ("kind", "path", "cell"),
    [
        ("integer", ".spec.size", 3),
        ("number", ".spec.ratio", 0.5),
        ("boolean", ".spec.on", True),
        ("string", ".spec.tags[*]", "a b"),
        ("string", ".spec.size", "3"),
        ("date", ".spec.since", "60s"),
        ("integer", ".spec.tags[0]", None),
        ("boolean", ".spec.size", None),
        ("string", ".spec.missing", None),
    ],
)
def test_custom_columns(kind: str, path: str, cell: Any) -> None:
    columns = table.custom_columns([{"name": "X", "type": kind, "jsonPath": path, "priority": 1}])
    assert [column.name for column in columns] == ["Name", "X"]
    assert columns[1].priority == 1
    assert columns[1].cell(WIDGET, START + 60) == cell


def test_without_custom_columns_there_is_the_age() -> None:
    assert [column.cell(WIDGET, START + 60) for column in table.custom_columns(None)] == ["w", "60s"]


@pytest.mark.parametrize(
    ("deleted", "status", "state"),
    [
        (None, {}, "pending"),
        (None, {"allocation": {"a": 1}}, "allocated"),
        (None, {"allocation": {"a": 1}, "reservedFor": [{"name": "p"}]}, "allocated,reserved"),
        (stage.NOW, {}, "deleted"),
        (stage.NOW, {"allocation": {"a": 1}}, "deleted,allocated"),
    ],
)
def test_the_state_of_a_claim_for_devices(deleted: str | None, status: Object, state: str) -> None:
    meta: Object = {"name": "c"} | ({"deletionTimestamp": deleted} if deleted else {})
    assert CLAIM.columns[1].cell({"metadata": meta, "status": status}, START) == state


def test_a_slice_of_devices_in_one_line() -> None:
    spec: Object = {"driver": "d", "nodeName": "n", "pool": {"name": "p"}}
    found: Object = {"metadata": {"name": "s", "creationTimestamp": stage.NOW}, "spec": spec}
    line = [(column.name, column.cell(found, START + 5)) for column in SLICE.columns]
    assert line == [("Name", "s"), ("Node", "n"), ("Driver", "d"), ("Pool", "p"), ("Age", "5s")]
