from __future__ import annotations

from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.engine.interface import SandboxState
from steersman.kubelet.lookup import log_container, running_container
from steersman.kubelet.status import Final, Known, Waiting, phase, pod_status
from steersman.kubelet.statuswriter import difference

from .pods import container, pod
from .test_plan import NOW, UID, run, sandbox, seen

RUNNING = {"running": {"startedAt": "x"}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code}}


def states(**by_name: dict[str, Any]) -> dict[str, Any]:
    return {name: {"name": name, "state": state, "started": "running" in state} for name, state in by_name.items()}


@pytest.mark.parametrize(
    ("spec", "by_name", "wanted"),
    [
        ({}, states(main={"waiting": {}}), "Pending"),
        ({}, states(main=RUNNING), "Running"),
        ({}, states(main=ended(0)), "Running"),
        ({"restartPolicy": "Never"}, states(main=ended(0)), "Succeeded"),
        ({"restartPolicy": "Never"}, states(main=ended(1)), "Failed"),
        ({"restartPolicy": "OnFailure"}, states(main=ended(1)), "Running"),
        ({"restartPolicy": "OnFailure"}, states(main=ended(0)), "Succeeded"),
        ({"initContainers": [container("i")]}, states(i=RUNNING, main={"waiting": {}}), "Pending"),
        ({"initContainers": [container("i")]}, states(i=ended(1), main={"waiting": {}}), "Pending"),
        (
            {"initContainers": [container("i")], "restartPolicy": "Never"},
            states(i=ended(1), main={"waiting": {}}),
            "Failed",
        ),
        ({"initContainers": [container("i")]}, states(i=ended(0), main=RUNNING), "Running"),
        (
            {"initContainers": [container("i", restartPolicy="Always")]},
            states(i=RUNNING, main={"waiting": {}}),
            "Pending",
        ),
        (
            {"initContainers": [container("i", restartPolicy="Always")], "restartPolicy": "Never"},
            states(i=ended(137), main=ended(0)),
            "Succeeded",
        ),
        ({}, {}, "Pending"),
    ],
)
def test_phase(spec: dict[str, Any], by_name: dict[str, Any], wanted: str) -> None:
    assert phase(pod(**spec), by_name) == wanted


def test_a_deleted_pod_ends_in_a_final_phase() -> None:
    assert phase(pod(), states(main=ended(0)), ending=True) == "Succeeded"
    assert phase(pod(), states(main=ended(137)), ending=True) == "Failed"


def test_nothing_yet() -> None:
    found = pod_status(pod(uid=UID), {}, seen(sandboxes=()), Known(["192.0.2.1"]), NOW)
    assert found["phase"] == "Pending"
    assert found["startTime"] == "1970-01-01T00:16:40Z"
    assert found["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    by_type = {each["type"]: each for each in found["conditions"]}
    assert by_type["Ready"]["reason"] == "ContainersNotReady"
    assert by_type["Ready"]["message"] == "containers with unready status: [main]"
    assert by_type["PodReadyToStartContainers"]["status"] == "False"
    assert by_type["Ready"]["observedGeneration"] == 1
    assert "podIP" not in found


def test_a_stable_pod_has_a_stable_status() -> None:
    wanted, known = pod(uid=UID), Known(["192.0.2.1"])
    first = pod_status(wanted, {}, seen(run("main")), known, NOW)
    assert pod_status(wanted, first, seen(run("main")), known, NOW + 500) == first


def test_states_and_last_states() -> None:
    there = seen(run("main", "exited", 3, 1), run("main", "exited", 2, 0))
    found = pod_status(pod(uid=UID), {}, there, Known(), NOW)["containerStatuses"][0]
    assert found["state"]["terminated"]["exitCode"] == 3
    assert found["lastState"]["terminated"]["exitCode"] == 2
    assert found["restartCount"] == 1
    waiting = Known(waiting={"main": Waiting("CrashLoopBackOff", "wait")})
    found = pod_status(pod(uid=UID), {}, there, waiting, NOW)["containerStatuses"][0]
    assert found["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "wait"}}
    assert found["lastState"]["terminated"]["exitCode"] == 3


def test_a_final_phase_waits_for_the_last_process() -> None:
    known = Known(final=Final("DeadlineExceeded", "too long"))
    assert pod_status(pod(uid=UID), {"phase": "Running"}, seen(run("main")), known, NOW)["phase"] == "Running"
    found = pod_status(pod(uid=UID), {"phase": "Running"}, seen(run("main", "exited", 137)), known, NOW)
    assert (found["phase"], found["reason"]) == ("Failed", "DeadlineExceeded")


def test_a_final_phase_is_never_left() -> None:
    finished = pod(uid=UID)
    finished["status"]["phase"] = "Succeeded"
    assert pod_status(finished, {}, seen(run("main", "exited", 1)), Known(), NOW)["phase"] == "Succeeded"


def test_a_forgotten_container_keeps_its_end() -> None:
    old = {"containerStatuses": [{"name": "main", "state": ended(3), "restartCount": 2, "containerID": "x://1"}]}
    found = pod_status(pod(uid=UID), old, seen(), Known(), NOW)["containerStatuses"][0]
    assert found["state"] == ended(3)
    old = {"containerStatuses": [{"name": "main", "state": RUNNING, "restartCount": 2}]}
    found = pod_status(pod(uid=UID), old, seen(), Known(), NOW)["containerStatuses"][0]
    assert found["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert found["restartCount"] == 3


def test_readiness_gates() -> None:
    gated = pod(uid=UID, readinessGates=[{"conditionType": "example.com/ok"}])
    found = pod_status(gated, {}, seen(run("main")), Known(), NOW)
    ready = next(each for each in found["conditions"] if each["type"] == "Ready")
    assert ready["message"] == 'corresponding condition of pod readiness gate "example.com/ok" does not exist.'
    gated["status"]["conditions"] = [{"type": "example.com/ok", "status": "True"}]
    found = pod_status(gated, {}, seen(run("main")), Known(), NOW)
    assert {each["type"]: each["status"] for each in found["conditions"]}["Ready"] == "True"
    assert {"type": "example.com/ok", "status": "True"} in found["conditions"]


def test_a_stopped_pod_keeps_its_address() -> None:
    there = seen(run("main", "exited"), sandboxes=(sandbox(0, SandboxState.NOTREADY),))
    found = pod_status(pod(uid=UID), {"podIPs": [{"ip": "10.1.2.3"}]}, there, Known(), NOW)
    assert (found["podIP"], found["podIPs"]) == ("10.1.2.3", [{"ip": "10.1.2.3"}])


def test_difference_is_a_strategic_patch() -> None:
    old = {
        "phase": "Pending",
        "message": "x",
        "podIPs": [{"ip": "1"}],
        "conditions": [{"type": "A", "status": "False", "reason": "r"}, {"type": "B", "status": "True"}],
    }
    new = {
        "phase": "Running",
        "podIPs": [{"ip": "2"}],
        "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}],
    }
    assert difference(old, new) == {
        "message": None,
        "phase": "Running",
        "podIPs": [{"$patch": "delete", "ip": "1"}, {"ip": "2"}],
        "conditions": [{"type": "A", "status": "True", "reason": None}],
    }
    assert difference(new, new) == {}


@pytest.mark.parametrize(
    ("status", "previous", "outcome"),
    [
        ({"state": RUNNING, "containerID": "x://1"}, False, "1"),
        ({"state": RUNNING, "containerID": "x://2", "lastState": {"terminated": {"containerID": "x://1"}}}, True, "1"),
        ({"state": {"terminated": {"containerID": "x://1"}}}, False, "1"),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"containerID": "x://1"}},
            },
            False,
            "1",
        ),
        (
            {"state": RUNNING, "containerID": "x://1"},
            True,
            'previous terminated container "main" in pod "web" not found',
        ),
        (
            {"state": {"waiting": {"reason": "ErrImagePull"}}},
            False,
            'container "main" in pod "web" is waiting to start: image can\'t be pulled',
        ),
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff"}}},
            False,
            'container "main" in pod "web" is waiting to start: trying and failing to pull image',
        ),
        (
            {"state": {"waiting": {"reason": "ContainerCreating"}}},
            False,
            'container "main" in pod "web" is waiting to start: ContainerCreating',
        ),
        ({"state": {"terminated": {}}}, False, 'container "main" in pod "web" is terminated'),
    ],
)
def test_which_log_is_meant(status: dict[str, Any], previous: bool, outcome: str) -> None:
    whole = {"containerStatuses": [{"name": "main", **status}]}
    try:
        found = log_container("web", "main", whole, previous=previous)
    except ApiError as error:
        assert error.code == 400
        found = error.message
    assert found == outcome


def test_unknown_containers_are_refused() -> None:
    with pytest.raises(ApiError, match='container "x" in pod "web" is not available'):
        log_container("web", "x", {}, previous=False)
    with pytest.raises(ApiError) as caught:
        running_container("x", {"containerStatuses": [{"name": "x", "state": {"waiting": {}}}]})
    assert caught.value.code == 404
